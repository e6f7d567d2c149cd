"""A server's TLS listener: connections by service, bounded in number, time and memory (rule S12).

ALPN says whom a connection is for. Nothing is kept for one that does not prove itself: no TLS
handshake or no authenticated frame within 5 s, and it is closed; so is one that was a source of a
session and is none any more.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.stream import ALPN_ACCOUNT, Deframer, SendQueue
from ntmd.proto.types import Endpoint
from ntmd.runtime.journal import journal
from ntmd.runtime.tlswire import TlsWire, server_context
from ntmd.runtime.udp import bind_complaint

BACKLOG = 256
ACCEPTS = 16  # per wake-up
CHUNK = 16_384  # plaintext per write: one TLS record
UNSENT = 16_384  # bytes that the kernel may hold unsent, so that the queue's rules apply early
SILENT_MS = 20_000  # unacknowledged for this long: the other end is gone
SWEEP = 1.0
TCP_NOTSENT_LOWAT = 25
RUN = 64

OnRun = Callable[[bytearray, int, Endpoint], None]
log = journal(__name__)


class Handler(Protocol):
    """What a connection belongs to, once its service is known."""

    def data(self, chunk: bytes) -> None:
        """Plaintext came in; ProtocolError ends the connection."""

    def room(self) -> None:
        """All that was written has gone to the kernel."""

    def ended(self) -> None:
        """The connection is closed."""


class Service(Protocol):
    """What is offered under one ALPN name."""

    def adopt(self, link: Link) -> Handler:
        """A connection asks for this service."""

    def keeps(self, age: float) -> Callable[[Endpoint], bool]:
        """Which connections of at least ``age`` seconds may stay."""


class Link:
    """One connection: TLS over a non-blocking socket on the event loop."""

    def __init__(self, listener: StreamListener, own: socket.socket, source: Endpoint) -> None:
        self.source = source
        self.socket = own
        self.began = listener.loop.time()
        self.service: Service | None = None
        self.closed = False
        self._listener = listener
        assert listener.context is not None, "open() first"
        self._wire = TlsWire(listener.context)
        self._handler: Handler | None = None
        self._out = b""
        self._writing = False
        listener.loop.add_reader(own.fileno(), self._readable)

    @property
    def busy(self) -> bool:
        """Whether the kernel has not yet taken all that was written."""
        return bool(self._out)

    def write(self, data: bytes) -> None:
        """Send plaintext; the caller keeps itself to ``busy``."""
        if self.closed:
            return
        try:
            for at in range(0, len(data), CHUNK):
                self._wire.send(data[at : at + CHUNK])
        except ssl.SSLError:
            self.close("tls_broken")
            return
        self._flush()

    def pause(self, yes: bool) -> None:
        """Leave what comes to the kernel, or read again."""
        if yes and not self.closed:
            self._listener.loop.remove_reader(self.socket.fileno())
        elif not self.closed:
            self._listener.loop.add_reader(self.socket.fileno(), self._readable)

    def close(self, why: str = "") -> None:
        """End it, and count why."""
        if self.closed:
            return
        self.closed = True
        if why:
            self._listener.counters[why] += 1
        loop = self._listener.loop
        loop.remove_reader(self.socket.fileno())
        if self._writing:
            loop.remove_writer(self.socket.fileno())
        self.socket.close()
        self._listener.forget(self)
        if self._handler is not None:
            self._handler.ended()

    # -------------------------------------------------------------- the socket

    def _readable(self) -> None:
        try:
            data = self.socket.recv(65_536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            chunks = self._wire.receive(data)
            self._flush()
            if self._wire.ready and self._handler is None and not self.closed:
                self._choose()
            for chunk in chunks:
                if self._handler is not None and not self.closed:
                    self._handler.data(chunk)
        except ssl.SSLError:
            self._flush()  # the alert that says why
            self.close("tls_refused" if not self._wire.ready else "tls_broken")
        except ProtocolError as error:
            self.close(error.kind)
        if self._wire.ended:
            self.close()

    def _choose(self) -> None:
        self.service = self._listener.service(self._wire.service)
        if self.service is None:
            self.close("tls_unknown_service")
            return
        self._handler = self.service.adopt(self)

    def _flush(self) -> None:
        self._out += self._wire.outgoing()
        while self._out:
            try:
                sent = self.socket.send(self._out)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.close()
                return
            self._out = self._out[sent:]
        self._wait_for_room(bool(self._out))

    def _wait_for_room(self, wanted: bool) -> None:
        loop = self._listener.loop
        if wanted and not self._writing:
            loop.add_writer(self.socket.fileno(), self._writable)
        elif self._writing and not wanted:
            loop.remove_writer(self.socket.fileno())
        self._writing = wanted

    def _writable(self) -> None:
        self._flush()
        if not self.closed and not self._out and self._handler is not None:
            self._handler.room()


class StreamListener:
    """Listens on every address at one port (0: any free one, the same on all).

    Complaint if the port cannot be had. Nobody is served before :meth:`open`.
    """

    def __init__(
        self, addresses: Sequence[str], port: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        self.counters: Counter[str] = Counter()
        self._services: dict[str, Service] = {}
        self.context: ssl.SSLContext | None = None
        self._links: dict[Link, None] = {}
        self._sources: Counter[str] = Counter()
        self._sweeper: asyncio.TimerHandle | None = None
        self._listeners: list[socket.socket] = []
        try:
            for address in addresses:
                self._listeners.append(tcp_listener(address, port))
                port = self._listeners[-1].getsockname()[1]
        except Exception:
            self.close()
            raise
        self.endpoints = tuple(Endpoint(*each.getsockname()[:2]) for each in self._listeners)

    def open(self, certificate: Path) -> None:
        """Accept connections, showing a certificate (PEM, with its key); again: a renewed one."""
        if self.context is not None:
            self.context.load_cert_chain(certificate)
            return
        self.context = server_context(certificate)
        self._name_services()
        for each in self._listeners:
            self.loop.add_reader(each.fileno(), self._accept, each)

    def __len__(self) -> int:
        return len(self._links)

    def offer(self, name: str, service: Service) -> None:
        """Serve those who ask for this ALPN name."""
        self._services[name] = service
        self._name_services()

    def withdraw(self, name: str, port: StreamPort) -> None:
        """A service ends, and its connections with it."""
        if self._services.get(name) is port:
            del self._services[name]
            self._name_services()
        port.close()

    def _name_services(self) -> None:
        if self.context is not None and self._services:
            self.context.set_alpn_protocols(list(self._services))

    def service(self, name: str) -> Service | None:
        """Whoever is meant by an ALPN name; who names none is a browser."""
        return self._services.get(name or ALPN_ACCOUNT)

    def close(self) -> None:
        """Stop listening and end every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for each in self._listeners:
            if each.fileno() >= 0:
                self.loop.remove_reader(each.fileno())
                each.close()
        for link in list(self._links):
            link.close()

    def metrics(self) -> dict[str, object]:
        """Gauge and counters for ``/metrics``."""
        return {"connections": len(self._links), "closed": dict(sorted(self.counters.items()))}

    def forget(self, link: Link) -> None:
        """A connection is closed."""
        if self._links.pop(link, True) is None:
            prefix = _prefix(link.source.host)
            self._sources[prefix] -= 1
            if not self._sources[prefix]:
                del self._sources[prefix]

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                own, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                    self.counters["tls_no_room"] += 1
                return
            source = Endpoint(str(address[0]).partition("%")[0], int(address[1]))
            prefix = _prefix(source.host)
            full = len(self._links) >= timing.STREAM_CONNECTIONS
            if full or self._sources[prefix] >= timing.STREAM_PER_SOURCE:
                self.counters["tls_too_many"] += 1
                own.close()
                continue
            own.setblocking(False)
            _tune(own)
            self._sources[prefix] += 1
            self._links[Link(self, own, source)] = None
            if self._sweeper is None:
                self._sweeper = self.loop.call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        """Close what has not proved itself in time, or has nothing to do here any more."""
        now, limit = self.loop.time(), timing.STREAM_UNPROVEN
        may_stay = {each: each.keeps(limit) for each in self._services.values()}
        for link in list(self._links):
            if now - link.began < limit:
                continue
            keeps = may_stay.get(link.service) if link.service is not None else None
            if keeps is None or not keeps(link.source):
                link.close("tls_unproven")
        self._sweeper = self.loop.call_later(SWEEP, self._sweep) if self._links else None


