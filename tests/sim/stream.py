"""Datagrams in byte streams, framed by the production code; TLS itself is not played.

A greeting of one round trip stands in for the TLS handshake: the client names the service (as ALPN
does), the server agrees or closes.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.stream import Deframer, SendQueue
from ntmd.proto.types import Endpoint
from tests.sim.clock import Timer
from tests.sim.tcp import Connection, Tcp

AGREED = b"agreed\n"
ROOM = 16_384

OnDatagram = Callable[[bytes, Endpoint], None]


class Framed:
    """A connection that carries datagrams once both ends have greeted."""

    def __init__(self, connection: Connection, datagram: OnDatagram) -> None:
        self.connection = connection
        self.queue = SendQueue()
        self._datagram = datagram
        self._deframer = Deframer()
        self._left = b""
        connection.room = self.flush

    def send(self, data: bytes) -> None:
        """Queue one datagram."""
        self.queue.put(data, len(data))
        self.flush()

    def flush(self) -> None:
        """Give the connection what it takes."""
        while self._left or len(self.queue):
            self._left = self._left or self.queue.take(ROOM)
            taken = self.connection.write(self._left)
            self._left = self._left[taken:]
            if not taken:
                return

    def feed(self, data: bytes) -> None:
        """Bytes came in; a broken frame ends the connection."""
        try:
            for datagram in self._deframer.feed(data):
                self._datagram(datagram, self.connection.remote)
        except ProtocolError as error:
            self.connection.close()
            self.connection.closed(error.kind)


class StreamClient:
    """What the plane's connection is to a node of the world."""

    def __init__(
        self,
        connection: Connection,
        service: str,
        opened: Callable[[], None],
        datagram: OnDatagram,
        failed: Callable[[str], None],
    ) -> None:
        self.framed = Framed(connection, datagram)
        self.connection = connection
        connection.opened = lambda: self._greet(service)
        connection.received = self._agreed
        connection.closed = failed
        self._opened = opened

    def _greet(self, service: str) -> None:
        self.connection.write(service.encode() + b"\n")

    def _agreed(self, data: bytes) -> None:
        self.connection.received = self.framed.feed
        self._opened()
        self.framed.feed(data[len(AGREED) :])


class StreamServer:
    """A server's listener on some endpoints, for one service."""

    def __init__(
        self,
        tcp: Tcp,
        at: tuple[Endpoint, ...],
        service: str,
        datagram: OnDatagram,
        heard: Callable[[], frozenset[Endpoint]],
    ) -> None:
        self.by_remote: dict[Endpoint, Framed] = {}
        self._tcp, self._at, self._service = tcp, at, service
        self._datagram, self._heard = datagram, heard
        self._timer: Timer | None = None
        for each in at:
            tcp.listen(each, self._accept)

    def send(self, data: bytes, remote: Endpoint) -> int:
        """One datagram to whoever is connected from there; returns 0 or ENOTCONN."""
        framed = self.by_remote.get(remote)
        if framed is None:
            return 107
        framed.send(data)
        return 0

    def close(self) -> None:
        """The process is gone."""
        for each in self._at:
            self._tcp.silence(each)
        self.by_remote.clear()

    def _accept(self, connection: Connection) -> None:
        framed = Framed(connection, self._datagram)

        def greeted(data: bytes) -> None:
            service, _, rest = data.partition(b"\n")
            if service.decode() != self._service:
                connection.close()
                return
            self.by_remote[connection.remote] = framed
            connection.received = framed.feed
            connection.write(AGREED)
            framed.feed(rest)

        connection.received = greeted
        connection.closed = lambda why: self._forget(connection)
        clock = self._tcp.host.world.clock
        clock.after(timing.STREAM_UNPROVEN, lambda: self._still(connection))

    def _forget(self, connection: Connection) -> None:
        self.by_remote.pop(connection.remote, None)

    def _still(self, connection: Connection) -> None:
        """As in production: what is no source of a session is closed."""
        if connection.is_over:
            return
        if connection.remote not in self._heard():
            self._forget(connection)
            connection.close()
            return
        clock = self._tcp.host.world.clock
        clock.after(timing.STREAM_UNPROVEN, lambda: self._still(connection))
