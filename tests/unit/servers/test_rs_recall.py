"""What a relay writes down to tell its nodes of a restart: its form, its size, its file."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ntm_rs import recall
from ntm_rs.placesfile import DIRECTORY, PlacesFile
from ntm_rs.recall import MAGIC, PLACES_KEY, ROW, Ending, Place, pack, unpack_all
from ntmd.proto.frame import Kind
from ntmd.proto.io import Store, Tell
from ntmd.proto.stream import STREAM_SOCKET
from ntmd.proto.types import Endpoint
from ntmd.proto.types import Path as Way
from tests.unit.servers.rs_ground import Ground, Station

PLACES = [
    Place(b"node one", 7, 1, Endpoint("203.0.113.1", 5000), 1_000),
    Place(b"node two", 0xFFFF_FFFF, 2, Endpoint("2001:db8::2", 65_535), 2_000),
]
VALUE = MAGIC + b"".join(map(pack, PLACES))


def node_and_restart(ground: Ground) -> tuple[Station, Callable[[], int]]:
    """A node with a session that waits; how many resets it has heard."""
    node = ground.node("a", "203.0.113.1")
    node.call_relay()
    ground.wait(1.0)
    return node, lambda: sum(data[0] == Kind.RESET for _, _, data in node.heard)


# ------------------------------------------------------------------ the form


def test_places_come_back_as_they_were() -> None:
    assert unpack_all(VALUE) == PLACES
    assert unpack_all(MAGIC) == []


def test_whatever_else_is_stored_is_told_and_is_no_place() -> None:
    dice = random.Random(5)
    older = MAGIC.replace(b"1\n", b"0\n") + VALUE[len(MAGIC) :]
    nothing = [b"", b"\x00", MAGIC[:-1], older, VALUE[:-1], VALUE + b"x", MAGIC + bytes(ROW.size)]
    for data in [*nothing, *(dice.randbytes(dice.randrange(200)) for _ in range(200))]:
        ground = Ground(with_dc=False)
        ground.stored[PLACES_KEY] = data
        told = [each for each in ground.new_core().take_commands() if isinstance(each, Tell)]
        assert [each.what for each in told if each.level == "warning"] == [
            "places of nodes cannot be used"
        ]
        assert ground.core.recall.waiting() == 0
    for _ in range(200):  # rows of chance are places: whatever they name, nothing is raised
        ground = Ground(with_dc=False)
        ground.stored[PLACES_KEY] = MAGIC + dice.randbytes(ROW.size * dice.randrange(5))
        ground.new_core()
        ground.pump()


def test_a_place_whose_socket_is_no_longer_there_is_passed_over() -> None:
    ground = Ground(with_dc=False)
    late = ground.platform_ms(ground.now)
    sockets = [(1, "203.0.113.1"), (2, "203.0.113.2"), (1, "2001:db8::3"), (3, "203.0.113.4")]
    places = [
        Place(bytes(7) + bytes((n,)), 1 + n, socket, Endpoint(host, 5000), late)
        for n, (socket, host) in enumerate(sockets)
    ]
    ground.stored[PLACES_KEY] = MAGIC + b"".join(map(pack, places))
    assert ground.new_core().recall.waiting() == 1


# ------------------------------------------------------------------ what is kept


def test_a_node_is_told_three_times_at_most_and_not_when_it_left() -> None:
    ground = Ground(with_dc=False)
    node, resets = node_and_restart(ground)
    ground.stations.clear()
    ground.new_core()
    assert ground.core.recall.waiting() == 1
    ground.wait(30.0)
    assert ground.core.recall.sent == recall.COPIES
    assert ground.core.recall.waiting() == 0
    assert resets() == 0

    ground = Ground(with_dc=False)
    node, _ = node_and_restart(ground)
    node.engine.close(node.handle, ground.now, 1)
    ground.pump()
    ground.wait(1.0)
    assert unpack_all(ground.stored[PLACES_KEY]) == []


def test_a_node_that_was_silent_for_an_hour_is_not_told() -> None:
    ground = Ground(with_dc=False)
    node_and_restart(ground)
    ground.now += recall.HORIZON
    ground.new_core()
    assert ground.core.recall.waiting() == 0


def test_the_index_of_a_rekey_takes_the_place_of_the_one_before() -> None:
    ground = Ground(with_dc=False)
    node, resets = node_and_restart(ground)
    before = unpack_all(ground.stored[PLACES_KEY])
    node.engine.rekey(node.handle, ground.now)
    ground.wait(1.0)
    after = unpack_all(ground.stored[PLACES_KEY])
    assert [each.node for each in before] == [each.node for each in after]
    assert before[0].own_index != after[0].own_index
    ground.new_core()
    ground.wait(1.0)
    assert resets() == 1
    assert len(ground.core.clients) == 1


def test_writing_is_bounded_and_being_heard_is_written_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recall, "PLACES_MAX", 1_000)
    ground = Ground(with_dc=False)
    part = ground.core.recall
    ground.core.take_commands()
    now, written = ground.now, 0

    def stores() -> list[bytes]:
        found = [each for each in ground.core.take_commands() if isinstance(each, Store)]
        return [each.value for each in found if each.key == PLACES_KEY and each.value]

    for number in range(3_000):
        now += 0.01
        way = Way(1, Endpoint("203.0.113.1", 1 + number))
        part.keep(number.to_bytes(8, "big"), 1 + number, way, now)
        part.tick(now)
        for value in stores():
            written += 1
            assert len(value) <= len(MAGIC) + 1_000 * ROW.size
    assert 30 <= written <= 61
    latest = unpack_all(value)
    assert latest[-1].own_index > 2_900
    assert len(latest) == 1_000
    part.tick(now + 1.0)
    assert len(stores()) == 1

    for step in range(600):  # heard again and again, from where it was
        part.keep((2_999).to_bytes(8, "big"), 3_000, way, now + step)
        part.tick(now + step)
    assert 5 <= len(stores()) <= 10


def test_over_tls_nothing_is_kept() -> None:
    ground = Ground(with_dc=False)
    node_and_restart(ground)
    (place,) = unpack_all(ground.stored[PLACES_KEY])
    way = Way(STREAM_SOCKET, place.remote)
    ground.core.recall.keep(place.node, 5, way, ground.now)
    ground.wait(1.0)
    assert unpack_all(ground.stored[PLACES_KEY]) == []


def test_an_end_in_order_writes_what_has_just_changed() -> None:
    ground = Ground(with_dc=False)
    ground.node("a", "203.0.113.1").call_relay()
    ground.wait(0.05)
    assert len(ground.core.clients) == 1
    assert PLACES_KEY not in ground.stored
    ground.core.handle(Ending(), ground.now)
    ground.pump()
    assert len(unpack_all(ground.stored[PLACES_KEY])) == 1


# ------------------------------------------------------------------ the file


def file_of(directory: Path, *values: bytes) -> dict[str, bytes]:
    async def write_and_read() -> dict[str, bytes]:
        file = PlacesFile(directory, asyncio.get_running_loop())
        for value in values:
            file.put(value)
        await file.close()
        return file.read()

    return asyncio.run(write_and_read())


def test_the_newest_value_is_what_is_read(tmp_path: Path) -> None:
    assert file_of(tmp_path) == {}
    assert file_of(tmp_path, b"one", b"two", VALUE) == {PLACES_KEY: VALUE}
    assert file_of(tmp_path, b"") == {PLACES_KEY: b""}


@pytest.mark.parametrize("spoil", ["cut", "empty", "changed", "endless", "directory", "foreign"])
def test_a_damaged_file_is_one_line_and_no_places(
    spoil: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file_of(tmp_path, VALUE)
    (path,) = (tmp_path / DIRECTORY).iterdir()
    good = path.read_bytes()
    match spoil:
        case "directory":
            path.unlink()
            path.mkdir()
        case "foreign":
            path.rename(path.with_name("%ff.value"))
        case "endless":
            os.truncate(path, 1 << 33)
        case _:
            path.write_bytes({"cut": good[:-1], "empty": b"", "changed": good[:-1] + b"?"}[spoil])
    caplog.set_level(logging.WARNING)
    assert file_of(tmp_path) == {}
    (record,) = caplog.records
    assert "cannot be read" in record.getMessage()


def test_what_cannot_be_stored_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / DIRECTORY).write_text("in the way")
    caplog.set_level(logging.WARNING)

    async def write() -> None:
        file = PlacesFile(tmp_path, asyncio.get_running_loop())
        for _ in range(3):
            file.put(VALUE)
            await file.close()

    asyncio.run(write())
    assert len(caplog.records) == 1


WRITER = """
import asyncio, sys
from pathlib import Path
from ntm_rs.placesfile import PlacesFile

async def main():
    file = PlacesFile(Path(sys.argv[1]), asyncio.get_running_loop())
    print(flush=True)
    number = 0
    while True:
        file.put(b"%d" % (number % 10) * 100_000)
        number += 1
        await file.close()

asyncio.run(main())
"""


def test_killed_at_any_instant_it_reads_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dice = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.05, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        value = file_of(tmp_path)[PLACES_KEY]
        assert len(value) == 100_000
        assert len(set(value)) == 1
    assert not caplog.records
