"""The coordinator as a program: sockets, database, DNS both ways, the account server's directory.

``DIR`` (the role's data directory) holds ``static.key`` and ``sign.key`` (32 bytes each, written at
enrolment), ``nodes.sqlite`` (:mod:`ntm_dc.store`) and ``store/`` (small values of the core).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import itertools
import os
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from ntm_dc.core import DcCore
from ntm_dc.dns import Zone, ZoneFacts
from ntm_dc.dns_server import DnsServer
from ntm_dc.resolver import DomainResolver
from ntm_dc.store import NodeStore
from ntm_dc.values import (
    PROBE_SOCKETS,
    CertificatesRenewed,
    DcSettings,
    DcState,
    DirectoryEntry,
    DirectoryUpdated,
    Flush,
    Flushed,
    ForgetNode,
    LookupDomain,
    StoreNode,
)
from ntmd.proto import certs
from ntmd.proto.certs import Anchor, Trust
from ntmd.proto.crypto import public_key
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Identity
from ntmd.proto.io import (
    DatagramReceived,
    SendDatagram,
    SendFailed,
    Store,
    Tell,
    UserAnswered,
    UserAsked,
)
from ntmd.proto.records import Capability
from ntmd.proto.stream import ALPN, STREAM_SOCKET
from ntmd.proto.types import Endpoint, Role
from ntmd.runtime import account
from ntmd.runtime.clock import boot_clock, wall_ms
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.driver import Driver
from ntmd.runtime.enrolment import Coordinator, Enrolment
from ntmd.runtime.journal import Trace, journal
from ntmd.runtime.patience import PatientStore
from ntmd.runtime.statefiles import damaged, read_file
from ntmd.runtime.stream_server import StreamListener, StreamPort
from ntmd.runtime.udp import UdpPort

ABLE = int(Capability.SUITE_AES_GCM | Capability.SUITE_CHACHA | Capability.WIRE_1)
DIRECTORY_EVERY = 20.0  # seconds between looks at the account server's directory
LOOKUPS = 256  # questions to the DNS under way at once
ZONE_EVERY = 1.0  # seconds for which the zone is served as it was
KICK = 0.2  # rows wait this long for company, seconds
PROBE_PORT = 2  # the mapping test's port comes this much after the coordinator's

log = journal(__name__)


class DcServer:
    """A coordinator on ``listen`` addresses at ``udp_port`` (0: any free port, the same on all).

    ``dns_port`` 0: no name server. ``resolver`` is ``ADDR[:PORT]``, empty: the system's.
    ``database`` is an SQLAlchemy URL, empty: SQLite in ``directory``.
    ``streams`` accepts TLS connections, perhaps for others besides.
    """

    def __init__(
        self,
        directory: FilePath,
        enrolment: Enrolment,
        listen: Sequence[str],
        udp_port: int,
        *,
        dns_port: int = 0,
        resolver: str = "",
        database: str = "",
        streams: StreamListener | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.directory, self.enrolment = directory, enrolment
        self.endpoints: tuple[Endpoint, ...] = ()
        self.dns: DnsServer | None = None
        self._listen, self._port, self._dns_port = tuple(listen), udp_port, dns_port
        self._database = database
        self._trace = trace
        self._streams = streams
        self._stream_port: StreamPort | None = None
        self._resolver = DomainResolver(resolver)
        self._ports: dict[int, UdpPort] = {}
        self._store: NodeStore | None = None
        self._files: PatientStore | None = None
        self._driver: Driver | None = None
        self._core: DcCore | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._run: asyncio.Task[None] | None = None
        self._tokens = itertools.count(1)
        self._answers: dict[int, asyncio.Future[UserAnswered]] = {}
        self._zone: tuple[float, Zone] | None = None
        self._serial = 0
        self._lookups = 0

    @property
    def core(self) -> DcCore:
        """The running core."""
        assert self._core is not None, "start() first"
        return self._core

    # -------------------------------------------------------------- life

    async def start(self) -> None:
        """Bind and serve; Complaint if something cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            self._bind(loop)
            self._store = self._open_store()
            self._files = PatientStore(self.directory / "store", loop)
            self._core = self._build()
            self._driver = Driver(self._core, self._execute, loop=loop, trace=self._trace)
            if self._dns_port:
                self.dns = DnsServer(self._current_zone, self._listen, self._dns_port)
                await self.dns.start()
        except BaseException:
            self._close()
            raise
        if self._streams is not None:
            self._stream_port = StreamPort(self._stream_run, self._core.stream_sources)
            self._streams.offer(ALPN[Role.DC], self._stream_port)
        self._run = loop.create_task(self._driver.run())
        self._driver.post(_directory(self.enrolment.directory))
        self._background(self._follow_directory())
        self._background(self._kick())

    async def stop(self) -> None:
        """End cleanly: what is known is written."""
        for task in list(self._tasks):
            task.cancel()
        if self._driver is not None:
            self._driver.stop()
        if self.dns is not None:
            await self.dns.stop()
        if self._run is not None:
            await asyncio.wait([self._run])
        if self._files is not None:
            self._files.close()
        self._close()

    async def wait(self) -> None:
        """Return when the server ends; raises what made it fail."""
        assert self._run is not None, "start() first"
        await asyncio.shield(self._run)

    def renewed(self, enrolment: Enrolment) -> None:
        """Go on with renewed certificates and a fresh directory; sessions are not touched."""
        assert self._driver is not None, "start() first"
        self.enrolment = enrolment
        certificates = CertificatesRenewed(enrolment.certificates, enrolment.sign_certificate)
        self._driver.post(certificates)
        self._driver.post(_directory(enrolment.directory))

    def metrics(self) -> dict[str, Any]:
        """Counters and gauges for the admin socket and ``/metrics``."""
        store = self._store
        return {
            **self.core.status(boot_clock()),
            "store_waiting": store.waiting() if store else 0,
            "store_written": store.written if store else 0,
            "store_failures": store.failures if store else 0,
            "state_waiting": self._files.waiting if self._files else 0,
            "dns": dict(sorted(self.dns.counters.items())) if self.dns else {},
            "dns_asked": self._resolver.asked,
        }

    async def ask(self, what: str, **arguments: Any) -> Any:
        """Ask the core ("status", "nodes", "node", "forget"); Complaint if it refuses."""
        assert self._driver is not None, "start() first"
        token = next(self._tokens)
        future = self._answers[token] = asyncio.get_running_loop().create_future()
        self._driver.post(UserAsked(token, what, arguments))
        answer = await future
        if answer.error:
            raise Complaint(answer.error, exit_code=answer.exit_code)
        return answer.result

    # -------------------------------------------------------------- building

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        port = self._port
        for number, address in enumerate(self._listen, 1):
            self._ports[number] = UdpPort(number, address, port, self._received, loop=loop)
            port = self._ports[number].local.port
        twin = port + PROBE_PORT if self._port else 0
        for number, address in enumerate(self._listen, PROBE_SOCKETS + 1):
            self._ports[number] = UdpPort(number, address, twin, self._received, loop=loop)
            twin = self._ports[number].local.port
        self.endpoints = tuple(p.local for n, p in self._ports.items() if n < PROBE_SOCKETS)

    def _build(self) -> DcCore:
        given = self.enrolment
        assert self._store is not None
        assert self._files is not None
        key, sign = (self._key(name) for name in ("static.key", "sign.key"))
        try:
            self._public = public_key(key)
            return DcCore(
                DcSettings(
                    given.domain,
                    self.endpoints,
                    tuple(p.local for n, p in self._ports.items() if n > PROBE_SOCKETS),
                    self._streams.endpoints if self._streams is not None else (),
                ),
                Identity(Role.DC, given.name, key, given.certificates, capabilities=ABLE),
                sign,
                given.sign_certificate,
                ipaddress.IPv6Network(given.delegation),
                Trust((Anchor(given.platform_id, (certs.ca_key_of(given.ca),)),)),
                DcState(self._store.load(given.domain), self._files.read_all()),
                random=os.urandom,
                now=boot_clock(),
                wall_ms=wall_ms(),
            )
        except (ValueError, ProtocolError) as error:
            raise damaged(self.directory / "enrolment.json", str(error)) from error

    def _open_store(self) -> NodeStore:
        if self._database:
            return NodeStore(self._database, self._flushed)
        return NodeStore.in_directory(self.directory, self._flushed)

    def _key(self, name: str) -> bytes:
        data = read_file(self.directory / name, 64)
        if len(data) != 32:
            raise damaged(self.directory / name, "it does not hold a key of 32 bytes")
        return data

    def _close(self) -> None:
        if self._stream_port is not None and self._streams is not None:
            self._streams.withdraw(ALPN[Role.DC], self._stream_port)
        for port in self._ports.values():
            port.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    # -------------------------------------------------------------- inputs

    def _received(self, data: bytes, number: int, source: Endpoint) -> None:
        if self._driver is not None:
            self._driver.post(DatagramReceived(data, number, source))

    def _stream_run(self, run: bytearray, segment: int, source: Endpoint) -> None:
        for at in range(0, len(run), segment):
            self._received(bytes(run[at : at + segment]), STREAM_SOCKET, source)

    def _send(self, data: bytes, number: int, remote: Endpoint) -> int:
        if number != STREAM_SOCKET:
            return self._ports[number].send(data, remote)
        port = self._stream_port
        return errno.ENOTCONN if port is None else port.send(data, len(data), remote)

    def _flushed(self, ticket: int, error: str) -> None:
        if self._driver is not None:  # in the writing thread
            self._driver.post_soon(Flushed(ticket, error))

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _kick(self) -> None:
        while True:
            await asyncio.sleep(KICK)
            if self._store is not None:
                self._store.kick()

    async def _follow_directory(self) -> None:
        """Pull the list of coordinators; a silent account server changes nothing."""
        sign, loop, silent = self._key("sign.key"), asyncio.get_running_loop(), False
        while True:
            await asyncio.sleep(DIRECTORY_EVERY)
            try:
                entries = await loop.run_in_executor(
                    None, account.fetch_directory, self.enrolment, sign
                )
            except Complaint as complaint:
                if not silent:
                    log.warning("no directory from the account server", why=complaint.what)
                silent = True
                continue
            silent = False
            if self._driver is not None:
                self._driver.post(_directory(entries))

    async def _lookup(self, wish: LookupDomain) -> None:
        try:
            found = await self._resolver.lookup(wish)
        finally:
            self._lookups -= 1
        if self._driver is not None:
            self._driver.post(found)

    # -------------------------------------------------------------- commands

    def _execute(self, command: Any) -> None:
        match command:
            case SendDatagram(data=data, path=path):
                code = self._send(data, path.socket, path.remote)
                if code and self._driver is not None:
                    self._driver.post(SendFailed(path, code, os.strerror(code)))
            case Tell(level=level, what=what, fields=fields):
                log.tell(level, what, fields)
            case LookupDomain():
                if self._lookups < LOOKUPS:
                    self._lookups += 1
                    self._background(self._lookup(command))
            case Store(key=key, value=value):
                assert self._files is not None
                self._files.put(key, value)
            case UserAnswered(token=token):
                future = self._answers.pop(token, None)
                if future is not None and not future.done():
                    future.set_result(command)
            case _:
                self._keep(command)

    def _keep(self, command: Any) -> None:
        assert self._store is not None
        match command:
            case StoreNode(node=node):
                self._store.put(node)
            case ForgetNode(name=name):
                self._store.forget(name)
            case Flush(ticket=ticket):
                self._store.flush(ticket)
            case _:
                raise TypeError(f"a coordinator has no command {type(command).__name__}")

    def _current_zone(self) -> Zone:
        now = boot_clock()
        if self._zone is None or now >= self._zone[0]:
            self._serial = max(self._serial + 1, wall_ms() // 1000)
            facts = ZoneFacts(
                self.enrolment.domain,
                self.enrolment.name,
                self._public,
                self.endpoints,
                self.core.relays.endpoints(now),
                self._serial & 0xFFFF_FFFF,
            )
            self._zone = (now + ZONE_EVERY, Zone(facts))
        return self._zone[1]


def _directory(entries: Sequence[Coordinator]) -> DirectoryUpdated:
    """Certificates only: where a coordinator is, is the DNS's to say (rule C3)."""
    return DirectoryUpdated(tuple(DirectoryEntry(entry.certificate) for entry in entries))
