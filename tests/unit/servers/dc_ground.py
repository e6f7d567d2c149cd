"""Coordinators with nodes, relays and a DNS around them, on a bus that may lose datagrams."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from ntm_dc.core import DcCore
from ntm_dc.values import (
    DcSettings,
    DcState,
    DirectoryEntry,
    DirectoryUpdated,
    DomainResolved,
    DomainTarget,
    Flush,
    Flushed,
    ForgetNode,
    LookupDomain,
    StoredNode,
    StoreNode,
)
from ntmd.proto import messages as m
from ntmd.proto.crypto import public_key
from ntmd.proto.events import (
    CallFailed,
    Established,
    Identity,
    MessageReceived,
    OpenPolicy,
    Replied,
    RequestFailed,
)
from ntmd.proto.io import DatagramReceived, SendDatagram, Store, UserAnswered
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import CandidateKind, Endpoint, NatFiltering, NatMapping, Path, Peer, Role
from tests.sim.clock import EPOCH_MS, Clock
from tests.sim.platform import DcIdentity, Platform

MAPPINGS, FILTERINGS = tuple(NatMapping), tuple(NatFiltering)


def nat(mapping: str = "endpoint-independent", filtering: str = "unknown") -> m.NatView:
    """A NatView by RFC 4787's words."""
    return m.NatView(MAPPINGS.index(NatMapping(mapping)), FILTERINGS.index(NatFiltering(filtering)))


class Station:
    """A node or a relay: an engine, and a script of how it answers."""

    def __init__(
        self, ground: Ground, identity: Identity, dc: Box, endpoint: Endpoint, born: int = 0
    ) -> None:
        self.ground, self.identity, self.dc = ground, identity, dc
        self.at = {1: endpoint}
        self.events: list[Any] = []
        self.replies: dict[int, Any] = {}
        self.directed: list[m.RouteDirection] = []
        self.respond: Callable[[m.RouteDirection], int | None] = lambda _: int(m.Status.OK)
        self.nat = nat()
        self.capabilities = identity.capabilities
        self.home_relay = ""
        self.registers = False
        self.legs = 0
        self.registered: m.Registered | None = None
        self.engine = SessionEngine(
            identity,
            ground.platform.trust,
            OpenPolicy((Role.DC,)),
            random=ground.clock.stream(f"{identity.name} {born}").randbytes,
            platform_ms=ground.platform_ms,
            sequencer=Sequencer(0, lambda mark: None),
        )
        self.handle = -1
        ground.stations.append(self)

    @property
    def key(self) -> bytes:
        return public_key(self.identity.private_key)

    def call(self) -> None:
        self.handle = self.engine.call(
            self.dc.given.peer, [Path(1, self.dc.listen[0])], self.ground.now
        )
        self.ground.pump()

    def ask(self, request: Any, wait: float = 8.0) -> Any:
        number = self.engine.ask(self.handle, request, self.ground.now, timeout=wait)
        self.ground.wait(wait, lambda: number in self.replies)
        return self.replies.get(number)

    def join(self, *hosts: str) -> m.Registered:
        """Shake hands and register."""
        self.registers = True
        self.hosts = hosts
        self.call()
        self.ground.wait(3.0, lambda: self.registered is not None)
        assert self.registered is not None
        return self.registered

    def register(self) -> m.Register:
        own = (
            *(m.CandidateField(int(CandidateKind.HOST), Endpoint(h, 5000)) for h in self.hosts),
            m.CandidateField(int(CandidateKind.REFLEXIVE), self.at[1]),
        )
        return m.Register(0, own, self.nat, self.capabilities, self.home_relay, 600)

    def receive(self, data: bytes, socket: int, source: Endpoint) -> None:
        self.engine.receive(data, socket, source, self.ground.now)

    def work(self) -> None:
        for output in self.engine.take_outputs():
            if isinstance(output, SendDatagram):
                self.ground.put(self.at[output.path.socket], output.path.remote, output.data)
                continue
            self.events.append(output)
            self._event(output)

    def _event(self, output: Any) -> None:
        now = self.ground.now
        match output:
            case Replied(request_id=number, reply=reply):
                self.replies[number] = reply
                if isinstance(reply, m.RouteDirectionToCaller) and reply.route is not None:
                    self.ground.order.append("caller told")
                if isinstance(reply, m.Registered):
                    self.registered = reply
            case RequestFailed(request_id=number):
                self.replies[number] = None
            case Established(handle=handle, path=path):
                self.handle = handle
                self.engine.set_primary(handle, path)
                if self.identity.role is Role.RS:
                    self.engine.ask(handle, m.RelayRegister(0, (self.at[1],), self.legs, 0), now)
                if self.registers:
                    self.engine.ask(handle, self.register(), now)
            case MessageReceived(message=m.Probe(nonce=nonce)):
                self.engine.tell(output.handle, m.Answer(nonce, output.path.remote), now)
            case MessageReceived(message=m.RouteDirection() as request):
                self.directed.append(request)
                self.ground.order.append(f"called {self.identity.name}")
                status = self.respond(request)
                if status is not None:
                    reply = m.RouteDirectionResponse(request.id, status)
                    self.engine.reply(output, reply, now)

    def failures(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, CallFailed)]