class StreamPort:
    """The service of a relay or coordinator: datagrams by the far end of each connection.

    ``on_run(run, segment, source)`` takes datagrams of one size side by side, and may write into
    ``run``; ``heard`` gives the far ends from which there is a session.
    """

    def __init__(self, on_run: OnRun, heard: Callable[[], frozenset[Endpoint]]) -> None:
        self.drops: Counter[str] = Counter()
        self.on_run, self.heard = on_run, heard
        self._framed: dict[Endpoint, _Framed] = {}

    def adopt(self, link: Link) -> Handler:
        """A connection of a node."""
        framed = self._framed[link.source] = _Framed(self, link)
        return framed

    def keeps(self, age: float) -> Callable[[Endpoint], bool]:
        """Only those that carry a session."""
        return self.heard().__contains__

    def send(self, run: bytes | memoryview, segment: int, remote: Endpoint) -> int:
        """Queue a run of datagrams; returns 0, or ENOTCONN if nobody is connected from there."""
        framed = self._framed.get(remote)
        if framed is None:
            self.drops["stream_gone"] += 1
            return errno.ENOTCONN
        framed.queue.put(run, segment)
        framed.room()
        return 0

    def forget(self, framed: _Framed) -> None:
        """A connection is closed."""
        self.drops.update(framed.queue.drops)
        if self._framed.get(framed.link.source) is framed:
            del self._framed[framed.link.source]

    def stats(self) -> dict[str, int]:
        """What was dropped, over all connections."""
        total = Counter(self.drops)
        for framed in self._framed.values():
            total.update(framed.queue.drops)
        return dict(sorted(total.items()))

    def close(self) -> None:
        """End every connection of this service."""
        for framed in list(self._framed.values()):
            framed.link.close()


