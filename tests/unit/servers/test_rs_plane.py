"""The relay's fast road over real sockets on loopback: batches, fall-backs, bounded queues."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ntm_rs.legs import Holder, Leg, LegTable
from ntm_rs.plane import QUEUE_BYTES, UDP_GRO, UDP_SEGMENT, RelayPlane
from ntmd.proto.frame import pack_header
from ntmd.proto.types import Endpoint
from ntmd.runtime.udp import open_udp

NOW = 50.0
GRANT = b"g" * 16
LEG_A, LEG_B, TO_A, TO_B = 0xA0A1A2A3, 0xB0B1B2B3, 0x0A0A0A0B, 0x0B0B0B0C


def datagram(index: int, size: int = 300, fill: int = 1, kind: int = 8) -> bytes:
    return pack_header(kind, 1, 0, 0, index, fill) + bytes([fill]) * (size - 16)


class Ground:
    """A relay with a v4 and a v6 socket; node A on IPv4, node B on IPv6."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.relay4, self.relay6 = open_udp("127.0.0.1", 0), open_udp("::1", 0)
        self.a, self.b = open_udp("127.0.0.1", 0), open_udp("::1", 0)
        self.table = LegTable()
        self.others: list[tuple[bytes, int, Endpoint]] = []
        self._add(self.a, 1, LEG_A, TO_A)
        self._add(self.b, 2, LEG_B, TO_B)
        self.plane = RelayPlane(
            {1: self.relay4, 2: self.relay6},
            self.table,
            lambda data, number, source: self.others.append((data, number, source)),
            lambda: NOW,
            loop,
        )

    def _add(self, udp: socket.socket, number: int, leg: int, delivery: int) -> None:
        name = udp.getsockname()
        holder = Holder(str(leg).encode())
        holder.primary = holder.source(number, Endpoint(name[0], name[1]), 1, NOW)
        holder.primary.validated = True
        self.table.add(Leg(leg, GRANT, holder, delivery, NOW + 100, 0))

    def from_a(self, data: bytes, segment: int = 0) -> None:
        ancillary = [(17, UDP_SEGMENT, struct.pack("H", segment))] if segment else []
        self.a.sendmsg([data], ancillary, 0, self.relay4.getsockname())

    def close(self) -> None:
        self.plane.close()
        self.a.close()
        self.b.close()


async def heard(udp: socket.socket, count: int) -> list[bytes]:
    """Up to ``count`` datagrams that come within a second."""
    loop = asyncio.get_running_loop()
    got: list[bytes] = []
    try:
        async with asyncio.timeout(1):
            while len(got) < count:
                got.append(await loop.sock_recv(udp, 65_536))
    except TimeoutError:
        pass
    return got