class Box:
    """A coordinator as a machine: its core, what it stored, its DNS."""

    def __init__(
        self, ground: Ground, given: DcIdentity, host: str, durable: bool, rate: float
    ) -> None:
        self.ground, self.given, self.durable = ground, given, durable
        self.listen = (Endpoint(host, 4330),)
        self.probe = (Endpoint(host, 4332),)
        self.rate = rate
        self.rows: dict[str, StoredNode] = {}
        self.values: dict[str, bytes] = {}
        self.tickets: list[int] = []
        self.lookups: list[LookupDomain] = []
        self.answers: dict[int, UserAnswered] = {}
        self.births = 0
        self.up = True
        self.core = self.start()

    def start(self) -> DcCore:
        self.births += 1
        self.core = DcCore(
            DcSettings(
                self.given.domain,
                self.listen,
                self.probe,
                directions_per_node=self.rate,
                **self.ground.settings,
            ),
            self.given.identity,
            self.given.sign_private,
            self.given.sign_certificate,
            self.given.prefix,
            self.ground.platform.trust,
            DcState(tuple(self.rows.values()), dict(self.values)),
            random=self.ground.clock.stream(f"{self.given.domain} {self.births}").randbytes,
            now=self.ground.now,
            wall_ms=self.ground.platform_ms(self.ground.now),
        )
        return self.core

    @property
    def events(self) -> Counter[str]:
        return Counter(self.core.status(self.ground.now)["events"])

    def work(self) -> None:
        for command in self.core.take_commands():
            match command:
                case SendDatagram(data=data, path=path):
                    own = self.core.settings.sockets()[path.socket]
                    self.ground.put(own, path.remote, data)
                case StoreNode(node=node):
                    self.rows[node.name] = node
                case ForgetNode(name=name):
                    self.rows.pop(name, None)
                case Store(key=key, value=value):
                    self.values[key] = value or b""
                case Flush(ticket=ticket):
                    self.tickets.append(ticket)
                    if self.durable:
                        self.flush()
                case LookupDomain():
                    self.lookups.append(command)
                    answer = self.ground.resolve(command)
                    if answer is not None:
                        self.core.handle(answer, self.ground.now)
                case UserAnswered(token=token):
                    self.answers[token] = command

    def flush(self, error: str = "") -> None:
        while self.tickets:
            self.core.handle(Flushed(self.tickets.pop(0), error), self.ground.now)

    def receive(self, data: bytes, destination: Endpoint, source: Endpoint) -> None:
        for number, own in self.core.settings.sockets().items():
            if own == destination:
                self.core.handle(DatagramReceived(data, number, source), self.ground.now)


