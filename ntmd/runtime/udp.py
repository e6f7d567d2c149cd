"""A UDP socket on the event loop: non-blocking, bound, drained in batches.

Used by the servers and the simulator's real twin; the node's tunnel sockets belong to the data
plane. The loop is asyncio's, so the reader is called only when something is there.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from ntmd.proto.types import Endpoint
from ntmd.runtime.complaints import Complaint, Exit

DATAGRAM_SPACE = 65_535
BATCH = 64  # datagrams taken per wake-up, so that timers and others get their turn
RECEIVE_BUFFER = 4 << 20
SO_RCVBUFFORCE = 33
SO_MARK = 36

OnDatagram = Callable[[bytes, int, Endpoint], None]


class UdpPort:
    """One bound UDP socket. ``number`` is handed to ``on_datagram`` with each datagram.

    ``local`` is the bound address. Raises Complaint if the address cannot be bound.
    """

    def __init__(
        self,
        number: int,
        address: str,
        port: int,
        on_datagram: OnDatagram,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        mark: int = 0,
    ) -> None:
        self.number = number
        self.received = 0
        self.send_errors = 0
        self._on_datagram = on_datagram
        self._loop = loop or asyncio.get_running_loop()
        self._socket = open_udp(address, port, mark)
        name = self._socket.getsockname()
        self.local = Endpoint(_plain(name[0]), name[1])
        self._loop.add_reader(self._socket.fileno(), self._drain)

    def send(self, data: bytes, remote: Endpoint) -> int:
        """Send one datagram; returns 0, or the errno with which the kernel refused it.

        EAGAIN means that the send buffer is full: the datagram is gone, as on a busy link.
        """
        try:
            self._socket.sendto(data, (remote.host, remote.port))
        except OSError as error:
            self.send_errors += 1
            return error.errno or errno.EINVAL
        return 0

    def fileno(self) -> int:
        """The descriptor, for socket options; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop reading and close; may be called twice."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _drain(self) -> None:
        for _ in range(BATCH):
            try:
                data, source = self._socket.recvfrom(DATAGRAM_SPACE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error of an earlier send; says nothing of this socket
            self.received += 1
            self._on_datagram(data, self.number, Endpoint(_plain(source[0]), source[1]))
            if self._socket.fileno() < 0:
                return


def open_udp(address: str, port: int, mark: int = 0) -> socket.socket:
    """A bound, non-blocking UDP socket; IPv6 sockets take IPv6 only."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if mark:
            udp.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        grow_buffer(udp)
        udp.bind((address, port))
    except OSError as error:
        udp.close()
        raise bind_complaint("UDP", address, port, error) from error
    return udp


def grow_buffer(udp: socket.socket, size: int = RECEIVE_BUFFER) -> None:
    """Ask for a large receive buffer, beyond the system's limit where we may."""
    try:
        udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except OSError:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def bind_complaint(kind: str, address: str, port: int, error: OSError) -> Complaint:
    """Why ``address`` and ``port`` cannot be had, and what to do."""
    where = str(Endpoint(address, port))
    if error.errno == errno.EADDRINUSE:
        return Complaint(
            f"{kind} {where} is taken by another program.",
            "Nobody could be served there.",
            f"Stop that program (ss -lnp shows it) or choose another port than {port}.",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return Complaint(
            f"{address} is not an address of this machine.",
            f"{kind} {where} cannot be opened.",
            "Give an address that `ip address` lists.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Complaint(
            f"no permission to open {kind} {where}.",
            "Ports below 1024 and socket marks need privileges.",
            "Run as root, grant CAP_NET_BIND_SERVICE and CAP_NET_ADMIN, or choose another port.",
            Exit.NO_PERMISSION,
        )
    return Complaint(
        f"{kind} {where} cannot be opened: {error.strerror or error}.",
        "Nobody could be served there.",
        "Check the address and the port.",
    )


def _plain(host: str) -> str:
    return host.partition("%")[0]
