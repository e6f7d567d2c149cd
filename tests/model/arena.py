"""The world of a history, and what was done to it: the reference state."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from ntmd.node.commands import RenewCertificate
from ntmd.node.inputs import CertificateRenewed, ClockRead, CommandFailed
from tests.model.places import EVERY, Place
from tests.sim.link import Packet, Shape
from tests.sim.machine import ROUTE_DELAY
from tests.sim.node import SimNode
from tests.sim.process import Process
from tests.sim.servers import SimServer
from tests.sim.story import NODE_LINK, Stage
from tests.sim.world import Network

PEERS, RELAYS, COORDINATOR = 0, 1, 2  # what a firewall may eat UDP towards
NAMES = ("eth0", "wlan0")
HOME, AWAY = "home.test", "away.test"
PAST = 4
CAME = 100  # datagrams that are kept, for whoever wants to send them again


@dataclass(eq=False)
class Wire:
    """An attachment of a node: where to, and what was done to it."""

    name: str
    place: Place
    network: Network
    since: float
    silent: str = ""  # "both" ways, "up" (what the node sends is lost) or "down"
    eats: set[int] = field(default_factory=set)
    shape: Shape = NODE_LINK
    usable_at: float = -1e9  # when its route is there, and what it holds back has been let go
    came: deque[Packet] = field(default_factory=lambda: deque(maxlen=CAME))
    known_at: float = -1e9  # when both ends had last had the time to tell each other of it

    def passes(self, what: int) -> bool:
        """Whether datagrams towards and from ``what`` get through."""
        udp = self.place.udp or what != PEERS  # servers are spoken to over TLS
        return udp and not self.silent and what not in self.eats


@dataclass(eq=False)
class Server:
    """A server: dead (no process), a black hole (nothing gets there), or serving."""

    process: SimServer
    up: bool = True
    hole: bool = False
    since: float = 0.0

    @property
    def serves(self) -> bool:
        """Whether it would answer."""
        return self.up and not self.hole


class Member:
    """A node and its attachments, best first."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.stands_until = -1e9
        self.wires: dict[str, Wire] = {}
        self.past: list[tuple[Place, Network, tuple[int, ...]]] = []
        self.renewed = 0

    def usable(self, towards: int) -> list[Wire]:
        """Wires over which ``towards`` can be spoken to."""
        now = self.node.host.world.clock.now
        return [w for w in self.wires.values() if w.usable_at <= now and w.passes(towards)]


