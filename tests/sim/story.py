"""The usual stage of a story: a domain with its coordinator and relay, and nodes anywhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ntm_dc.values import DcSettings, DirectoryEntry, DirectoryUpdated
from ntm_rs.core import RsCore, RsSettings
from ntm_rs.home import HomeDc
from ntmd.node.settings import Home
from ntmd.proto.frame import Kind
from ntmd.proto.stream import ALPN
from ntmd.proto.types import Endpoint, Role
from tests.sim.coordinator import SimDc
from tests.sim.dns import SimDns
from tests.sim.link import Packet, Shape
from tests.sim.listen import listen
from tests.sim.machine import Host
from tests.sim.nat import NatKind
from tests.sim.node import SimNode
from tests.sim.platform import DcIdentity, Platform
from tests.sim.process import Birth
from tests.sim.servers import SimServer
from tests.sim.world import Network, World

DC_PORT, RS_PORT, PROBE_PORT = 4330, 4331, 4332
TLS_PORT = 443
SERVER_LINK = Shape(delay=0.002)
NODE_LINK = Shape(delay=0.010)
UP_WITHIN = 5.0


@dataclass
class Domain:
    """One domain's servers."""

    name: str
    identity: DcIdentity
    dc: SimDc
    rs: SimServer
    home: Home


