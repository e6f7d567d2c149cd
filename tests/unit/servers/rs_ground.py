"""A relay core, its coordinator and some nodes, joined by a bus of datagrams without any loss."""

from __future__ import annotations

from collections import deque
from typing import Any

from ntm_rs.core import RsCore, RsSettings
from ntm_rs.home import HomeDc
from ntmd.proto import messages as m
from ntmd.proto.crypto import public_key, sha256
from ntmd.proto.events import Established, Identity, MessageReceived, OpenPolicy, Replied
from ntmd.proto.frame import Kind, pack_header
from ntmd.proto.io import DatagramReceived, SendDatagram, Store
from ntmd.proto.records import sign_grant
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Endpoint, Path, Peer, Role
from tests.sim.clock import EPOCH_MS, Clock
from tests.sim.platform import Platform

RELAY = {1: Endpoint("198.51.100.1", 4331), 2: Endpoint("2001:db8::1", 4331)}
DC = Endpoint("198.51.100.9", 4330)
DAY_MS = 86_400_000


class Station:
    """Anything with a session engine: a node, or the coordinator. Sends from ``at`` by socket."""

    def __init__(self, ground: Ground, identity: Identity, at: dict[int, Endpoint]) -> None:
        self.ground = ground
        self.identity = identity
        self.at = at
        self.heard: list[tuple[int, Endpoint, bytes]] = []
        self.events: list[Any] = []
        self.replies: dict[int, Any] = {}
        self.engine = SessionEngine(
            identity,
            ground.platform.trust,
            OpenPolicy((Role.RS, Role.DC)),
            random=ground.clock.stream(identity.name).randbytes,
            platform_ms=ground.platform_ms,
            sequencer=Sequencer(0, lambda mark: None),
        )
        for number in at:
            ground.stations[at[number]] = (self, number)
        self.handle = -1

    @property
    def key_hash(self) -> bytes:
        return sha256(public_key(self.identity.private_key))

    def call_relay(self, socket: int = 1) -> None:
        identity = self.ground.relay_identity
        peer = Peer(Role.RS, identity.name, public_key(identity.private_key))
        at = self.ground.relay_at(self.at[socket])
        self.handle = self.engine.call(peer, [Path(socket, at)], self.ground.now)
        self.ground.pump()

    def ask(self, request: Any, socket: int = 1) -> Any:
        """Send a request by one socket and return the reply."""
        path = Path(socket, self.ground.relay_at(self.at[socket]))
        number = self.engine.ask(self.handle, request, self.ground.now, path)
        self.ground.pump()
        return self.replies.get(number)

    def send(self, leg: int, size: int = 200, socket: int = 1, kind: int = Kind.DATA) -> None:
        data = pack_header(kind, 1, 0, 0, leg, 5) + bytes(size - 16)
        self.ground.bus.append((self.at[socket], self.ground.relay_at(self.at[socket]), data))
        self.ground.pump()

    def receive(self, data: bytes, number: int, source: Endpoint) -> None:
        self.heard.append((number, source, data))
        self.engine.receive(data, number, source, self.ground.now)

    def work(self) -> None:
        for output in self.engine.take_outputs():
            if isinstance(output, SendDatagram):
                source = self.at.get(output.path.socket)
                if source is not None:
                    self.ground.bus.append((source, output.path.remote, output.data))
                continue
            self.events.append(output)
            if isinstance(output, Replied):
                self.replies[output.request_id] = output.reply
            elif isinstance(output, Established):
                self.engine.set_primary(output.handle, output.path)
            elif isinstance(output, MessageReceived):
                self._message(output)

    def _message(self, event: MessageReceived) -> None:
        match event.message:
            case m.Probe(nonce=nonce):
                answer = m.Answer(nonce, event.path.remote)
                self.engine.tell(event.handle, answer, self.ground.now, event.path)
            case m.RelayRegister(id=number):
                self.engine.reply(event, self.ground.registered(number), self.ground.now)

    def data(self) -> list[tuple[int, Endpoint, bytes]]:
        """Data frames that arrived: socket, source, datagram."""
        return [entry for entry in self.heard if entry[2][0] == Kind.DATA]