class Arena:
    """Two nodes, a coordinator, two relays and an account server.

    ``first``: where the two begin; a third place has a third node there, and the servers listen for
    TLS too, so that the two may come to places without UDP. With an odd seed that node is of
    another domain, whose servers nothing happens to. Of eight thousand seeds, with one thousand
    each socket gets a port of its own, as from most kernels: who starts again is somewhere else.
    """

    def __init__(self, seed: int, first: tuple[str, ...]) -> None:
        self.stage = Stage(seed, keep_trace=False)
        self.clock = self.stage.world.clock
        self.rich = len(first) > 2
        self.fresh_ports = seed // 1000 % 8 == 6
        domain = self.stage.domain(tls=self.rich)
        self.dc = Server(domain.dc)
        self.relays = (Server(domain.rs), Server(self.stage.relay("rs2", tls=self.rich)))
        self.account_serves = True
        self.members = [
            self._member(label, kind) for label, kind in zip("ab", first[:2], strict=True)
        ]
        self.foreign = self.rich and seed % 2 == 1
        if self.foreign:
            self.stage.domain(AWAY, tls=True)
            self.stage.directory()
        domain_of_third = AWAY if self.foreign else HOME
        self.third = self._member("c", first[2], domain_of_third).node if self.rich else None
        self.stage.all_up()
        if self.foreign and self.third is not None:  # by its address alone nobody finds it
            for member in self.members:
                member.node.resolve(self.third.name)
        self.addresses = [member.node.address for member in self.members]

    def _member(self, label: str, kind: str, domain: str = HOME) -> Member:
        place = EVERY[kind]
        network, families = place.build(self.stage)
        node = self.stage.node(
            label, network, domain=domain, families=families, fresh_ports=self.fresh_ports
        )
        member = Member(node)
        self._wire(member, "eth0", place, network)
        return member

    # -------------------------------------------------------------- wires

    def join(
        self,
        member: Member,
        name: str,
        where: str,
        metric: int = 100,
        again: Any = None,
        late: float = 0.0,
    ) -> Wire:
        """Attach to a new network of kind ``where``, or to one of before (``again``)."""
        if again is None:
            place = EVERY[where]
            network, families = place.build(self.stage)
        else:
            place, network, families = again
        member.node.host.attach(
            name,
            network,
            NODE_LINK,
            metric=metric,
            families=families,
            route_after=ROUTE_DELAY + late,
        )
        wire = self._wire(member, name, place, network)
        wire.usable_at = self.clock.now + late
        return wire

    def _wire(self, member: Member, name: str, place: Place, network: Network) -> Wire:
        wire = member.wires[name] = Wire(name, place, network, self.clock.now)
        interface = member.node.host.interfaces[name]
        interface.up.script = lambda packet: self._fate(wire, "up", packet.destination.host)
        interface.down.script = lambda packet: self._comes(wire, packet)
        self.sort(member)
        return wire

    def sort(self, member: Member) -> None:
        """The best wire first."""
        ordered = sorted(member.wires.values(), key=lambda w: self._metric(member, w))
        member.wires = {each.name: each for each in ordered}

    def _metric(self, member: Member, wire: Wire) -> tuple[int, int]:
        interface = member.node.host.interfaces[wire.name]
        return interface.metric, interface.index

    def _comes(self, wire: Wire, packet: Packet) -> int | None:
        if not packet.tcp:
            wire.came.append(packet)
        return self._fate(wire, "down", packet.source.host)

    def _fate(self, wire: Wire, way: str, remote: str) -> int | None:
        if wire.silent in ("both", way):
            return 0
        if wire.eats and self._sort(remote) in wire.eats:
            return 0
        return None

    def _sort(self, remote: str) -> int:
        if any(remote in _addresses(relay.process) for relay in self.relays):
            return RELAYS
        return COORDINATOR if remote in _addresses(self.dc.process) else PEERS

    def leave(self, member: Member, name: str) -> None:
        """The link is gone."""
        wire = member.wires.pop(name)
        families = tuple(member.node.host.interfaces[name].addresses)
        member.past = [*member.past, (wire.place, wire.network, families)][-PAST:]
        member.node.host.detach(name)

    def shape(self, member: Member, shape: Shape) -> None:
        """Change all links of a node."""
        for wire in member.wires.values():
            wire.shape = shape
            interface = member.node.host.interfaces[wire.name]
            interface.up.shape = interface.down.shape = shape

    # -------------------------------------------------------------- servers

    def set_server(self, server: Server, *, up: bool | None = None, hole: bool = False) -> None:
        """Kill, start, black-hole or heal a server."""
        if up is not None and up != server.up:
            server.up = up
            if up:
                server.process.start()
            else:
                server.process.crash()
        server.hole = hole
        for interface in server.process.host.interfaces.values():
            interface.up.up = interface.down.up = not hole
        server.since = self.clock.now

    def account(self) -> None:
        """The account server renews what was asked for, if it is there."""
        for member in self.members:
            for wish in member.node.renewals[member.renewed :]:
                self.clock.after(wish.after, lambda m=member, w=wish: self._renew(m, w))  # type: ignore[misc]
            member.renewed = len(member.node.renewals)

    def _renew(self, member: Member, wish: RenewCertificate) -> None:
        if not self.account_serves:
            member.node.post(CommandFailed("RenewCertificate", 111, "account server silent"))
            return
        node = member.node
        leaf = self.stage.platform.renew(node.identity)
        node.identity = replace(node.identity, certificates=(leaf,))
        node.post(CertificateRenewed((leaf,)))

    # -------------------------------------------------------------- clocks

    def wall(self, member: Member, by: float) -> None:
        """The wall clock is set by ``by`` seconds."""
        host = member.node.host
        host.skew_ms += int(by * 1000)
        member.node.post(ClockRead(host.wall_ms()))

    def processes(self) -> list[Process]:
        """Everything that runs or may run."""
        return [
            *(member.node for member in self.members),
            self.dc.process,
            *(relay.process for relay in self.relays),
        ]


def _addresses(process: Process) -> tuple[str, ...]:
    eth = process.host.interfaces["eth0"]
    return tuple(eth.addresses.values())
