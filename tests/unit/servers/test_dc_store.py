"""The table of nodes: what was reported as durable survives kill -9; failures are told."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from ntm_dc.store import NodeStore
from ntm_dc.values import StoredNode
from ntmd.proto.types import Endpoint
from ntmd.runtime.complaints import Complaint, Exit
from tests.unit.servers.as_stores import postgres

NODE = StoredNode(
    "laptop.home.test",
    b"\xfd" + bytes(15),
    b"k" * 32,
    b"c" * 400,
    b"r" * 141,
    1,
    Endpoint("203.0.113.5", 40_000),
    1_767_225_600_123,
    "rs1.home.test",
    True,
)


class Opened:
    def __init__(self, place: Path | str) -> None:
        self.reports: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        report = lambda *each: self.reports.put(each)  # noqa: E731
        if isinstance(place, Path):
            self.store = NodeStore.in_directory(place, report)
        else:
            self.store = NodeStore(place, report)

    def flush(self, ticket: int = 1) -> str:
        self.store.flush(ticket)
        got, error = self.reports.get(timeout=10)
        assert got == ticket
        return error


@pytest.fixture(params=["file", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """The three kinds of place for the table; it is empty."""
    if request.param == "file":
        return tmp_path
    url = f"sqlite:///{tmp_path / 'shared.db'}" if request.param == "sqlite" else postgres()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in ("dc_nodes", "dc_schema"):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
    engine.dispose()
    return url


def test_rows_come_back_as_they_were(place: Path | str) -> None:
    first = Opened(place)
    other = StoredNode("desk.home.test", b"\xfd" + bytes(14) + b"\x01")
    for node in (NODE, other):
        first.store.put(node)
    assert first.flush() == ""
    assert first.store.load() == (other, NODE)
    first.store.put(replace(NODE, online=False))
    first.store.forget("desk.home.test")
    first.store.close()
    second = Opened(place)
    assert second.store.load() == (replace(NODE, online=False),)
    second.store.close()


def test_coordinators_may_share_a_database(place: Path | str) -> None:
    opened = Opened(place)
    other = StoredNode("desk.ahome.test", b"\xfd" + bytes(14) + b"\x02")
    for node in (NODE, other):
        opened.store.put(node)
    assert opened.flush() == ""
    assert opened.store.load("home.test") == (NODE,)
    opened.store.close()


@pytest.mark.parametrize("url", ["rubbish", "nosuchdriver://host/name"])
def test_a_url_that_cannot_be_used_is_a_complaint(url: str) -> None:
    with pytest.raises(Complaint, match="URL cannot be used") as caught:
        Opened(url)
    assert caught.value.exit_code == Exit.USAGE


def test_the_last_value_counts(place: Path | str) -> None:
    opened = Opened(place)
    for port in range(1000, 1500):
        opened.store.put(replace(NODE, endpoint=Endpoint("203.0.113.5", port)))
    assert opened.flush() == ""
    (row,) = opened.store.load()
    assert row.endpoint == Endpoint("203.0.113.5", 1499)
    opened.store.close()


def test_reported_rows_survive_kill_9(tmp_path: Path) -> None:
    script = """
import sys, threading, time
from pathlib import Path
from ntm_dc.store import NodeStore
from ntm_dc.values import StoredNode
def flushed(ticket, error):
    assert not error
    print(ticket, flush=True)
store = NodeStore.in_directory(Path(sys.argv[1]), flushed)
for number in range(100000):
    store.put(StoredNode(f"n{number}.home.test", b"\\xfd" + number.to_bytes(15, "big")))
    store.flush(number)
threading.Event().wait()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines() if line.strip()]
    process.wait()
    process.stdout.close()
    opened = Opened(tmp_path)
    kept = {row.name for row in opened.store.load()}
    opened.store.close()
    assert {f"n{number}.home.test" for number in told} <= kept


def test_a_failed_write_is_reported_and_made_good(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    opened.store.put(NODE)
    assert opened.flush(1) == ""
    with sa.create_engine(f"sqlite:///{tmp_path / 'nodes.sqlite'}").begin() as connection:
        connection.execute(sa.text("ALTER TABLE dc_nodes RENAME TO elsewhere"))
    opened.store.put(replace(NODE, online=False))
    assert "dc_nodes" in opened.flush(2)
    with sa.create_engine(f"sqlite:///{tmp_path / 'nodes.sqlite'}").begin() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO dc_nodes"))
    assert opened.flush(3) == ""
    assert opened.store.load() == (replace(NODE, online=False),)
    opened.store.close()


def test_two_names_cannot_have_one_address(place: Path | str) -> None:
    opened = Opened(place)
    opened.store.put(NODE)
    opened.store.put(replace(NODE, name="desk.home.test"))
    assert "unique" in opened.flush().lower()
    opened.store.forget("desk.home.test")
    assert opened.flush(2) == ""
    opened.store.close()


@pytest.mark.parametrize("content", [b"rubbish" * 1000, b"SQLite format 3\0" + bytes(2000)])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "nodes.sqlite"
    path.write_bytes(content)
    with pytest.raises(Complaint) as caught:
        Opened(tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_bytes()[:200] == content[:200]


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Opened(tmp_path).store.close()
    with sa.create_engine(f"sqlite:///{tmp_path / 'nodes.sqlite'}").begin() as connection:
        connection.execute(sa.text("UPDATE dc_schema SET version = 2"))
    with pytest.raises(Complaint, match="version 2"):
        Opened(tmp_path)