class _Framed:
    def __init__(self, port: StreamPort, link: Link) -> None:
        self.link = link
        self.queue = SendQueue()
        self._port = port
        self._deframer = Deframer()

    def data(self, chunk: bytes) -> None:
        run, size, count = bytearray(), 0, 0
        for datagram in self._deframer.feed(chunk):
            if run and (len(datagram) != size or count == RUN):
                self._port.on_run(run, size, self.link.source)
                run, count = bytearray(), 0
            size = len(datagram)
            run += datagram
            count += 1
        if run:
            self._port.on_run(run, size, self.link.source)

    def room(self) -> None:
        while not self.link.busy and not self.link.closed and len(self.queue):
            self.link.write(self.queue.take(CHUNK))

    def ended(self) -> None:
        self._port.forget(self)


def tcp_listener(address: str, port: int) -> socket.socket:
    """A listening, non-blocking TCP socket; Complaint if it cannot be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise bind_complaint("TCP", address, port, error) from error
    return listener


def _tune(own: socket.socket) -> None:
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_MS),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ):
        own.setsockopt(level, option, value)


def _prefix(host: str) -> str:
    """The address (IPv4) or its /64: whom the limit of connections is counted for."""
    if ":" not in host:
        return host
    return str(ipaddress.IPv6Network((host, 64), strict=False))
