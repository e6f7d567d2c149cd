"""The coordinator's durable table of nodes: who has which address, and where it was last heard.

SQLAlchemy 2 core, plain SQL of any database. Rows are written by one thread, in batches, the last
value of a row first in line; :meth:`NodeStore.flush` reports when everything before it is on disk.
A SQLite file runs in WAL mode with full synchronisation, so that a killed process loses nothing
that was reported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ntm_dc.values import StoredNode
from ntmd.proto.types import Endpoint
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.journal import journal

SCHEMA = 1
RETRY = 1.0  # seconds after a failed write
BATCH = 1000

log = journal(__name__)

_metadata = sa.MetaData()
_schema = sa.Table("dc_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True))
_nodes = sa.Table(
    "dc_nodes",
    _metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("address", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("node_key", sa.LargeBinary(32), nullable=False),
    sa.Column("certificate", sa.LargeBinary(560), nullable=False),
    sa.Column("record", sa.LargeBinary(141), nullable=False),
    sa.Column("socket", sa.Integer, nullable=False),
    sa.Column("host", sa.String(45), nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("last_seen_ms", sa.BigInteger, nullable=False),
    sa.Column("home_relay", sa.String(128), nullable=False),
    sa.Column("online", sa.Boolean, nullable=False),
)

_gone: sa.BindParameter[str] = sa.bindparam("gone")

OnFlushed = Callable[[int, str], None]


class NodeStore:
    """The table behind ``url`` (an SQLAlchemy URL). Complaint if it cannot be used."""

    def __init__(self, url: str, on_flushed: OnFlushed) -> None:
        self.failures = 0
        self.written = 0
        self._on_flushed = on_flushed
        self._rows: dict[str, StoredNode | None] = {}
        self._tickets: list[int] = []
        self._wake = threading.Condition()
        self._closing = False
        self._engine = _engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _careful)
        try:
            self._prepare()
        except sa.exc.SQLAlchemyError as error:
            self._engine.dispose()
            raise self._complaint(error) from error
        self._thread = threading.Thread(target=self._run, name="dc-store", daemon=True)
        self._thread.start()

    @classmethod
    def in_directory(cls, directory: Path, on_flushed: OnFlushed) -> NodeStore:
        """The SQLite file of a data directory."""
        return cls(f"sqlite:///{directory / 'nodes.sqlite'}", on_flushed)

    def load(self, domain: str = "") -> tuple[StoredNode, ...]:
        """All rows, by name; of one domain if given (coordinators may share a database)."""
        query = sa.select(_nodes).order_by(_nodes.c.name)
        if domain:
            query = query.where(_nodes.c.name.endswith("." + domain, autoescape=True))
        try:
            with self._engine.connect() as connection:
                found = connection.execute(query).mappings()
                return tuple(_node(dict(row)) for row in found)
        except (sa.exc.SQLAlchemyError, ValueError) as error:
            raise self._complaint(error) from error

    def put(self, node: StoredNode) -> None:
        """Write a row soon; a later one of the same name replaces it."""
        with self._wake:
            self._rows[node.name] = node

    def forget(self, name: str) -> None:
        """Delete a row soon."""
        with self._wake:
            self._rows[name] = None

    def flush(self, ticket: int) -> None:
        """Report ``ticket`` once everything before it is durable."""
        with self._wake:
            self._tickets.append(ticket)
            self._wake.notify()

    def kick(self) -> None:
        """Let what was put be written now, without a report."""
        with self._wake:
            if self._rows:
                self._wake.notify()

    def waiting(self) -> int:
        """Rows not written yet."""
        return len(self._rows)

    def close(self) -> None:
        """Write what waits, then end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._engine.dispose()

    # -------------------------------------------------------------- the writing thread

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._tickets and not self._closing:
                    self._wake.wait(RETRY)
                rows, self._rows = self._rows, {}
                tickets, self._tickets = self._tickets, []
                closing = self._closing
            error = self._write(rows) if rows else ""
            for ticket in tickets:
                self._on_flushed(ticket, error)
            if error and not closing:
                with self._wake:
                    self._rows = {**rows, **self._rows}
            if closing and not self._tickets and (error or not self._rows):
                return

    def _write(self, rows: dict[str, StoredNode | None]) -> str:
        try:
            with self._engine.begin() as connection:
                gone = [{"gone": name} for name in rows]
                connection.execute(_nodes.delete().where(_nodes.c.name == _gone), gone)
                if kept := [_values(node) for node in rows.values() if node is not None]:
                    connection.execute(_nodes.insert(), kept)
        except sa.exc.SQLAlchemyError as error:
            self.failures += 1
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            if self.failures == 1:
                log.warning("nodes cannot be stored", why=reason)
            return reason
        if self.failures:
            log.info("nodes can be stored again")
        self.failures = 0
        self.written += len(rows)
        return ""

    # -------------------------------------------------------------- schema

    def _prepare(self) -> None:
        with self._engine.begin() as connection:
            tables = sa.inspect(connection).get_table_names()
            if "dc_schema" not in tables:
                _metadata.create_all(connection)
                connection.execute(_schema.insert().values(version=SCHEMA))
                return
            version = connection.execute(sa.select(sa.func.max(_schema.c.version))).scalar()
        if version != SCHEMA:
            self._engine.dispose()
            raise Complaint(
                f"{self._where()} has version {version} of the coordinator's tables.",
                f"This program knows version {SCHEMA}; it changes nothing there.",
                "Use the program that wrote it, or a newer one.",
            )

    def _where(self) -> str:
        url = self._engine.url
        return str(url.database if url.get_backend_name() == "sqlite" else url)

    def _complaint(self, error: Exception) -> Complaint:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        return Complaint(
            f"the coordinator's database {self._where()} cannot be used: {reason}.",
            "The lasting addresses of the nodes are in it; nothing was changed.",
            "Check the disk and the permissions, or restore the file from a backup.",
        )


def _engine(url: str) -> sa.Engine:
    try:
        return sa.create_engine(url)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise Complaint(
            f"the database URL cannot be used: {error}.",
            "It is neither SQLite nor a database whose driver is installed.",
            "Give one like sqlite:////var/lib/ntm-server/dc/nodes.sqlite or postgresql+...://...",
            Exit.USAGE,
        ) from error


def _careful(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _values(node: StoredNode) -> dict[str, Any]:
    return {
        "name": node.name,
        "address": node.address,
        "node_key": node.key,
        "certificate": node.certificate,
        "record": node.record,
        "socket": node.socket,
        "host": node.endpoint.host if node.endpoint else "",
        "port": node.endpoint.port if node.endpoint else 0,
        "last_seen_ms": node.last_seen_ms,
        "home_relay": node.home_relay,
        "online": node.online,
    }


def _node(row: dict[str, Any]) -> StoredNode:
    return StoredNode(
        name=str(row["name"]),
        address=bytes(row["address"]),
        key=bytes(row["node_key"]),
        certificate=bytes(row["certificate"]),
        record=bytes(row["record"]),
        socket=int(row["socket"]),
        endpoint=Endpoint(str(row["host"]), int(row["port"])) if row["host"] else None,
        last_seen_ms=int(row["last_seen_ms"]),
        home_relay=str(row["home_relay"]),
        online=bool(row["online"]),
    )
