"""The first schema: tokens, members, domains, subnets, accounts, revocations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "tokens",
        sa.Column("hash", sa.LargeBinary(32), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("role", "name", "domain", "user")),
        sa.Column("reusable", sa.Boolean, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("used_by", sa.LargeBinary(32), nullable=False),
    )
    _members()
    op.create_table(
        "domains",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("subnet", sa.Integer, nullable=False, unique=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "subnets",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("domain", sa.Text, nullable=False),
    )
    op.create_table(
        "accounts",
        sa.Column("user", sa.Text, primary_key=True),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "revocations",
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key_hash", sa.LargeBinary(32), nullable=False, index=True),
        sa.Column("not_after_ms", sa.BigInteger, nullable=False),
    )


def _members() -> None:
    op.create_table(
        "members",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False, index=True),
        sa.Column("domain", sa.Text, nullable=False, index=True),
        sa.Column("key", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("joined_ms", sa.BigInteger, nullable=False),
        sa.Column("renewed_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("sign_key", sa.LargeBinary(32), nullable=False, index=True),
        sa.Column("sign_certificate", sa.LargeBinary, nullable=False),
        sa.Column("endpoints", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Remove all tables."""
    for name in ("revocations", "accounts", "subnets", "domains", "members", "tokens"):
        op.drop_table(name)
