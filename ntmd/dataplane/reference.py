"""The reference plane: the switchboard around a TUN and UDP sockets, in one thread.

One turn waits in ``epoll`` and then works in batches: a socket is drained before the runs it fed
are closed, the TUN before the last send. Idle it sleeps until a packet, a command or the next
report; nothing is periodic.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import time
from collections import Counter
from typing import Any

from ntmd.dataplane.blocking import Blocks
from ntmd.dataplane.packets import TCP, UDP, VNET_SIZE
from ntmd.dataplane.stream import StreamEnded, StreamUnderlay
from ntmd.dataplane.switchboard import Switchboard
from ntmd.dataplane.underlay import ANCILLARY, Underlay, most_segments, segment_size
from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed
from ntmd.proto.plane import (
    BlockInterface,
    CloseSocket,
    DeviceFailed,
    OpenSocket,
    OpenStream,
    PlanePath,
    SocketFailed,
    SocketOpened,
    StreamSettings,
)
from ntmd.proto.types import Endpoint, Path

TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454D0, 0x400454D8
CSUM, TSO4, TSO6, USO4, USO6 = 0x01, 0x02, 0x04, 0x20, 0x40
READS = 32  # from one descriptor before the others have their turn
RECEIVE_SIZE = 65_536 + 2_112  # not a multiple of a page, so that buffers spread over the cache
FAILED_INTERVAL = 0.25  # seconds between two SendFailed of one path
SOCKET_ERRORS = 50  # in a row, then the socket counts as dead
BUSY_LOOK = 0.02  # seconds: without a pause in the traffic we look this often at what is due
LONGEST_SLEEP = 3600.0


def boot_clock() -> float:
    """Seconds since boot, time asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def offload(tun: int) -> tuple[int, ...]:
    """Let the TUN give and take super-packets; returns the protocols it takes them of."""
    fcntl.ioctl(tun, TUNSETVNETHDRSZ, struct.pack("i", VNET_SIZE))
    for flags, protocols in (
        (CSUM | TSO4 | TSO6 | USO4 | USO6, (TCP, UDP)),  # Linux 6.2 and later
        (CSUM | TSO4 | TSO6, (TCP,)),
    ):
        try:
            fcntl.ioctl(tun, TUNSETOFFLOAD, flags)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return protocols
    return ()


