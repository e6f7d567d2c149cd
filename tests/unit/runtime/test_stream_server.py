"""The TLS listener and the carrier, over loopback: who gets in, and what bounds everybody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ntmd.dataplane.stream import StreamEnded, StreamUnderlay
from ntmd.proto import certs, timing
from ntmd.proto.frame import Kind
from ntmd.proto.plane import OpenStream, StreamSettings
from ntmd.proto.stream import ALPN
from ntmd.proto.types import Endpoint, Role
from ntmd.runtime.stream_server import StreamListener, StreamPort

NOW = int(time.time() * 1000)
HOUR = 3_600_000
SERVICE = ALPN[Role.RS]
DATA, CONTROL = bytes((Kind.DATA,)), bytes((Kind.CONTROL,))


class Authority:
    """A platform's CA, and the TLS certificate of a server at 127.0.0.1."""

    def __init__(self, folder: Path, begins: int = NOW - HOUR, ends: int = NOW + HOUR) -> None:
        private = os.urandom(32)
        self.ca = certs.make_ca(private, NOW - HOUR, NOW + 100 * HOUR, os.urandom(15) + b"\1")
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certs.issue_tls(
            private,
            certs.platform_id_of(self.ca),
            spki=key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            names=["rs1.home.test"],
            addresses=["127.0.0.1"],
            not_before_ms=begins,
            not_after_ms=ends,
            serial=b"\x41" + os.urandom(15),
        )
        self.pem = folder / f"{os.urandom(4).hex()}.pem"
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = x509.load_der_x509_certificate(leaf).public_bytes(Encoding.PEM)
        self.pem.write_bytes(pem + chain)


class Bench:
    """A listener with an echoing relay service; ``proven`` are the sources with a session."""

    def __init__(self, listener: StreamListener, authority: Authority) -> None:
        self.listener, self.authority = listener, authority
        self.runs: list[tuple[bytes, int, Endpoint]] = []
        self.proven: dict[Endpoint, None] = {}
        self.echo = True
        self.port = StreamPort(self._take, lambda: frozenset(self.proven))
        listener.offer(SERVICE, self.port)
        self.streams: list[StreamUnderlay] = []

    def _take(self, run: bytearray, segment: int, source: Endpoint) -> None:
        self.runs.append((bytes(run), segment, source))
        if self.echo:
            self.port.send(bytes(run), segment, source)

    @property
    def at(self) -> Endpoint:
        """Where it listens."""
        return self.listener.endpoints[0]

    def stream(self, authority: Authority | None = None, **changed: object) -> StreamUnderlay:
        """The plane's end of a connection to it."""
        ways = str(changed.pop("proxy", "")), str(changed.pop("no_proxy", ""))
        given: dict[str, object] = {
            "socket": 7,
            "interface": "",
            "family": 4,
            "address": "127.0.0.1",
            "remote": self.at,
            "service": SERVICE,
            "platform_ms": NOW,
            "slack_ms": 0,
            **changed,
        }
        settings = StreamSettings((authority or self.authority).ca, *ways)
        wish = OpenStream(**given)  # type: ignore[arg-type]
        self.streams.append(StreamUnderlay(wish, settings, 0))
        return self.streams[-1]

    async def plain(self, data: bytes = b"") -> socket.socket:
        """A TCP connection that says ``data`` and nothing else."""
        own = socket.create_connection(self.at)
        own.setblocking(False)
        if data:
            await asyncio.get_running_loop().sock_sendall(own, data)
        return own


@contextlib.asynccontextmanager
async def bench(folder: Path, authority: Authority | None = None) -> AsyncIterator[Bench]:
    made = authority or Authority(folder)
    listener = StreamListener(["127.0.0.1"], 0, asyncio.get_running_loop())
    listener.open(made.pem)
    bench = Bench(listener, made)
    try:
        yield bench
    finally:
        listener.close()
        for stream in bench.streams:
            stream.socket.close()
            os.waitpid(stream.pid, 0)


