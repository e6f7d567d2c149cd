"""A TLS connection through the real plane's process: an own socket like any other."""

from __future__ import annotations

from pathlib import Path as FilePath

from ntmd.proto.io import DatagramReceived, SendDatagram
from ntmd.proto.plane import (
    BlockInterface,
    CloseSocket,
    OpenStream,
    SocketFailed,
    SocketOpened,
    StreamSettings,
)
from ntmd.proto.types import Endpoint, Path
from tests.unit.dataplane.test_remote import Side, run
from tests.unit.runtime.test_stream_server import NOW, SERVICE, bench, until

CONTROL = b"\x09" + bytes(59)


def wish(number: int, remote: Endpoint) -> OpenStream:
    return OpenStream(number, "", 4, "127.0.0.1", remote, SERVICE, NOW, 0)


def test_open_carry_refuse_and_close(tmp_path: FilePath) -> None:
    async def story(a: Side, _: Side) -> None:
        async with bench(tmp_path) as made:
            a.plane.send(StreamSettings(made.authority.ca))
            a.plane.send(wish(5, made.at))
            opened = await a.wait(SocketOpened)
            assert opened.socket == 5
            assert opened.local.host == "127.0.0.1"
            a.plane.send(SendDatagram(CONTROL, Path(5, made.at)))
            assert await a.wait(DatagramReceived) == DatagramReceived(CONTROL, 5, made.at)
            assert made.runs == [(CONTROL, 60, opened.local)]
            a.plane.send(CloseSocket(5))
            await until(lambda: len(made.listener) == 0)

            a.plane.send(wish(6, made.at))
            await a.wait(SocketOpened)
            made.port.close()
            failed = await a.wait(SocketFailed)
            assert (failed.socket, failed.text) == (6, "the server closed the connection")

            a.plane.send(StreamSettings(b"no certificate"))
            a.plane.send(wish(7, made.at))
            assert (await a.wait(SocketFailed)).socket == 7
            a.plane.send(wish(8, Endpoint("127.0.0.1", 1)))
            assert (await a.wait(SocketFailed)).socket == 8

    run(story)


def test_a_blocked_interface_has_no_connections(tmp_path: FilePath) -> None:
    """The kernel's end would go on acknowledging and keeping alive."""

    async def story(a: Side, _: Side) -> None:
        async with bench(tmp_path) as made:
            a.plane.send(StreamSettings(made.authority.ca))
            a.plane.send(wish(5, made.at))
            await a.wait(SocketOpened)
            a.plane.send(BlockInterface("", 60.0))
            failed = await a.wait(SocketFailed)
            assert (failed.socket, failed.text) == (5, "the interface is blocked")
            await until(lambda: len(made.listener) == 0)
            a.plane.send(wish(6, made.at))
            assert (await a.wait(SocketFailed)).socket == 6
            a.plane.send(BlockInterface("", 0.0))
            a.plane.send(wish(7, made.at))
            assert (await a.wait(SocketOpened)).socket == 7

    run(story)