class Ground:
    """Everything in one process; time moves only by :meth:`wait`."""

    def __init__(self, seed: int = 7, loss: float = 0.0, **settings: Any) -> None:
        self.settings = settings
        self.clock = Clock(seed)
        self.dice = self.clock.stream("loss")
        self.loss = loss
        self.now = 1000.0
        self.platform = Platform(self.clock)
        self.bus: deque[tuple[Endpoint, Endpoint, bytes]] = deque()
        self.stations: list[Station] = []
        self.boxes: list[Box] = []
        self.cut: set[Endpoint] = set()
        self.order: list[str] = []
        self.zones: dict[str, tuple[DomainTarget, ...]] = {}
        self.dns: str = "up"  # "up", "silent", or an error
        self._hosts = 0

    def platform_ms(self, now: float) -> int:
        return EPOCH_MS + int((now - 1000.0) * 1000)

    def box(self, domain: str, host: str, durable: bool = True, rate: float = 10.0) -> Box:
        given = self.platform.dc(f"dc.{domain}", domain)
        box = Box(self, given, host, durable, rate)
        self.boxes.append(box)
        key = public_key(given.identity.private_key)
        self.zones[domain] = (DomainTarget(f"dc.{domain}", key, box.listen),)
        return box

    def node(self, name: str, dc: Box, **changes: Any) -> Station:
        identity = self.platform.node(name, changes.pop("domain", dc.given.domain), **changes)
        self._hosts += 1
        return Station(self, identity, dc, Endpoint(f"203.0.113.{self._hosts}", 5000))

    def relay(self, name: str, dc: Box, legs: int = 0) -> Station:
        identity = self.platform.rs(name, dc.given.domain)
        self._hosts += 1
        station = Station(self, identity, dc, Endpoint(f"203.0.113.{self._hosts}", 4331))
        station.legs = legs
        station.call()
        self.wait(3.0, lambda: bool(station.replies))
        assert [reply.status for reply in station.replies.values()] == [m.Status.OK]
        return station

    def directory(self, *boxes: Box, endpoints: bool = False) -> DirectoryUpdated:
        return DirectoryUpdated(
            tuple(
                DirectoryEntry(box.given.identity.certificates[0], box.listen if endpoints else ())
                for box in boxes
            )
        )

    def resolve(self, wish: LookupDomain) -> DomainResolved | None:
        if self.dns == "silent":
            return None
        if self.dns != "up":
            return DomainResolved(wish.token, "", (), self.dns)
        for suffix in wish.suffixes:
            if suffix in self.zones:
                return DomainResolved(wish.token, suffix, self.zones[suffix])
        return DomainResolved(wish.token, "", (), "no such domain")

    def put(self, source: Endpoint, destination: Endpoint, data: bytes) -> None:
        if source in self.cut or destination in self.cut:
            return
        if self.loss and self.dice.random() < self.loss:
            return
        self.bus.append((source, destination, data))

    def pump(self) -> None:
        """Deliver until nobody has anything to say."""
        for _ in range(200_000):
            workers: list[Box | Station] = [*self.boxes, *self.stations]
            for each in workers:
                if not isinstance(each, Box) or each.up:
                    each.work()
            if not self.bus:
                return
            source, destination, data = self.bus.popleft()
            for box in self.boxes:
                if box.up:
                    box.receive(data, destination, source)
            for station in self.stations:
                if destination in station.at.values():
                    station.receive(data, 1, source)
        raise AssertionError("the bus never falls silent")

    def wait(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass in steps of what is due; whether ``done()`` came to hold."""
        end = self.now + seconds
        self.pump()
        while self.now < end and not done():
            due = [box.core.deadline() for box in self.boxes if box.up]
            due += [station.engine.deadline() for station in self.stations]
            self.now = min([end, *(max(at, self.now) for at in due if at is not None)])
            for box in self.boxes:
                at = box.core.deadline()
                if box.up and at is not None and at <= self.now:
                    box.core.handle_deadline(self.now)
            for station in self.stations:
                at = station.engine.deadline()
                if at is not None and at <= self.now:
                    station.engine.handle_deadline(self.now)
            self.pump()
        return done()

    def peer(self, box: Box) -> Peer:
        return box.given.peer
