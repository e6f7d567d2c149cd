"""A process that carries one TLS connection for the data plane: ``python -m ntmd.carrier FD``.

The plane's end is one ``SOCK_SEQPACKET`` socket. A message is a u16 size and datagrams of that size
side by side (the last may be shorter), in both directions; size 0 begins a word about the
connection: the first one down is an :class:`Errand`, the ones up are ``opened`` and ``failed``.
So TLS, which needs 10 MiB and its own turn of the processor, stays out of daemon and plane, and
the plane sees one more socket. When either end is gone this process ends.

Sources: RFC 9110 section 9.3.6 (CONNECT), ``tcp(7)``, ``socket(7)``.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import select
import signal
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass

from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.stream import Deframer, SendQueue
from ntmd.runtime.proxy import Proxy, parse_proxy
from ntmd.runtime.tlswire import TlsWire, check_time, client_context

SO_MARK = 36
TCP_NOTSENT_LOWAT = 25
UNSENT = 16_384
SILENT_MS = 10_000  # unacknowledged for this long: the connection is dead
CHUNK = 16_384
MESSAGE_MAX = 131_072
READS = 32
RUN_BYTES = 65_000
PROXY_ANSWER = 8_192
FAREWELL = 0.2


@dataclass(frozen=True, slots=True)
class Errand:
    """What to connect to and from where. Times in ms; ``proxy`` is a URL or empty."""

    interface: str
    address: str
    host: str
    port: int
    service: str
    mark: int
    ca: str  # base64 of the DER
    proxy: str
    no_proxy: str
    platform_ms: int
    slack_ms: int

    def pack(self) -> bytes:
        """As a message."""
        return b"\0\0" + json.dumps(asdict(self)).encode()


class Failed(Exception):
    """The connection cannot be had, or has ended; says why."""


def word(what: str, **fields: object) -> bytes:
    """A message to the plane that is no datagram."""
    return b"\0\0" + json.dumps({"what": what, **fields}).encode()


class Carrier:
    """The connection, and the socket to the plane."""

    def __init__(self, plane: socket.socket, errand: Errand) -> None:
        self._plane, self._errand = plane, errand
        proxy = parse_proxy(errand.proxy, errand.no_proxy)
        self._proxy = proxy if proxy and proxy.serves(errand.host, errand.port) else None
        self._queue = SendQueue()
        self._deframer = Deframer()
        self._out = b""

    # -------------------------------------------------------------- connecting

    def connect(self) -> None:
        """TCP, the proxy if there is one, TLS; raises Failed."""
        errand, until = self._errand, time.monotonic() + timing.STREAM_SETUP
        try:
            self._tcp = self._reach(until)
            if self._proxy is not None:
                self._through(self._proxy, until)
            context = client_context(base64.b64decode(errand.ca), errand.service)
            self._wire = TlsWire(context, errand.host)
            while not self._wire.ready:
                self._tcp.sendall(self._wire.outgoing())
                early = self._wire.receive(self._read(until))
                if self._wire.ended:
                    raise Failed("the other end closed the connection during the TLS handshake")
            self._tcp.sendall(self._wire.outgoing())
            check_time(self._wire.certificate(), errand.platform_ms, errand.slack_ms)
        except ssl.SSLCertVerificationError as error:
            raise Failed(f"its certificate is not the platform's: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise Failed(f"TLS failed: {error.reason or error}") from None
        except ProtocolError as error:
            raise Failed(error.detail or error.kind) from None
        except OSError as error:
            raise Failed(error.strerror or str(error)) from None
        if self._wire.service != errand.service:
            raise Failed(f"no {errand.service} is served there")
        self._tcp.setblocking(False)
        local = self._tcp.getsockname()
        self._plane.send(word("opened", host=local[0], port=local[1]))
        self._deliver(early)

    def _reach(self, until: float) -> socket.socket:
        errand = self._errand
        host, port = errand.host, errand.port
        if self._proxy is not None:
            host, port = self._proxy.host, self._proxy.port
        fault: OSError | None = None
        for family, kind, protocol, _, place in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[:4]:
            own = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            try:
                self._bind(own, family, str(place[0]))
                own.settimeout(max(0.1, until - time.monotonic()))
                own.connect(place)
                return own
            except OSError as error:
                own.close()
                fault = error
        raise fault or OSError(errno.EHOSTUNREACH, "no address")

    def _bind(self, own: socket.socket, family: int, target: str) -> None:
        errand = self._errand
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_MS)
        try:
            own.setsockopt(socket.SOL_SOCKET, SO_MARK, errand.mark)
        except OSError:
            pass  # unmarked, but it works
        if target.startswith("127.") or target == "::1":
            return  # a proxy on this machine chooses the way itself
        if errand.interface:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, errand.interface.encode())
        if errand.address and (":" in errand.address) == (family == socket.AF_INET6):
            own.bind((errand.address, 0))

    def _through(self, proxy: Proxy, until: float) -> None:
        """Ask an HTTP proxy for a tunnel."""
        errand = self._errand
        host = f"[{errand.host}]" if ":" in errand.host else errand.host
        lines = [f"CONNECT {host}:{errand.port} HTTP/1.1", f"Host: {host}:{errand.port}"]
        lines += [f"{name}: {value}" for name, value in proxy.headers().items()]
        self._tcp.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            if len(answer) > PROXY_ANSWER:
                raise Failed("the proxy's answer is too long")
            answer += self._read(until, 1)  # nothing behind the answer may be taken
        status = answer.split(b"\r\n", 1)[0].split(b" ")
        if len(status) < 2 or status[1] != b"200":
            said = b" ".join(status[1:])[:80].decode("latin-1")
            raise Failed(f"the proxy {proxy.host} refuses: {said}")

    def _read(self, until: float, size: int = 65_536) -> bytes:
        self._tcp.settimeout(max(0.01, until - time.monotonic()))
        data = self._tcp.recv(size)
        if not data:
            raise Failed("the other end closed the connection")
        return data

    # -------------------------------------------------------------- carrying

    def run(self) -> None:
        """Move datagrams until the plane is gone (returns) or the connection is (Failed)."""
        waiter = select.poll()
        plane, tcp = self._plane.fileno(), self._tcp.fileno()
        waiter.register(plane, select.POLLIN)
        self._plane.setblocking(False)
        while True:
            blocked = select.POLLOUT if self._out or len(self._queue) else 0
            waiter.register(tcp, select.POLLIN | blocked)
            for descriptor, _ in waiter.poll():
                if descriptor == plane and not self._from_plane():
                    self._tcp.settimeout(FAREWELL)  # the last words, Close among them
                    self._push()
                    return
                if descriptor == tcp:
                    self._from_tcp()
            self._push()

    def _from_plane(self) -> bool:
        for _ in range(READS):
            try:
                message = self._plane.recv(MESSAGE_MAX)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            size = int.from_bytes(message[:2], "big")
            if size:
                self._queue.put(memoryview(message)[2:], size)
        return True

    def _from_tcp(self) -> None:
        try:
            data = self._tcp.recv(262_144)
        except BlockingIOError:
            return
        except OSError as error:
            raise Failed(error.strerror or str(error)) from None
        if not data:
            raise Failed("the server closed the connection")
        try:
            self._deliver(self._wire.receive(data))
        except ssl.SSLError as error:
            raise Failed(f"TLS failed: {error.reason or error}") from None
        if self._wire.ended:
            raise Failed("the server closed the connection")

    def _deliver(self, chunks: list[bytes]) -> None:
        """Hand datagrams up, those of one size together; what the plane has no room for is lost."""
        run: list[bytes] = []
        size = total = 0
        try:
            for datagram in self._deframer.feed(b"".join(chunks)):
                if run and (len(datagram) != size or total + size > RUN_BYTES):
                    self._up(size, run)
                    run, total = [], 0
                size = len(datagram)
                total += size
                run.append(datagram)
        except ProtocolError as error:
            raise Failed(f"the server broke the framing ({error.detail} bytes)") from None
        if run:
            self._up(size, run)

    def _up(self, size: int, run: list[bytes]) -> None:
        try:
            self._plane.send(size.to_bytes(2, "big") + b"".join(run))
        except BlockingIOError:
            pass  # as a full socket buffer of UDP would
        except OSError:
            pass  # the plane is gone: the next read finds out

    def _push(self) -> None:
        try:
            while self._out or len(self._queue):
                if not self._out:
                    self._wire.send(self._queue.take(CHUNK))
                    self._out = self._wire.outgoing()
                sent = self._tcp.send(self._out)
                self._out = self._out[sent:]
        except BlockingIOError:
            return
        except (OSError, ssl.SSLError) as error:
            raise Failed(getattr(error, "strerror", None) or str(error)) from None


def main() -> None:
    """Carry the errand that the plane sends over the descriptor given as the only argument."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the plane decides when to end
    plane = socket.socket(fileno=int(sys.argv[1]))
    message = plane.recv(MESSAGE_MAX)
    if not message:
        return
    carrier = Carrier(plane, Errand(**json.loads(message[2:])))
    try:
        carrier.connect()
        carrier.run()
    except (Failed, ValueError) as error:
        try:
            plane.send(word("failed", text=str(error)))
        except OSError:
            pass
        os._exit(1)


if __name__ == "__main__":
    main()
