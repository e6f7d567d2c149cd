"""The relay as a program: sockets, clock, random source, state directory, one driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path as FilePath
from typing import Any

from ntm_rs.core import RsCore, RsSettings
from ntm_rs.home import CertificatesRenewed, HomeDc
from ntm_rs.placesfile import PlacesFile
from ntm_rs.plane import RelayPlane
from ntm_rs.recall import PLACES_KEY, Ending
from ntmd.proto import certs
from ntmd.proto.certs import Trust
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
from ntmd.proto.stream import ALPN, STREAM_SOCKET
from ntmd.proto.types import Endpoint, Peer, Role
from ntmd.runtime.clock import boot_clock, wall_ms
from ntmd.runtime.driver import Driver
from ntmd.runtime.enrolment import Enrolment
from ntmd.runtime.journal import Trace, journal
from ntmd.runtime.patience import PatientStore
from ntmd.runtime.stream_server import StreamListener, StreamPort
from ntmd.runtime.udp import open_udp

log = journal(__name__)


@dataclass(frozen=True, slots=True)
class RsEnrolment:
    """What the account server gave this relay: who it is, whom to trust, its coordinator."""

    identity: Identity
    trust: Trust
    platform_id: bytes
    dc: HomeDc


def home_dc(enrolment: Enrolment) -> HomeDc:
    """The coordinator that an enrolment names; ValueError if it names none."""
    dc = enrolment.dc
    if dc is None:
        raise ValueError("no coordinator")
    key = certs.parse_leaf(dc.certificate).key
    return HomeDc(Peer(Role.DC, dc.name, key), dc.endpoints, dc.dc_sign)


class RsServer:
    """A relay on ``listen`` addresses at ``udp_port`` (0: any free port, the same on all).

    ``announced`` are the endpoints to tell the coordinator, if others than those bound (a relay
    behind a static translation). ``streams`` accepts TLS connections, perhaps for others besides.
    ``data_dir`` keeps the sequence mark, and where nodes are to be told of a restart.
    """

    def __init__(
        self,
        data_dir: FilePath,
        enrolment: RsEnrolment,
        listen: Sequence[str],
        udp_port: int,
        *,
        announced: Sequence[Endpoint] = (),
        streams: StreamListener | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._enrolment = enrolment
        self._listen = tuple(listen)
        self._port = udp_port
        self._announced = tuple(announced)
        self._trace = trace
        self._streams = streams
        self._stream_port: StreamPort | None = None
        self._core: RsCore | None = None
        self._plane: RelayPlane | None = None
        self._driver: Driver | None = None
        self._task: asyncio.Task[None] | None = None
        self.endpoints: tuple[Endpoint, ...] = ()

    @property
    def core(self) -> RsCore:
        """The running core."""
        assert self._core is not None, "start() first"
        return self._core

    async def start(self) -> None:
        """Bind and serve; raises Complaint if an address cannot be had."""
        sockets: dict[int, Any] = {}
        port = self._port
        try:
            for number, address in enumerate(self._listen, 1):
                sockets[number] = open_udp(address, port)
                port = sockets[number].getsockname()[1]
        except Exception:
            for udp in sockets.values():
                udp.close()
            raise
        bound = {number: Endpoint(*udp.getsockname()[:2]) for number, udp in sockets.items()}
        self.endpoints = tuple(bound.values())
        loop = asyncio.get_running_loop()
        self._store = PatientStore(self._data_dir, loop)
        self._places = PlacesFile(self._data_dir, loop)
        given = self._enrolment
        self._core = RsCore(
            RsSettings(
                given.platform_id,
                announced=self._announced,
                tls=self._streams.endpoints if self._streams is not None else (),
            ),
            given.identity,
            given.trust,
            given.dc,
            bound,
            random=os.urandom,
            now=boot_clock(),
            wall_ms=wall_ms(),
            stored={**self._store.read_all(), **self._places.read()},
        )
        self._driver = Driver(self._core, self._execute, loop=loop, trace=self._trace)
        self._plane = RelayPlane(sockets, self._core.table, self._other, boot_clock, loop)
        if self._streams is not None:
            self._offer(self._streams, self._plane, self._core)
        self._task = loop.create_task(self._driver.run())

    def _offer(self, listener: StreamListener, plane: RelayPlane, core: RsCore) -> None:
        """Take TLS connections for relays."""
        take = partial(plane.run, STREAM_SOCKET)
        self._stream_port = StreamPort(take, core.stream_sources)
        listener.offer(ALPN[Role.RS], self._stream_port)
        plane.attach(STREAM_SOCKET, self._stream_port)

    async def stop(self) -> None:
        """Close the sockets; nodes find another relay, or this one again, by themselves."""
        if self._driver is not None:
            self._driver.post(Ending())
            self._driver.stop()
        if self._task is not None:
            await self._task
        if self._stream_port is not None and self._streams is not None:
            self._streams.withdraw(ALPN[Role.RS], self._stream_port)
        if self._plane is not None:
            self._plane.close()
            self._store.close()
            await self._places.close()

    async def wait(self) -> None:
        """Return when the server ends; raises what made it fail."""
        assert self._task is not None, "start() first"
        await self._task

    def drain(self, on: bool) -> dict[str, Any]:
        """Ask nodes and coordinator to do without this relay, or (``on`` false) to use it again;
        the relay's status."""
        assert self._driver is not None, "start() first"
        self._driver.post(UserAsked(0, "drain", {"on": on}))
        return self.core.status()

    def renewed(self, enrolment: Enrolment) -> None:
        """Go on with renewed certificates; sessions and legs are not touched."""
        assert self._driver is not None, "start() first"
        self._driver.post(CertificatesRenewed(enrolment.certificates, home_dc(enrolment)))

    def metrics(self) -> dict[str, Any]:
        """Counters and gauges for the admin socket and ``/metrics``."""
        plane = self._plane.stats() if self._plane is not None else {}
        tls = self._stream_port.stats() if self._stream_port is not None else {}
        waiting = {"state_waiting": self._store.waiting}
        return {**self.core.status(), **waiting, "plane": plane, "tls": tls}

    def _other(self, data: bytes, number: int, source: Endpoint) -> None:
        assert self._driver is not None
        self._driver.post(DatagramReceived(data, number, source))

    def _execute(self, command: Any) -> None:
        match command:
            case SendDatagram(data=data, path=path):
                assert self._plane is not None
                assert self._driver is not None
                code = self._plane.send(data, path.socket, path.remote)
                if code:
                    self._driver.post(SendFailed(path, code, os.strerror(code)))
            case Store(key=key, value=value) if key == PLACES_KEY and value is not None:
                self._places.put(value)
            case Store(key=key, value=value):
                self._store.put(key, value)
            case Tell(level=level, what=what, fields=fields):
                log.tell(level, what, fields)
            case UserAnswered():
                pass  # asked through metrics() in this process
            case _:
                raise TypeError(f"a relay has no command {type(command).__name__}")