async def until(what: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait for ``what()`` to hold."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.01)


async def got(stream: StreamUnderlay, count: int = 1) -> list[tuple[bytes, int]]:
    """The next ``count`` messages of a stream."""
    buffer = memoryview(bytearray(70_000))
    found: list[tuple[bytes, int]] = []
    end = time.monotonic() + 8
    while len(found) < count:
        try:
            length, size = stream.receive(buffer)
            found.append((bytes(buffer[:length]), size))
        except BlockingIOError:
            assert time.monotonic() < end, "not in time"
            await asyncio.sleep(0.01)
    return found


async def why_not(stream: StreamUnderlay) -> str:
    """What a stream that must not open says."""
    with pytest.raises(StreamEnded) as ended:
        await got(stream)
    return str(ended.value)


def run(story: object) -> None:
    asyncio.run(story)  # type: ignore[arg-type]


def test_datagrams_both_ways(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            stream = made.stream()
            assert await got(stream) == [(b"", 0)]
            assert stream.local is not None
            assert stream.local.host == "127.0.0.1"
            batch = DATA * 1000 + DATA * 1000 + DATA * 300
            assert stream.send(memoryview(batch), 1000, made.at) == 0
            assert stream.send(memoryview(CONTROL * 60), 60, made.at) == 0
            came = b""
            while len(came) < len(batch) + 60:
                [(piece, size)] = await got(stream)
                assert size in (60, 300, 1000)
                came += piece
            assert sorted(came) == sorted(batch + CONTROL * 60)
            assert all(source == stream.local for _, _, source in made.runs)
            stream.socket.close()
            await until(lambda: len(made.listener) == 0)

    run(story())


def test_tls_1_3_with_a_p256_certificate_and_the_alpn(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=made.authority.ca)
            context.set_alpn_protocols([SERVICE])
            _, writer = await asyncio.open_connection(*made.at, ssl=context)
            tls = writer.get_extra_info("ssl_object")
            assert tls.version() == "TLSv1.3"
            assert tls.selected_alpn_protocol() == SERVICE
            leaf = x509.load_der_x509_certificate(tls.getpeercert(True))
            assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
            writer.close()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(OSError, match=r"ALERT|PROTOCOL|reset"):
                await asyncio.open_connection(*made.at, ssl=context)

    run(story())


def test_whoever_pins_something_else_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            assert "not the platform's" in await why_not(made.stream(Authority(tmp_path)))
            assert "not the platform's" in await why_not(
                made.stream(remote=Endpoint("localhost", made.at.port))
            )
            assert "no ntm-dc/1" in await why_not(made.stream(service=ALPN[Role.DC]))
            assert not made.runs

    run(story())


def test_a_certificate_is_judged_by_platform_time(tmp_path: Path) -> None:
    async def story() -> None:
        old = Authority(tmp_path, NOW - 3 * HOUR, NOW - 2 * HOUR)
        async with bench(tmp_path, old) as made:
            assert "not valid now" in await why_not(made.stream())
            assert await got(made.stream(slack_ms=3 * HOUR)) == [(b"", 0)]
            assert await got(made.stream(platform_ms=NOW - 2 * HOUR - 5000)) == [(b"", 0)]

    run(story())


def test_junk_slow_handshakes_and_broken_frames_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "STREAM_UNPROVEN", 0.5)

    async def story() -> None:
        async with bench(tmp_path) as made:
            await made.plain(b"GET / HTTP/1.1\r\n\r\n" + bytes(5000))
            await until(lambda: made.listener.counters["tls_refused"] == 1)
            held = [await made.plain(b"\x16\x03\x01\x02") for _ in range(5)]
            await until(lambda: len(made.listener) == 5)
            stream = made.stream()
            await got(stream)
            stream.send(memoryview(CONTROL * 40), 40, made.at)
            assert await got(stream) == [(CONTROL * 40, 40)]
            await until(lambda: made.listener.counters["tls_unproven"] == 6)
            assert "closed the connection" in await why_not(stream)
            assert len(made.listener) == 0
            for own in held:
                own.close()

    run(story())


def test_an_impossible_frame_ends_the_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=made.authority.ca)
            context.set_alpn_protocols([SERVICE])
            reader, writer = await asyncio.open_connection(*made.at, ssl=context)
            writer.write(b"\xff\xff" + bytes(100_000))
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert made.listener.counters["stream_frame_size"] == 1
            assert not made.runs
            writer.close()

    run(story())


