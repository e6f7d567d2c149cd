"""A blocked interface: silent both ways for the plane's sockets alone, and over by itself."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from ntmd.proto.io import DatagramReceived, SendDatagram
from ntmd.proto.plane import BlockInterface
from ntmd.proto.types import Endpoint, Path
from tests.unit.dataplane.test_remote import Side, run

DATA = b"\x05" + bytes(31)  # a kind that goes to the core unopened


def send(side: Side, remote: Endpoint, data: bytes) -> None:
    side.plane.send(SendDatagram(data, Path(1, remote)))


async def heard(side: Side, seconds: float) -> list[bytes]:
    """What came in within that time."""
    found: list[bytes] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0:
        try:
            event: Any = await asyncio.wait_for(side.events.get(), left)
        except TimeoutError:
            break
        if isinstance(event, DatagramReceived):
            found.append(event.data)
    return found


def test_silent_both_ways_and_over_by_itself() -> None:
    async def story(a: Side, b: Side) -> None:
        at_a, at_b = await a.open(), await b.open()
        a.plane.send(BlockInterface("", 1.0))
        blocked = asyncio.get_running_loop().time()
        while "out_blocked" not in a.plane.stats().drops:
            send(a, at_b, DATA + b"from a")
        send(b, at_a, DATA + b"to a")
        with (
            socket.socket(type=socket.SOCK_DGRAM) as other,
            socket.socket(type=socket.SOCK_DGRAM) as third,
        ):
            third.bind(("127.0.0.1", 0))
            other.sendto(b"others pass", third.getsockname())
            assert third.recv(100) == b"others pass"
        both = await asyncio.gather(heard(a, 0.5), heard(b, 0.5))
        assert not any(both)
        while not await heard(b, 0.05):
            send(a, at_b, DATA + b"again")
        assert 0.9 < asyncio.get_running_loop().time() - blocked < 3
        send(b, at_a, DATA + b"again")
        assert await heard(a, 0.5) == [DATA + b"again"]

    run(story)


def test_sockets_opened_meanwhile_are_blocked_and_no_time_unblocks() -> None:
    async def story(a: Side, b: Side) -> None:
        at_b = await b.open()
        a.plane.send(BlockInterface("", 60.0))
        at_a = await a.open()
        send(a, at_b, DATA)
        send(b, at_a, DATA)
        assert not any(await asyncio.gather(heard(a, 0.3), heard(b, 0.3)))
        a.plane.send(BlockInterface("", 0.0))
        send(a, at_b, DATA + b"open")
        assert await heard(b, 0.5) == [DATA + b"open"]
        send(b, at_a, DATA + b"open")
        assert await heard(a, 0.5) == [DATA + b"open"]

    run(story)


def test_another_interface_is_not_blocked() -> None:
    async def story(a: Side, b: Side) -> None:
        at_b = await b.open()
        await a.open()
        a.plane.send(BlockInterface("wlan0", 60.0))
        send(a, at_b, DATA)
        assert await heard(b, 0.5) == [DATA]

    run(story)


def test_the_filter_dies_with_its_plane() -> None:
    """kill -9 of the plane: another socket at the same address hears at once."""

    async def story(a: Side, b: Side) -> None:
        at_a = await a.open()
        await b.open()
        a.plane.send(BlockInterface("", 60.0))
        while a.plane.stats().gauges.get("sockets") != 1:
            await asyncio.sleep(0.01)
        a.plane._process.kill()
        a.plane._process.wait()
        with socket.socket(type=socket.SOCK_DGRAM) as fresh:
            fresh.bind((at_a.host, at_a.port))
            fresh.settimeout(5)
            send(b, at_a, DATA)
            b.plane.stats()  # hands over what waits
            assert fresh.recv(100) == DATA

    run(story)
