"""The stores on which every test of the account server runs: memory, SQLite, PostgreSQL."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ntm_as.schema import metadata
from ntm_as.store import SqlStore, open_engine
from tests.unit.servers.as_memory import MemoryStore

KINDS = ("memory", "sqlite", "postgresql")


def postgres_tools() -> Path | None:
    """Directory of initdb, pg_ctl and postgres."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    places += [Path(found).parent] if found else []
    return next((place for place in places if (place / "initdb").exists()), None)


def as_other_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


@functools.cache
def postgres() -> str:
    """URL of a PostgreSQL server of our own, on a socket in a temporary directory.

    It is started once, and ended when the process that runs the tests ends.
    """
    tools = postgres_tools()
    if tools is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("pg8000", reason="the driver pg8000 is not installed")
    root = Path(tempfile.mkdtemp(prefix="pg"))
    other = as_other_user()
    if other:
        shutil.chown(root, other["user"], other["group"])
    run = functools.partial(
        subprocess.run, check=True, capture_output=True, timeout=60, cwd=root, **other
    )
    data = str(root / "data")
    run([tools / "initdb", "-D", data, "-A", "trust", "-U", "ntm", "--no-sync"])
    options = f"-k {root} -h '' -c fsync=off -c max_connections=20"
    run([tools / "pg_ctl", "-D", data, "-l", root / "log", "-w", "-o", options, "start"])

    import atexit

    def end() -> None:
        stop: list[Any] = [tools / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"]
        subprocess.run(stop, check=False, capture_output=True, cwd=root, **other)
        shutil.rmtree(root, ignore_errors=True)

    atexit.register(end)
    return f"postgresql+pg8000://ntm@/postgres?unix_sock={root}/.s.PGSQL.5432"


def wipe(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE IF EXISTS alembic_version"))
    engine.dispose()


@contextmanager
def opened(kind: str, directory: Path) -> Iterator[Any]:
    """An empty store of this kind."""
    if kind == "memory":
        yield MemoryStore()
        return
    url = f"sqlite:///{directory / 'as.db'}"
    if kind == "postgresql":
        url = postgres()
        wipe(url)
    store = SqlStore(open_engine(url))
    try:
        yield store
    finally:
        store.close()
