"""The tables as SQLAlchemy sees them; the migrations make them. Times are milliseconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

tokens = Table(
    "tokens",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("reusable", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_by", LargeBinary(32), nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False, index=True),
    Column("domain", Text, nullable=False, index=True),
    Column("key", LargeBinary(32), nullable=False, unique=True),
    Column("certificate", LargeBinary, nullable=False),
    Column("joined_ms", BigInteger, nullable=False),
    Column("renewed_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("user", Text, nullable=False),
    Column("sign_key", LargeBinary(32), nullable=False, index=True),
    Column("sign_certificate", LargeBinary, nullable=False),
    Column("endpoints", Text, nullable=False),
)

domains = Table(
    "domains",
    metadata,
    Column("name", Text, primary_key=True),
    Column("subnet", Integer, nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
)

subnets = Table(
    "subnets",  # rows are never deleted: a /64 is never delegated twice (rule S9)
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("domain", Text, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("user", Text, primary_key=True),
    Column("password", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("key_hash", LargeBinary(32), nullable=False, index=True),
    Column("not_after_ms", BigInteger, nullable=False),
)