class Ground:
    """Everything in one process and one instant; time moves only by :meth:`wait`."""

    def __init__(self, *, with_dc: bool = True, **settings: Any) -> None:
        self.clock = Clock(7)
        self.now = 1000.0
        self.bus: deque[tuple[Endpoint, Endpoint, bytes]] = deque()
        self.stations: dict[Endpoint, tuple[Station, int]] = {}
        self.cut: set[Endpoint] = set()
        self.platform = Platform(self.clock)
        self.dc_identity = self.platform.dc("dc.home.test", "home.test")
        self.relay_identity = self.platform.rs("rs.home.test", "home.test")
        self.settings = RsSettings(self.platform.id, **settings)
        self.sent = 0
        self.births = 0
        self.dc = Station(self, self.dc_identity.identity, {1: DC}) if with_dc else None
        self.stored: dict[str, bytes] = {}
        self.core = self.new_core()
        self.pump()

    def new_core(self) -> RsCore:
        self.births += 1
        self.core = RsCore(
            self.settings,
            self.relay_identity,
            self.platform.trust,
            HomeDc(self.dc_identity.peer, (DC,), self.dc_identity.sign_certificate),
            RELAY,
            random=self.clock.stream(f"relay {self.births}").randbytes,
            now=self.now,
            wall_ms=self.platform_ms(self.now),
            stored=self.stored,
        )
        return self.core

    def platform_ms(self, now: float) -> int:
        return EPOCH_MS + int((now - 1000.0) * 1000)

    def relay_at(self, source: Endpoint) -> Endpoint:
        return RELAY[1 if source.family == 4 else 2]

    def registered(self, number: int) -> m.RelayRegistered:
        sign = self.dc_identity.sign_certificate
        return m.RelayRegistered(number, m.Status.OK, 0, self.platform_ms(self.now), sign, 60)

    def node(self, name: str, *hosts: str) -> Station:
        at = {number: Endpoint(host, 5000) for number, host in enumerate(hosts, 1)}
        return Station(self, self.platform.node(f"{name}.home.test", "home.test"), at)

    def grant(self, one: Station, two: Station, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "rs_key_hash": sha256(public_key(self.relay_identity.private_key)),
            "grant_id": sha256(one.key_hash + two.key_hash)[:16],
            "node_a_hash": one.key_hash,
            "node_b_hash": two.key_hash,
            "issued_ms": self.platform_ms(self.now),
            "expires_ms": self.platform_ms(self.now) + DAY_MS,
            "kbit_s": 0,
        }
        signer = changes.pop("signer", self.dc_identity.sign_private)
        return sign_grant(signer, self.platform.id, **{**fields, **changes})

    def pump(self) -> None:
        """Deliver until nobody has anything to say."""
        for _ in range(10_000):
            self._collect()
            if not self.bus:
                return
            source, destination, data = self.bus.popleft()
            if source in self.cut or destination in self.cut:
                continue
            for number, at in RELAY.items():
                if destination == at:
                    self.core.handle(DatagramReceived(data, number, source), self.now)
            if destination in self.stations:
                station, number = self.stations[destination]
                station.receive(data, number, source)
        raise AssertionError("the bus never falls silent")

    def _collect(self) -> None:
        due = self.core.deadline()
        if due is not None and due <= self.now:
            self.core.handle_deadline(self.now)
        for command in self.core.take_commands():
            if isinstance(command, Store) and command.value is not None:
                self.stored[command.key] = command.value
            if isinstance(command, SendDatagram):
                self.sent += len(command.data)
                source = RELAY[command.path.socket]
                self.bus.append((source, command.path.remote, command.data))
        for station in dict.fromkeys(station for station, _ in self.stations.values()):
            station.work()

    def wait(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass; everybody's deadlines are served."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            deadline = self.core.deadline()
            if deadline is not None and deadline <= self.now:
                self.core.handle_deadline(self.now)
            for station in dict.fromkeys(station for station, _ in self.stations.values()):
                due = station.engine.deadline()
                if due is not None and due <= self.now:
                    station.engine.handle_deadline(self.now)
            self.pump()