def test_a_source_of_a_session_stays_until_it_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "STREAM_UNPROVEN", 0.3)

    async def story() -> None:
        async with bench(tmp_path) as made:
            stream = made.stream()
            await got(stream)
            assert stream.local is not None
            made.proven[stream.local] = None
            await asyncio.sleep(2.5)
            assert len(made.listener) == 1
            made.proven.clear()
            await until(lambda: len(made.listener) == 0)

    run(story())


def test_connections_of_one_source_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "STREAM_PER_SOURCE", 8)

    async def story() -> None:
        async with bench(tmp_path) as made:
            held = [await made.plain() for _ in range(20)]
            await until(lambda: made.listener.counters["tls_too_many"] == 12)
            assert len(made.listener) == 8
            for own in held:
                own.close()
            await until(lambda: len(made.listener) == 0)
            stream = made.stream()
            assert await got(stream) == [(b"", 0)]

    run(story())


def test_a_slow_reader_costs_a_bounded_queue(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=made.authority.ca)
            context.set_alpn_protocols([SERVICE])
            _, writer = await asyncio.open_connection(*made.at, ssl=context, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: made.port._framed)
            [(source, framed)] = made.port._framed.items()
            sent = 0
            while framed.queue.drops["stream_data_dropped"] < 20_000:
                made.port.send(DATA * 64_000, 1000, source)
                sent += 64_000
                assert framed.queue.bytes <= timing.STREAM_QUEUE
                assert len(framed.link._out) < 20_000
                assert sent < 100_000_000
                await asyncio.sleep(0)
            made.port.send(CONTROL * 100, 100, source)
            assert framed.queue.drops["stream_control_refused"] == 0
            writer.close()

    run(story())


async def connect_proxy(answer: bytes, seen: list[bytes]) -> asyncio.Server:
    """An HTTP proxy that answers every CONNECT so, and tunnels if that is a 200."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if b" 200 " not in answer:
            writer.close()
            return
        host, _, port = seen[-1].split()[1].decode().rpartition(":")
        far, there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, there), pump(far, writer))

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def test_through_an_http_proxy(tmp_path: Path) -> None:
    async def story() -> None:
        seen: list[bytes] = []
        async with bench(tmp_path) as made:
            proxy = await connect_proxy(
                b"HTTP/1.1 200 Connection established\r\nA: b\r\n\r\n", seen
            )
            where = proxy.sockets[0].getsockname()[1]
            stream = made.stream(proxy=f"http://me:s%40crt@127.0.0.1:{where}")
            assert await got(stream) == [(b"", 0)]
            stream.send(memoryview(CONTROL * 40), 40, made.at)
            assert await got(stream) == [(CONTROL * 40, 40)]
            assert seen[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % made.at.port)
            assert b"Proxy-Authorization: Basic bWU6c0BjcnQ=\r\n" in seen[0]
            stream.socket.close()
            proxy.close()

            past = made.stream(proxy=f"http://127.0.0.1:{where}", no_proxy="127.0.0.0/8")
            assert await got(past) == [(b"", 0)]  # nobody serves at the proxy any more
            past.socket.close()

            for answer, says in (
                (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refuses: 403 Forbidden"),
                (b"HTTP/1.1 200 " + b"x" * 9000, "too long"),
                (b"junk\r\n\r\n", "refuses"),
                (b"", "closed the connection"),
            ):
                bad = await connect_proxy(answer, seen)
                port = bad.sockets[0].getsockname()[1]
                assert says in await why_not(made.stream(proxy=f"http://127.0.0.1:{port}"))
                bad.close()

    run(story())
