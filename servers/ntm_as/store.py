"""The account server's database: SQLAlchemy 2, any backend; SQLite in WAL mode by default.

Nothing here is particular to SQLite but its pragmas. The schema is made and changed by Alembic
(:mod:`ntm_as.migrations`), run on start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import delete, event, insert, select, update
from sqlalchemy.engine import Connection, Engine, RowMapping

from ntm_as.schema import accounts, domains, members, revocations, subnets, tokens
from ntm_as.tables import Account, Domain, Member, Revoked, Token
from ntmd.runtime.complaints import Complaint, Exit

LARGEST_SUBNET = 65_535
BUSY_SECONDS = 10


def open_engine(url: str) -> Engine:
    """An engine for ``url`` with this schema at its newest version; Complaint if it cannot be."""
    try:
        parsed = sa.engine.make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        engine = sa.create_engine(
            parsed,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False} if sqlite else {},
            pool_pre_ping=not sqlite,
        )
    except (sa.exc.ArgumentError, ImportError) as error:
        raise Complaint(
            f"the database URL cannot be used: {error}.",
            "It is neither SQLite nor a database whose driver is installed.",
            "Give one like sqlite:////var/lib/ntm-server/as/as.db or postgresql+psycopg://...",
            Exit.USAGE,
        ) from error
    if sqlite:
        event.listen(engine, "connect", _sqlite_pragmas)
        event.listen(engine, "begin", _sqlite_begin)
    migrate(engine)
    return engine


def _sqlite_pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are ours: see _sqlite_begin
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def migrate(engine: Engine) -> None:
    """Bring the schema up to date; Complaint if the database is newer than this program."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        with engine.begin() as connection:
            at = MigrationContext.configure(connection).get_current_revision()
            known = {
                script.revision for script in ScriptDirectory.from_config(config).walk_revisions()
            }
            if at is not None and at not in known:
                raise Complaint(
                    f"the database is newer than this program (its schema is {at}).",
                    "An older program could damage it; it is left as it is.",
                    "Install the version that was used last, or a later one.",
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except sa.exc.SQLAlchemyError as error:
        raise database_complaint(engine, error) from error


def database_complaint(engine: Engine, error: sa.exc.SQLAlchemyError) -> Complaint:
    """What a failing database means to the operator."""
    cause = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    where = engine.url.render_as_string(hide_password=True)
    advice = "Check that it runs, the URL, and the log of the database."
    if "full" in cause:
        advice = "The disk is full: free some space, then start again."
    elif "readonly" in cause or "unable to open" in cause:
        advice = "Check owner and permissions of the directory and the file."
    elif "not a database" in cause or "malformed" in cause:
        advice = "The file is not our database or is damaged; restore it from a backup."
    return Complaint(
        f"the database {where} cannot be used: {cause}.", "Nothing was changed.", advice
    )


class SqlStore:
    """Transactions on an engine; use it from one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def transaction(self) -> Iterator[SqlTables]:
        """All of what happens inside is kept, or, if it raises, nothing."""
        with self.engine.begin() as connection:
            yield SqlTables(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


class SqlTables:
    """:class:`ntm_as.tables.Tables` on one connection inside a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _rows(self, query: sa.Select[Any]) -> Sequence[RowMapping]:
        return self._connection.execute(query).mappings().all()

    def _put(self, table: sa.Table, key: sa.ColumnElement[bool], values: dict[str, Any]) -> None:
        done = self._connection.execute(update(table).where(key).values(values))
        if done.rowcount == 0:
            self._connection.execute(insert(table).values(values))

    # -------------------------------------------------------------- tokens

    def token(self, token_hash: bytes) -> Token | None:
        """The token with this hash."""
        rows = self._rows(select(tokens).where(tokens.c.hash == token_hash))
        return Token(**rows[0]) if rows else None

    def put_token(self, token: Token) -> None:
        """Add or replace."""
        self._put(tokens, tokens.c.hash == token.hash, _values(token))

    def spend_token(self, token_hash: bytes, key_hash: bytes) -> bool:
        """Mark a one-time token used; False if somebody else's key used it up before."""
        free = sa.or_(tokens.c.used_by == b"", tokens.c.used_by == key_hash)
        spent = update(tokens).where(tokens.c.hash == token_hash, free).values(used_by=key_hash)
        return self._connection.execute(spent).rowcount == 1

    def drop_tokens(self, before_ms: int) -> None:
        """Forget tokens that expired before this."""
        self._connection.execute(delete(tokens).where(tokens.c.expires_ms < before_ms))

    # -------------------------------------------------------------- members

    def member(self, name: str) -> Member | None:
        """The member with this FQDN."""
        rows = self._rows(select(members).where(members.c.name == name))
        return _member(rows[0]) if rows else None

    def member_of_key(self, key: bytes) -> Member | None:
        """The member with this X25519 or Ed25519 key."""
        either = sa.or_(members.c.key == key, members.c.sign_key == key)
        rows = self._rows(select(members).where(either))
        return _member(rows[0]) if rows else None

    def put_member(self, member: Member) -> None:
        """Add or replace."""
        values = {**_values(member), "endpoints": json.dumps(list(member.endpoints))}
        self._put(members, members.c.name == member.name, values)

    def drop_member(self, name: str) -> None:
        """Remove; its name is free again."""
        self._connection.execute(delete(members).where(members.c.name == name))

    def members(self, role: str = "", domain: str = "") -> Sequence[Member]:
        """All members by name, of one role or domain if given."""
        query = select(members).order_by(members.c.name)
        if role:
            query = query.where(members.c.role == role)
        if domain:
            query = query.where(members.c.domain == domain)
        return [_member(row) for row in self._rows(query)]

    # -------------------------------------------------------------- domains

    def domain(self, name: str) -> Domain | None:
        """The domain with this name."""
        rows = self._rows(select(domains).where(domains.c.name == name))
        return Domain(**rows[0]) if rows else None

    def add_domain(self, name: str, created_ms: int) -> Domain:
        """Add a domain with a subnet number that was never given before."""
        last = self._connection.scalar(select(sa.func.max(subnets.c.number))) or 0
        if last >= LARGEST_SUBNET:
            raise OverflowError("all /64 prefixes are delegated")
        self._connection.execute(insert(subnets).values(number=last + 1, domain=name))
        domain = Domain(name, last + 1, created_ms)
        self._connection.execute(insert(domains).values(_values(domain)))
        return domain

    def domains(self) -> Sequence[Domain]:
        """All domains, oldest first."""
        return [Domain(**row) for row in self._rows(select(domains).order_by(domains.c.subnet))]

    # -------------------------------------------------------------- accounts

    def account(self, user: str) -> Account | None:
        """The account of this user."""
        rows = self._rows(select(accounts).where(accounts.c.user == user))
        return Account(**rows[0]) if rows else None

    def put_account(self, account: Account) -> None:
        """Add or replace."""
        self._put(accounts, accounts.c.user == account.user, _values(account))

    def drop_account(self, user: str) -> None:
        """Remove."""
        self._connection.execute(delete(accounts).where(accounts.c.user == user))

    def accounts(self) -> Sequence[Account]:
        """All accounts by name."""
        return [Account(**row) for row in self._rows(select(accounts).order_by(accounts.c.user))]

    # -------------------------------------------------------------- revocation

    def revoke(self, key_hash: bytes, not_after_ms: int) -> int:
        """Put a key on the revocation list; returns the new epoch."""
        epoch = (self._connection.scalar(select(sa.func.max(revocations.c.epoch))) or 0) + 1
        entry = Revoked(epoch, key_hash, not_after_ms)
        self._connection.execute(insert(revocations).values(_values(entry)))
        return epoch

    def revoked(self, key_hash: bytes) -> bool:
        """Whether this key is on the list."""
        return bool(self._rows(select(revocations).where(revocations.c.key_hash == key_hash)))

    def revocations(self, after_epoch: int = 0) -> Sequence[Revoked]:
        """The list, or what came after an epoch."""
        query = select(revocations).where(revocations.c.epoch > after_epoch)
        return [Revoked(**row) for row in self._rows(query.order_by(revocations.c.epoch))]


def _values(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _member(row: RowMapping) -> Member:
    return Member(**{**row, "endpoints": tuple(json.loads(row["endpoints"]))})
