"""The plane's UDP sockets: one per underlay interface and family, bound to it.

Sources: Linux ``udp(7)`` (``UDP_SEGMENT``, ``UDP_GRO``), ``socket(7)`` (``SO_BINDTODEVICE``),
``ip(7)`` and ``ipv6(7)`` (``IP_RECVERR``, ``IPV6_RECVERR``).
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from collections.abc import Callable

from ntmd.proto.plane import OpenSocket
from ntmd.proto.types import Endpoint

UDP_SEGMENT, UDP_GRO = 103, 104
SOL_UDP = 17
SO_MARK, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 36, 32, 33
IPV6_FREEBIND = 78
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IPV6_DONTFRAG = 10, 23, 62
IP_RECVERR, IPV6_RECVERR = 11, 25
MSG_ERRQUEUE = 0x2000
READ_ERROR = struct.Struct("=IBBBxII")  # struct sock_extended_err: errno, origin, ...
FROM_ICMP = (2, 3)  # origins: ICMP, ICMPv6; the others are our own kernel's, and known
ERROR_ROOM = 512  # bytes: the error, and who sent it
RECEIVED_ERRORS = ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR))
ERRORS_AT_ONCE = 64
PROBE = 3  # never fragment, and do not believe what ICMP says of the path's size: it is measured
BUFFER = 4 << 20  # bytes in the kernel, each way
ANCILLARY = 64  # bytes: one integer
WAIT_FOR_ROOM = 5  # ms; a full send buffer holds the TUN back for this long before we drop
FIT_LATER = (errno.EINVAL, errno.EMSGSIZE)  # this batch cannot be cut by the kernel
NO_SEGMENTATION = (errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT)  # this device cannot at all

Refused = Callable[[int, Endpoint, int], None]  # own socket, where to, errno


class Underlay:
    """One own socket."""

    def __init__(self, wish: OpenSocket, mark: int, refused: Refused) -> None:
        """Open it; raises OSError. ``refused`` hears what ICMP says of datagrams sent before."""
        self.number = wish.socket
        self.family = wish.family
        self.interface = wish.interface
        self.blocked = False
        self.segments = True
        self._refused = refused
        family = socket.AF_INET6 if wish.family == 6 else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._set_options(wish, mark)
            self.socket.bind((wish.address, wish.port))
        except OSError:
            self.socket.close()
            raise
        self._sizes: dict[int, list[tuple[int, int, bytes]]] = {}

    def _set_options(self, wish: OpenSocket, mark: int) -> None:
        own = self.socket
        if wish.interface:
            name = wish.interface.encode()
            own.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
        if wish.family == 6:
            own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            own.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)  # still tentative addresses
            own.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PROBE)
            own.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
            own.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            own.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PROBE)
            own.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        for forced, plain in (
            (SO_SNDBUFFORCE, socket.SO_SNDBUF),
            (SO_RCVBUFFORCE, socket.SO_RCVBUF),
        ):
            try:
                own.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
            except OSError:
                own.setsockopt(socket.SOL_SOCKET, plain, BUFFER)
        for level, option, value in (
            (SOL_UDP, UDP_GRO, 1),
            (socket.SOL_SOCKET, SO_MARK, mark),
        ):
            try:
                own.setsockopt(level, option, value)
            except OSError:
                continue  # slower, or unmarked, but it works

    @property
    def local(self) -> Endpoint:
        """Where it is bound."""
        name = self.socket.getsockname()
        return Endpoint(name[0], name[1])

    def hear_errors(self) -> bool:
        """Pass on what ICMP says of datagrams sent before; False if it says nothing.

        The kernel tells it twice: here, and as the failure of whatever call comes next, which has
        nothing to do with it. Of sizes we do not believe it; they are measured.
        """
        heard = False
        for _ in range(ERRORS_AT_ONCE):
            try:
                _, ancillary, _, remote = self.socket.recvmsg(0, ERROR_ROOM, MSG_ERRQUEUE)
            except OSError:
                break
            heard = True
            for level, kind, data in ancillary:
                if (level, kind) not in RECEIVED_ERRORS or len(data) < READ_ERROR.size:
                    continue
                number, origin, *_ = READ_ERROR.unpack_from(data)
                if origin in FROM_ICMP and number != errno.EMSGSIZE:
                    self._refused(self.number, Endpoint(remote[0], remote[1]), number)
        return heard

    def send(self, run: memoryview, size: int, remote: Endpoint) -> int:
        """Send datagrams of ``size`` bytes that lie side by side; returns how many were lost.

        Raises OSError if the kernel refuses them for another reason than a full buffer.
        """
        if len(run) <= size:
            return self._one(run, remote)
        if self.segments:
            ancillary = self._sizes.get(size)
            if ancillary is None:
                ancillary = self._sizes[size] = [
                    (SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))
                ]
            try:
                self.socket.sendmsg([run], ancillary, 0, remote)
                return 0
            except BlockingIOError:
                if self._room():
                    return self._again(run, ancillary, size, remote)
                return -(-len(run) // size)
            except OSError as error:
                if self.hear_errors():
                    pass  # of an earlier datagram: these go one by one
                elif error.errno in NO_SEGMENTATION:
                    self.segments = False
                elif error.errno not in FIT_LATER:
                    raise
        lost = 0
        for at in range(0, len(run), size):
            lost += self._one(run[at : at + size], remote)
        return lost

    def _again(
        self,
        run: memoryview,
        ancillary: list[tuple[int, int, bytes]],
        size: int,
        remote: Endpoint,
    ) -> int:
        try:
            self.socket.sendmsg([run], ancillary, 0, remote)
        except BlockingIOError:
            return -(-len(run) // size)
        return 0

    def _one(self, datagram: memoryview | bytes, remote: Endpoint) -> int:
        for _ in range(2):
            try:
                self.socket.sendto(datagram, remote)
                return 0
            except BlockingIOError:
                if not self._room():
                    return 1
            except OSError:
                if not self.hear_errors():
                    raise
        return 1

    def _room(self) -> bool:
        waiter = select.poll()
        waiter.register(self.socket, select.POLLOUT)
        return bool(waiter.poll(WAIT_FOR_ROOM))


def segment_size(ancillary: list[tuple[int, int, bytes]], length: int) -> int:
    """Size of each datagram in a receive buffer of ``length`` bytes."""
    for level, kind, data in ancillary:
        if level == SOL_UDP and kind == UDP_GRO and len(data) >= 4:
            return int.from_bytes(data[:4], sys.byteorder) or length
    return length


def most_segments() -> int:
    """How many datagrams the kernel cuts out of one send: 128, or 64 before Linux 6.9."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.bind(("127.0.0.1", 0))
            one = [(SOL_UDP, UDP_SEGMENT, (1).to_bytes(2, sys.byteorder))]
            probe.sendmsg([bytes(128)], one, 0, probe.getsockname())
        except OSError:
            return 64
    return 128