def on_ground(story: Callable[[Ground], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        ground = Ground(asyncio.get_running_loop())
        try:
            await story(ground)
        finally:
            ground.close()

    asyncio.run(run())


def test_a_batch_crosses_from_v4_to_v6_with_the_delivery_index() -> None:
    async def story(ground: Ground) -> None:
        parts = [datagram(LEG_A, 1000, fill) for fill in range(20)] + [datagram(LEG_A, 77, 20)]
        ground.from_a(b"".join(parts), 1000)
        got = await heard(ground.b, 21)
        assert got == [part[:4] + TO_B.to_bytes(4, "big") + part[8:] for part in parts]
        assert ground.plane.stats()["segmented"] >= 1
        assert ground.table.packets == 21

    on_ground(story)


def test_back_from_v6_to_v4() -> None:
    async def story(ground: Ground) -> None:
        ground.b.sendto(datagram(LEG_B), ground.relay6.getsockname())
        assert [data[4:8] for data in await heard(ground.a, 1)] == [TO_A.to_bytes(4, "big")]

    on_ground(story)


def test_a_run_with_strangers_in_it_is_taken_apart() -> None:
    async def story(ground: Ground) -> None:
        parts = [datagram(LEG_A), datagram(0xBAD), datagram(LEG_A), datagram(0), datagram(LEG_A)]
        ground.from_a(b"".join(parts), 300)
        assert len(await heard(ground.b, 3)) == 3
        assert [data for data, _, _ in ground.others] == [parts[1], parts[3]]
        assert ground.others[0][1] == 1

    on_ground(story)


def test_what_is_no_leg_goes_to_the_core_unchanged() -> None:
    async def story(ground: Ground) -> None:
        for data in (b"", b"x", datagram(0, kind=5), bytes(1400)):
            ground.from_a(data)
        await asyncio.sleep(0.05)
        assert [data for data, _, _ in ground.others if data] == [
            b"x",
            datagram(0, kind=5),
            bytes(1400),
        ]

    on_ground(story)


def test_without_segmentation_offload_each_datagram_leaves_by_itself() -> None:
    async def story(ground: Ground) -> None:
        ground.plane.ports[2].gso = False
        ground.from_a(b"".join(datagram(LEG_A, 500, fill) for fill in range(8)), 500)
        assert len(await heard(ground.b, 8)) == 8
        assert ground.plane.stats()["segmented"] == 0

    on_ground(story)


def test_without_receive_offload_too() -> None:
    async def story(ground: Ground) -> None:
        ground.relay4.setsockopt(17, UDP_GRO, 0)
        ground.from_a(b"".join(datagram(LEG_A, 500, fill) for fill in range(8)), 500)
        assert len(await heard(ground.b, 8)) == 8

    on_ground(story)


class FullSocket:
    """A socket whose send buffer is full for as long as it is told so."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.full = True
        self.sent: list[bytes] = []
        self.error = 0

    def fileno(self) -> int:
        return self._real.fileno()

    def setsockopt(self, *given: int) -> None:
        self._real.setsockopt(*given)

    def sendmsg(self, buffers: list[bytes], *_: object) -> int:
        if self.error:
            raise OSError(self.error, "refused")
        return self.sendto(buffers[0], None)

    def sendto(self, data: bytes, _remote: object) -> int:
        if self.full:
            raise BlockingIOError
        self.sent.append(bytes(data))
        return len(data)

    def close(self) -> None:
        self._real.close()


def test_a_full_send_buffer_queues_in_order_and_the_queue_is_bounded() -> None:
    async def story(ground: Ground) -> None:
        port = ground.plane.ports[2]
        full = FullSocket(port.socket)
        port.socket = full  # type: ignore[assignment]
        sent = 0
        while port.drops["queue_full"] == 0:
            assert ground.plane.send(struct.pack(">I", sent) * 250, 2, Endpoint("::1", 9)) == 0
            sent += 1
        assert sent * 1000 <= QUEUE_BYTES + 1000
        full.full = False
        await asyncio.sleep(0.02)
        assert [struct.unpack_from(">I", data)[0] for data in full.sent] == list(range(sent - 1))

    on_ground(story)


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL])
def test_a_link_that_refuses_segmentation_gets_them_one_by_one(code: int) -> None:
    async def story(ground: Ground) -> None:
        port = ground.plane.ports[2]
        refusing = FullSocket(port.socket)
        refusing.full, refusing.error = False, code
        port.socket = refusing  # type: ignore[assignment]
        ground.from_a(b"".join(datagram(LEG_A, 500, fill) for fill in range(8)), 500)
        await asyncio.sleep(0.05)
        assert len(refusing.sent) == 8
        assert port.gso is (code == errno.EINVAL)

    on_ground(story)


def test_an_unreachable_peer_is_counted_and_harms_nobody() -> None:
    async def story(ground: Ground) -> None:
        assert ground.plane.send(b"x" * 100, 1, Endpoint("255.255.255.255", 9)) != 0
        assert ground.plane.send(b"x" * 100, 9, Endpoint("127.0.0.1", 9)) == errno.ENODEV
        assert ground.plane.stats()["send_error"] == 1
        ground.from_a(datagram(LEG_A))
        assert len(await heard(ground.b, 1)) == 1

    on_ground(story)
