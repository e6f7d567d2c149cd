"""The plane's process, with socket pairs in the place of TUNs: no privilege needed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from ntmd.dataplane import DataPlane
from ntmd.dataplane.remote import PlaneProcess
from ntmd.proto import timing
from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed
from ntmd.proto.plane import (
    CloseSocket,
    DeviceFailed,
    InstallTunnel,
    NoTunnelFor,
    OpenSocket,
    PlanePath,
    ReleaseParked,
    SlotSeen,
    SocketFailed,
    SocketOpened,
    SwitchPath,
)
from ntmd.proto.types import Endpoint, Path
from tests.unit.dataplane.pair import A, B, entry, udp_packet

PATIENCE = 10.0


class Side:
    """A plane with a socket pair for a TUN (packets without virtio header)."""

    def __init__(self, own: bytes) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.tun, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.tun.setblocking(False)
        self.plane = PlaneProcess(self.events.put_nowait)
        with other:
            self.plane.start(other.fileno(), 0, own, 0)

    async def wait(self, kind: type) -> Any:
        while True:
            event = await asyncio.wait_for(self.events.get(), PATIENCE)
            if isinstance(event, kind):
                return event

    async def open(self, number: int = 1) -> Endpoint:
        self.plane.send(OpenSocket(number, "", 4, "127.0.0.1", 0))
        return (await self.wait(SocketOpened)).local

    async def packet(self) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.tun, 70_000), PATIENCE)

    def close(self) -> None:
        self.plane.close()
        self.tun.close()


def run(story: Callable[[Side, Side], Awaitable[None]]) -> None:
    async def both() -> None:
        sides = Side(A), Side(B)
        try:
            await story(*sides)
        finally:
            for side in sides:
                side.close()

    asyncio.run(both())


async def connect(a: Side, b: Side) -> tuple[Endpoint, Endpoint]:
    at_a, at_b = await a.open(), await b.open()
    for side, name, remote in ((a, "a", at_b), (b, "b", at_a)):
        paths = (PlanePath(Path(1, remote), 1500),)
        side.plane.send(InstallTunnel(entry(name, paths=paths)))
    for side in (b, a):
        while not side.plane.stats().gauges["tunnels"]:
            await asyncio.sleep(0.01)
    return at_a, at_b


def test_packets_and_datagrams_pass_in_both_directions() -> None:
    async def story(a: Side, b: Side) -> None:
        at_a, at_b = await connect(a, b)
        a.tun.send(udp_packet(b"there"))
        assert await b.packet() == udp_packet(b"there")
        assert await b.wait(SlotSeen) == SlotSeen(5, 1)
        b.tun.send(udp_packet(b"back", source=B, to=A))
        assert await a.packet() == udp_packet(b"back", source=B, to=A)
        control = bytes((9, 1, 0, 0)) + bytes(60)
        a.plane.send(SendDatagram(control, Path(1, at_b)))
        assert await b.wait(DatagramReceived) == DatagramReceived(control, 1, at_a)

    run(story)


def test_packets_wait_until_the_tunnel_is_there() -> None:
    async def story(a: Side, b: Side) -> None:
        a.tun.send(udp_packet(b"early"))
        assert await a.wait(NoTunnelFor) == NoTunnelFor(B)
        await connect(a, b)
        assert await b.packet() == udp_packet(b"early")
        a.tun.send(udp_packet(b"x", to=A[:15] + b"\x77"))
        nowhere = await a.wait(NoTunnelFor)
        a.plane.send(ReleaseParked(nowhere.address))
        assert (await a.packet())[40:42] == bytes((1, 3))

    run(story)


def test_what_the_kernel_refuses_is_told() -> None:
    async def story(a: Side, b: Side) -> None:
        await connect(a, b)
        a.plane.send(OpenSocket(2, "no-such-interface", 4, "127.0.0.1", 0))
        assert (await a.wait(SocketFailed)).socket == 2
        bad = Path(1, Endpoint("203.0.113.1", 9))  # from 127.0.0.1: no way out
        a.plane.send(SendDatagram(b"\x09" + bytes(40), bad))
        assert (await a.wait(SendFailed)).path == bad
        a.plane.send(SwitchPath(5, (PlanePath(Path(9, bad.remote), 1500),)))
        assert a.plane.stats().gauges["sockets"] == 1  # and the switch is done
        a.tun.send(udp_packet(b"x"))
        a.plane.send(CloseSocket(1))
        while not a.plane.stats().drops.get("out_no_socket"):
            await asyncio.sleep(0.01)
        assert a.plane.stats().gauges["sockets"] == 0

    run(story)


def test_datagrams_for_the_core_keep_their_order() -> None:
    async def story(a: Side, b: Side) -> None:
        _, at_b = await connect(a, b)
        path = Path(1, at_b)
        for i in range(3000):
            a.plane.send(SendDatagram(b"\x09" + bytes(15) + i.to_bytes(4, "big"), path))
            if i % 50 == 0:
                await asyncio.sleep(0.001)
        numbers: list[int] = []
        while len(numbers) < 3000:
            event = await b.wait(DatagramReceived)
            numbers.append(int.from_bytes(event.data[16:20], "big"))
        assert numbers == list(range(3000))

    run(story)


def test_while_the_daemon_is_busy_packets_pass_and_events_are_bounded() -> None:
    async def story(a: Side, b: Side) -> None:
        _, at_b = await connect(a, b)
        b.tun.setblocking(True)
        b.tun.settimeout(PATIENCE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            for i in range(10_000):  # nothing below lets the control loop run
                flood.sendto(b"\x09" + bytes(1200), at_b)
                if i % 500 == 499:
                    a.tun.send(udp_packet(i.to_bytes(4, "big")))
                    assert b.tun.recv(2000) == udp_packet(i.to_bytes(4, "big"))
        b.tun.setblocking(False)
        while b.plane.stats().gauges["receives"] < 1000:
            await asyncio.sleep(0.01)
        stats = b.plane.stats()
        assert stats.drops["event_queue_full"] > 0
        for _ in range(timing.PLANE_EVENTS):
            assert isinstance(await b.wait(DatagramReceived), DatagramReceived)

    run(story)


def test_the_end_of_the_process_is_the_last_event() -> None:
    async def story(a: Side, b: Side) -> None:
        plane: DataPlane = a.plane
        assert plane.name == "python"
        await a.open()
        assert plane.stats().gauges["tunnels"] == 0
        os.kill(a.plane.pid, 9)
        assert "-9" in (await a.wait(DeviceFailed)).text
        plane.send(CloseSocket(1))  # nobody minds
        assert plane.stats().gauges["tunnels"] == 0
        b.plane.close()
        assert b.events.empty()

    run(story)
