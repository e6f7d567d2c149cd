"""The relay's fast road: whole batches from one socket to another, in place.

``UDP_GRO`` hands over up to 64 datagrams of one flow in one read. If they carry one leg id (four
strided comparisons), the table is asked once, the four index bytes of every segment are overwritten
by strided assignment, and the receive buffer leaves with ``UDP_SEGMENT`` as it stands. Everything
else, and kernels or links without these offloads, goes one datagram at a time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Protocol

from ntm_rs.legs import LegTable, Way
from ntmd.proto.types import Endpoint

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
BUFFER = 65_536
READS = 64  # batches taken per wake-up, so that timers and other sockets get their turn
QUEUE_BYTES = 1 << 20  # waiting for a full send buffer, per socket
KNOWN_SOURCES = 4096  # endpoints remembered by address, so that none is built per batch
NO_OFFLOAD = (errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ENOPROTOOPT)

_SEGMENT = struct.Struct("H")
_BYTE = [bytes((value,)) for value in range(256)]

OnOther = Callable[[bytes, int, Endpoint], None]


class Out(Protocol):
    """A way out: a UDP socket, or all TLS connections."""

    def send(self, run: bytes | memoryview, segment: int, remote: Endpoint) -> int:
        """Send a run of ``segment``-byte datagrams; returns 0 or an errno."""


class RelayPort:
    """One socket: reads batches, sends them, keeps a bounded queue while the kernel's is full."""

    def __init__(self, number: int, udp: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.socket = udp
        self.drops: Counter[str] = Counter()
        self.batches = 0
        self.segmented = 0
        self.gso = True
        self._loop = loop
        self._queue: deque[tuple[bytes, int, Endpoint]] = deque()
        self._queued = 0
        try:
            udp.setsockopt(SOL_UDP, UDP_GRO, 1)
        except OSError:
            self.drops["no_gro"] = 0  # an older kernel: each read is one datagram

    def send(self, run: bytes | memoryview, segment: int, remote: Endpoint) -> int:
        """Send a run of ``segment``-byte datagrams; returns 0 or the kernel's errno.

        A full send buffer is no error: the rest waits in the queue, or is dropped and counted.
        """
        if self._queue:
            self._keep(run, segment, remote)
            return 0
        left, code = self._push(run, segment, remote)
        if left:
            self._keep(run[len(run) - left :], segment, remote)
            self._loop.add_writer(self.socket.fileno(), self._flush)
        return code

    def _push(self, data: bytes | memoryview, segment: int, remote: Endpoint) -> tuple[int, int]:
        """Hand a run to the kernel; returns the bytes it would not take now, and an errno."""
        if self.gso and len(data) > segment:
            ancillary = [(SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(segment))]
            try:
                self.socket.sendmsg([data], ancillary, 0, remote)
            except BlockingIOError:
                return len(data), 0
            except OSError as error:
                if error.errno not in NO_OFFLOAD:
                    self.drops["send_error"] += 1
                    return 0, error.errno or errno.EIO
                self.gso = error.errno not in (errno.EIO, errno.ENOPROTOOPT)
            else:
                self.segmented += 1
                return 0, 0
        code = 0
        for start in range(0, len(data), segment):
            try:
                self.socket.sendto(data[start : start + segment], remote)
            except BlockingIOError:
                return len(data) - start, 0
            except OSError as error:
                self.drops["send_error"] += 1
                code = error.errno or errno.EIO
        return 0, code

    def _keep(self, data: bytes | memoryview, segment: int, remote: Endpoint) -> None:
        if self._queued + len(data) > QUEUE_BYTES:
            self.drops["queue_full"] += -(-len(data) // segment)
            return
        self._queue.append((bytes(data), segment, remote))
        self._queued += len(data)

    def _flush(self) -> None:
        while self._queue:
            data, segment, remote = self._queue.popleft()
            self._queued -= len(data)
            left, _ = self._push(data, segment, remote)
            if left:
                self._queue.appendleft((data[len(data) - left :], segment, remote))
                self._queued += left
                return
        self._loop.remove_writer(self.socket.fileno())

    def close(self) -> None:
        """Stop and close; what is queued is lost."""
        if self.socket.fileno() >= 0:
            self._loop.remove_reader(self.socket.fileno())
            self._loop.remove_writer(self.socket.fileno())
            self.socket.close()


class RelayPlane:
    """All ports of a relay around one leg table. ``other`` takes what is no leg's datagram."""

    def __init__(
        self,
        sockets: Mapping[int, socket.socket],
        table: LegTable,
        other: OnOther,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.ports = {number: RelayPort(number, udp, loop) for number, udp in sockets.items()}
        self._outs: dict[int, Out] = dict(self.ports)
        self._table = table
        self._other = other
        self._clock = clock
        self._view = memoryview(bytearray(BUFFER))
        self._space = socket.CMSG_SPACE(4)
        self._sources: dict[tuple[object, ...], Endpoint] = {}
        for port in self.ports.values():
            loop.add_reader(port.socket.fileno(), self._drain, port)

    def send(self, data: bytes, number: int, remote: Endpoint) -> int:
        """Send one datagram of the core's; returns 0 or an errno."""
        out = self._outs.get(number)
        return errno.ENODEV if out is None else out.send(data, len(data), remote)

    def attach(self, number: int, out: Out) -> None:
        """Another way out, under its own number; what comes in there is handed to :meth:`run`."""
        self._outs[number] = out

    def run(self, number: int, run: bytearray, segment: int, source: Endpoint) -> None:
        """Take a run of datagrams that came in another way; ``run`` is written into."""
        self._batch(number, memoryview(run), segment, source)

    def stats(self) -> dict[str, int]:
        """Counters of the ports, summed."""
        total: Counter[str] = Counter()
        for port in self.ports.values():
            total.update(port.drops)
            total["batches"] += port.batches
            total["segmented"] += port.segmented
        return dict(sorted(total.items()))

    def close(self) -> None:
        """Close every port."""
        for port in self.ports.values():
            port.close()

    def _drain(self, port: RelayPort) -> None:
        view, receive = self._view, port.socket.recvmsg_into
        for _ in range(READS):
            try:
                size, ancillary, _, address = receive([view], self._space)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error of an earlier send; says nothing of this socket
            port.batches += 1
            segment = _segment(ancillary, size)
            self._batch(port.number, view[:size], segment, self._source(address))
            if port.socket.fileno() < 0:
                return

    def _batch(self, number: int, run: memoryview, segment: int, source: Endpoint) -> None:
        if len(run) > segment and not _one_leg(run, segment):
            for start in range(0, len(run), segment):
                self._run(number, run[start : start + segment], segment, source)
        else:
            self._run(number, run, segment, source)

    def _run(self, number: int, run: memoryview, segment: int, source: Endpoint) -> None:
        if len(run) < 16 or not self._table.knows(int.from_bytes(run[4:8], "big")):
            for start in range(0, len(run), max(segment, 1)):
                self._other(bytes(run[start : start + segment]), number, source)
            return
        for way in self._table.forward(run, segment, number, source, self._clock()):
            self._leave(run, segment, way)

    def _leave(self, run: memoryview, segment: int, way: Way) -> None:
        out = self._outs.get(way.socket)
        if out is None:
            return
        count = (len(run) + segment - 1) // segment
        for at, value in enumerate(way.delivery.to_bytes(4, "big"), 4):
            run[at::segment] = _BYTE[value] * count
        out.send(run, segment, way.remote)

    def _source(self, address: tuple[object, ...]) -> Endpoint:
        known = self._sources.get(address)
        if known is None:
            if len(self._sources) >= KNOWN_SOURCES:
                self._sources.clear()
            known = Endpoint(str(address[0]).partition("%")[0], int(str(address[1])))
            self._sources[address] = known
        return known


def _segment(ancillary: list[tuple[int, int, bytes]], size: int) -> int:
    """Segment size of a read: from UDP_GRO, or the whole of it."""
    for level, kind, data in ancillary:
        if level == SOL_UDP and kind == UDP_GRO:
            return int.from_bytes(data[:4], "little") or size
    return size


def _one_leg(run: memoryview, segment: int) -> bool:
    """Whether all segments carry the same index (a short last one must reach so far)."""
    count = (len(run) + segment - 1) // segment
    if len(run) - (count - 1) * segment < 8:
        return False
    return all(run[at::segment] == _BYTE[run[at]] * count for at in range(4, 8))