class ReferencePlane:
    """Owns the TUN's descriptor and the sockets; driven by :meth:`turn`."""

    def __init__(self, tun: int, vnet_header: int, own_address: bytes, mark: int) -> None:
        self.drops: Counter[str] = Counter()
        self.work: Counter[str] = Counter()
        self._tun, self._mark = tun, mark
        self._vnet = vnet_header == VNET_SIZE
        self._board = Switchboard(
            self.drops,
            send=self._send,
            write=self._write,
            reply=self._reply,
            up=self._up,
            vnet=self._vnet,
            join=offload(tun) if self._vnet else (),
        )
        if own_address:
            self._board.set_own_address(own_address)
        self._board.outbound.segments = most_segments()
        self._before = 0 if self._vnet else VNET_SIZE  # a packet read without virtio header
        self._buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._receive_into = [self._buffer]
        self._sockets: dict[int, Underlay | StreamUnderlay] = {}
        self._by_descriptor: dict[int, Underlay | StreamUnderlay] = {}
        self._streams = StreamSettings(b"")
        self._blocks = Blocks()
        self._errors: Counter[int] = Counter()
        self._failed: dict[Path, float] = {}
        self._events: list[Any] = []
        self._deadline = self._look_at = 0.0
        os.set_blocking(tun, False)
        self.epoll = select.epoll()
        self.epoll.register(tun, select.EPOLLIN)

    # ------------------------------------------------------------------ the loop

    def turn(self) -> list[int]:
        """Wait for work, do it, and return the descriptors of others that are ready."""
        ready = self.epoll.poll(0)
        if not ready:
            self._look_around(boot_clock())
            ready = self.epoll.poll(self._sleep())
        now = boot_clock()
        self.work["turns"] += 1
        others = []
        for descriptor, mask in ready:
            if descriptor == self._tun:
                self._drain_tun(now, mask)
            elif descriptor in self._by_descriptor:
                own = self._by_descriptor[descriptor]
                if isinstance(own, StreamUnderlay):
                    self._drain_stream(own, now)
                    continue
                if mask & select.EPOLLERR:
                    own.hear_errors()
                self._drain_socket(own, now)
            else:
                others.append(descriptor)
        if now >= self._look_at:
            self._look_around(now)
        return others

    def _look_around(self, now: float) -> None:
        """What is due: reports, old keys, packets that waited too long."""
        self._board.expire(now)
        self._blocks.expire(self._sockets.values(), now)
        self._events.extend(self._board.reports.take(now))
        deadlines = (self._board.deadline(), self._blocks.deadline(), LONGEST_SLEEP + now)
        self._deadline = min(each for each in deadlines if each is not None)
        self._look_at = now + BUSY_LOOK

    def _sleep(self) -> float:
        """Seconds until something is due; 0 while events wait to be taken."""
        return 0.0 if self._events else max(0.0, self._deadline - boot_clock()) + 0.001

    def take_events(self) -> list[Any]:
        """Events since the last call, in order."""
        if self._board.reports.waiting():
            self._look_around(boot_clock())
        events, self._events = self._events, []
        return events

    # ------------------------------------------------------------------ commands

    def apply(self, command: Any) -> None:
        """Carry out a command of the core."""
        match command:
            case SendDatagram(data=data, path=path):
                self._transmit(memoryview(data), len(data), path)
            case OpenSocket() | OpenStream():
                self._open(command)
            case StreamSettings():
                self._streams = command
            case CloseSocket(socket=number):
                self._close(number)
            case BlockInterface(interface=name, seconds=seconds):
                self._blocks.block(name, seconds, self._sockets.values(), boot_clock())
                self._cut_streams()
            case _:
                self._board.apply(command, boot_clock())

    def set_own_address(self, address: bytes) -> None:
        """The own virtual address (16 bytes)."""
        self._board.set_own_address(address)

    def gauges(self) -> dict[str, int]:
        """What is held, and how much work was done in how many calls."""
        return {**self._board.gauges(), "sockets": len(self._sockets), **self.work}

    def close(self) -> None:
        """Erase the keys, close the sockets and the TUN's descriptor."""
        for number in list(self._board.table.by_number):
            self._board.table.remove(number)
        for number in list(self._sockets):
            self._close(number)
        self.epoll.close()
        os.close(self._tun)

    def _open(self, wish: OpenSocket | OpenStream) -> None:
        self._close(wish.socket)
        underlay: Underlay | StreamUnderlay
        try:
            if isinstance(wish, OpenStream):
                underlay = StreamUnderlay(wish, self._streams, self._mark)
            else:
                underlay = Underlay(wish, self._mark, self._refused)
        except OSError as error:
            text = error.strerror or str(error)
            self._events.append(SocketFailed(wish.socket, error.errno or 0, text))
            return
        self._blocks.settle(underlay)
        self._sockets[wish.socket] = underlay
        self._by_descriptor[underlay.socket.fileno()] = underlay
        self.epoll.register(underlay.socket, select.EPOLLIN)
        if underlay.local is not None:
            self._events.append(SocketOpened(wish.socket, underlay.local))
        self._cut_streams()

    def _cut_streams(self) -> None:
        """End the TLS connections of a blocked interface: their kernel end would go on speaking."""
        for own in list(self._sockets.values()):
            if own.blocked and isinstance(own, StreamUnderlay):
                self._close(own.number)
                failed = SocketFailed(own.number, errno.ENETDOWN, "the interface is blocked")
                self._events.append(failed)

    def _close(self, number: int) -> None:
        underlay = self._sockets.pop(number, None)
        if underlay is not None:
            self._board.apply(CloseSocket(number), boot_clock())
            self._errors.pop(number, None)
            self.epoll.unregister(underlay.socket)
            del self._by_descriptor[underlay.socket.fileno()]
            underlay.socket.close()

    # ------------------------------------------------------------------ out

    def _drain_tun(self, now: float, mask: int) -> None:
        outbound, slots, tun = self._board.outbound, self._board.outbound.slots, self._tun
        reads = 0
        try:
            for _ in range(READS):
                outbound.packet(os.readv(tun, slots.into) + self._before, now)
                reads += 1
        except BlockingIOError:
            pass
        except OSError as error:
            # EIO: the interface is down; with EPOLLERR it is gone
            self.drops["tun_read_failed"] += 1
            if mask & (select.EPOLLERR | select.EPOLLHUP):
                self.epoll.unregister(tun)
                self._events.append(DeviceFailed(error.errno or 0, error.strerror or ""))
        outbound.flush(now)
        self.work["tun_reads"] += reads

    def _send(self, run: memoryview, size: int, path: PlanePath) -> None:
        self.work["sends"] += 1
        self._transmit(run, size, path.path)

    def _transmit(self, run: memoryview, size: int, path: Path) -> None:
        underlay = self._sockets.get(path.socket)
        if underlay is None or underlay.family != path.remote.family:
            self.drops["out_no_socket"] += 1
            return
        if underlay.blocked:
            self.drops["out_blocked"] += -(-len(run) // size)
            return
        try:
            lost = underlay.send(run, size, path.remote)
        except OSError as error:
            self.drops["out_send_failed"] += 1
            if error.errno == errno.ENOBUFS:
                self._board.egress.copies.stop()
            self._send_failed(path, error.errno or 0, boot_clock())
        else:
            if lost:
                self.drops["out_socket_full"] += lost
                self._board.egress.copies.stop()

    def _send_failed(self, path: Path, number: int, now: float) -> None:
        if now - self._failed.get(path, -1e9) >= FAILED_INTERVAL:
            if len(self._failed) > 256:
                self._failed.clear()
            self._failed[path] = now
            self._events.append(SendFailed(path, number, os.strerror(number)))

    def _refused(self, socket: int, remote: Endpoint, number: int) -> None:
        """Somebody on the way, or the far end, refuses what was sent there; so he says."""
        self.drops["out_refused"] += 1
        self._send_failed(Path(socket, remote), number, boot_clock())

    # ------------------------------------------------------------------ in

    def _drain_socket(self, underlay: Underlay, now: float) -> None:
        """Take all that has arrived; only then the runs are closed."""
        receive, into, inbound = (
            underlay.socket.recvmsg_into,
            self._receive_into,
            self._board.inbound,
        )
        buffer, number, count = self._buffer, underlay.number, 0
        try:
            for _ in range(READS):
                length, ancillary, _, source = receive(into, ANCILLARY)
                count += 1
                if length:
                    size = segment_size(ancillary, length) if ancillary else length
                    inbound.datagrams(buffer, length, size, (number, source[0], source[1]), now)
        except BlockingIOError:
            self._errors.pop(number, None)
            self._board.runs.close()
        except OSError as error:
            self._board.runs.close()
            if not underlay.hear_errors():
                self._socket_error(underlay, error)
        self.work["receives"] += count

    def _drain_stream(self, stream: StreamUnderlay, now: float) -> None:
        """Take all that has arrived over a TLS connection."""
        buffer, remote, count = self._buffer, stream.remote, 0
        try:
            for _ in range(READS):
                length, size = stream.receive(buffer)
                count += 1
                if size:
                    source = (stream.number, remote.host, remote.port)
                    self._board.inbound.datagrams(buffer, length, size, source, now)
                elif stream.local is not None:
                    self._events.append(SocketOpened(stream.number, stream.local))
        except BlockingIOError:
            pass
        except StreamEnded as ended:
            self._close(stream.number)
            self._events.append(SocketFailed(stream.number, errno.ECONNABORTED, str(ended)))
        self._board.runs.close()
        self.work["receives"] += count

    def _socket_error(self, underlay: Underlay, error: OSError) -> None:
        self.drops["in_socket_error"] += 1
        self._errors[underlay.number] += 1
        if self._errors[underlay.number] >= SOCKET_ERRORS:
            self._close(underlay.number)
            text = error.strerror or str(error)
            self._events.append(SocketFailed(underlay.number, error.errno or 0, text))

    def _write(self, packet: list[memoryview]) -> None:
        self.work["tun_writes"] += 1
        try:
            os.writev(self._tun, packet)
        except OSError:
            self.drops["in_tun_refused"] += 1  # the interface is down, or its queue is full

    def _reply(self, packet: bytes) -> None:
        head = bytes(VNET_SIZE) if self._vnet else b""
        try:
            os.write(self._tun, head + packet)
        except OSError:
            self.drops["in_tun_refused"] += 1

    def _up(self, data: bytes, socket: int, source: Endpoint) -> None:
        self._events.append(DatagramReceived(data, socket, source))