class Stage:
    """A world with one platform, a DNS, and as many domains and nodes as a story wants."""

    def __init__(self, seed: int = 1, *, keep_trace: bool = True) -> None:
        self.world = World(seed, keep_trace=keep_trace)
        self.platform = Platform(self.world.clock)
        self.dns = SimDns()
        self.domains: dict[str, Domain] = {}
        self.nodes: dict[str, SimNode] = {}
        self._streamed: Counter[str] = Counter()

    # -------------------------------------------------------------- setting up

    def domain(
        self,
        name: str = "home.test",
        *,
        start: bool = True,
        published: bool = True,
        tls: bool = False,
    ) -> Domain:
        """A coordinator and a relay, each with an address of each family; ``tls``: also on 443."""
        host = self.world.host(f"server.{name}")
        eth = host.attach("eth0", self.world.internet, SERVER_LINK)
        v4, v6 = eth.addresses[4], eth.addresses[6]
        machine = self.world.host(f"relay.{name}")
        second = machine.attach("eth0", self.world.internet, SERVER_LINK)
        listen_at = (Endpoint(v4, DC_PORT), Endpoint(v6, DC_PORT))
        probe_at = tuple(Endpoint(at.host, PROBE_PORT) for at in listen_at)
        identity = self.platform.dc(f"dc.{name}", name)
        tls_at = tuple(Endpoint(at.host, TLS_PORT) for at in listen_at) if tls else ()
        settings = DcSettings(name, listen_at, probe_at, tls_at)
        dc = SimDc(host, identity, self.platform.trust, settings, self.dns)
        relay_at = {n: (second.addresses[family], RS_PORT) for n, family in ((1, 4), (2, 6))}
        rs = self._relay(name, identity, listen_at, relay_at, machine, tls=tls)
        home = Home(name, identity.peer, listen_at, identity.sign_certificate, (name,), tls_at)
        domain = self.domains[name] = Domain(name, identity, dc, rs, home)
        if published:
            self.dns.publish(name, identity.identity.name, identity.peer.key, listen_at)
        if start:
            dc.start()
            rs.start()
            listen(dc)
            listen(rs)
        return domain

    def directory(self, *, endpoints: bool = False) -> None:
        """The account server's list of coordinators reaches each of them (rule C3)."""
        entries = tuple(
            DirectoryEntry(
                domain.identity.identity.certificates[0],
                domain.home.endpoints if endpoints else (),
            )
            for domain in self.domains.values()
        )
        for domain in self.domains.values():
            domain.dc.post(DirectoryUpdated(entries))

    def relay(
        self,
        label: str,
        domain: str = "home.test",
        shape: Shape = SERVER_LINK,
        *,
        tls: bool = False,
    ) -> SimServer:
        """One more relay, on a machine of its own, running; ``tls``: also on 443."""
        host = self.world.host(f"{label} machine of {domain}")
        eth = host.attach("eth0", self.world.internet, shape)
        at = {n: (eth.addresses[family], RS_PORT) for n, family in ((1, 4), (2, 6))}
        there = self.domains[domain]
        server = self._relay(domain, there.identity, there.home.endpoints, at, host, label, tls=tls)
        server.start()
        listen(server)
        return server

    def _relay(
        self,
        domain: str,
        dc: DcIdentity,
        dc_at: tuple[Endpoint, ...],
        at: dict[int, tuple[str, int]],
        host: Host,
        label: str = "rs",
        *,
        tls: bool = False,
    ) -> SimServer:
        identity = self.platform.rs(f"{label}.{domain}", domain)
        tls_at = tuple(Endpoint(where, TLS_PORT) for where, _ in at.values()) if tls else ()
        sockets = {number: Endpoint(*where) for number, where in at.items()}

        def build(birth: Birth) -> RsCore:
            return RsCore(
                RsSettings(self.platform.id, tls=tls_at),
                identity,
                self.platform.trust,
                HomeDc(dc.peer, dc_at, dc.sign_certificate),
                sockets,
                random=birth.random,
                now=birth.now,
                wall_ms=birth.wall_ms,
                stored=birth.stored,
            )

        return SimServer(host, identity.name, at, build, tls_at, ALPN[Role.RS])

    def node(
        self,
        label: str,
        network: Network | None = None,
        *,
        domain: str = "home.test",
        shape: Shape = NODE_LINK,
        families: tuple[int, ...] | None = None,
        start: bool = True,
        skew_ms: int = 0,
        fresh_ports: bool = False,
        **identity: Any,
    ) -> SimNode:
        """A node ``label.domain`` on ``network`` (default: the public Internet)."""
        host = self.world.host(f"{label}.{domain}", skew_ms=skew_ms)
        host.fresh_ports = fresh_ports
        host.attach("eth0", network or self.world.internet, shape, families=families)
        who = self.platform.node(f"{label}.{domain}", domain, **identity)
        node = SimNode(host, who, self.platform.trust, self.domains[domain].home)
        self.nodes[label] = node
        if start:
            node.start()
            listen(node)
        return node

    def place(self, kind: NatKind | str | None) -> tuple[Network, tuple[int, ...] | None]:
        """Where a node of that kind sits: a NatKind, ``"public v4"``, ``"v6"`` or ``"v6 open"``."""
        match kind:
            case "public v4":
                return self.world.internet, (4,)
            case "v6 open":
                return self.world.internet, (6,)
            case "v6":
                return self.world.home(None, v6=True), None
            case NatKind():
                return self.world.home(kind), None
            case other:
                raise ValueError(f"no such place: {other}")

    # -------------------------------------------------------------- letting it happen

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(seconds)

    def all_up(self) -> None:
        """Run until every node is up; fails if one is not in time."""
        nodes = list(self.nodes.values())
        up = self.world.run(UP_WITHIN, lambda: all(n.state == "up" for n in nodes if n.running))
        assert up, {node.name: (node.state, [t.what for t in node.told][-5:]) for node in nodes}
        self.run(1.5)  # NAT tests and relay sessions

    def first_answer(self, caller: SimNode, peer: SimNode, within: float = 6.0) -> float:
        """Ping ``peer`` from cold, each second again; seconds to the first answer."""
        begun = self.world.clock.now

        def answered() -> bool:
            return bool(caller.inner.times("echo", peer.address))

        for number in range(int(within)):
            caller.inner.ping(peer.address, number)
            if self.world.run(1.0, answered):
                return self.world.clock.now - begun
        raise AssertionError(f"no answer within {within} s: {self.explain(caller, peer)}")

    def fresh_answer(self, sender: SimNode, to: SimNode, within: float = 2.0) -> float:
        """Seconds from now to the first answer to a new ping, one sent each 20 ms."""
        begun = self.world.clock.now
        first = 1_000_000 + len(sender.inner.sent)
        for number in range(int(within * 50)):
            sender.inner.ping(to.address, first + number)
            heard = lambda: max(sender.inner.times("echo", to.address), default=0) >= first  # noqa: E731
            if self.world.run(0.02, heard):
                return self.world.clock.now - begun
        raise AssertionError(f"no answer within {within} s: {self.explain(sender, to)}")

    def stream(self, sender: SimNode, to: SimNode, count: int, interval: float = 0.01) -> None:
        """Schedule ``count`` numbered UDP packets; numbers go on over calls."""
        first = self._streamed[sender.name]
        self._streamed[sender.name] += count
        for number in range(count):
            self.world.clock.after(
                number * interval,
                lambda n=first + number: sender.inner.udp(to.address, n),  # type: ignore[misc]
            )

    def streamed(self, sender: SimNode) -> int:
        """How many numbered packets ``sender`` was given so far."""
        return self._streamed[sender.name]

    def status(self, node: SimNode) -> dict[str, Any]:
        """``ntmd status`` of a node."""
        answers = node.ask("status")
        assert answers, "no answer to status"
        assert isinstance(answers[-1].result, dict)
        return answers[-1].result

    def path_kind(self, node: SimNode, peer: SimNode) -> str:
        """``direct``, ``relay`` or ``none``, as ``ntmd status`` says."""
        for entry in self.status(node)["peers"]:
            if entry["name"] == peer.name:
                return str(entry["path"]["kind"])
        return "none"

    def explain(self, *nodes: SimNode) -> dict[str, Any]:
        """What nodes told, for a failed assertion."""
        return {
            node.name: {
                "state": node.state,
                "told": [(told.what, told.fields) for told in node.told][-12:],
                "plane": node.plane.drops,
            }
            for node in nodes
        }


def met_behind(
    kind: NatKind, seed: int = 1, *, after: float = 0.0
) -> tuple[Stage, SimNode, SimNode]:
    """A laptop and a desk, each behind a NAT of this kind, that have just met: ``after`` so many
    seconds of being up, in which both NATs are measured."""
    stage = Stage(seed)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(kind))
    desk = stage.node("desk", stage.world.home(kind))
    stage.all_up()
    stage.run(after)
    stage.first_answer(laptop, desk)
    return stage, laptop, desk


def data_only(packet: Packet) -> bool:
    """Whether a packet is a sealed data frame."""
    return packet.data[:1] == bytes((Kind.DATA,))
