"""A platform on the simulated Internet: coordinators, relays and nodes in one call each."""

from __future__ import annotations

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
from ntm_rs.core import RsCore, RsSettings
from ntm_rs.home import HomeDc
from ntmd.node.settings import Home
from ntmd.proto.types import Endpoint
from tests.sim.link import Shape
from tests.sim.machine import Host
from tests.sim.nat import NatKind
from tests.sim.node import SimNode
from tests.sim.platform import DcIdentity, Platform
from tests.sim.process import Birth
from tests.sim.servers import SimServer
from tests.sim.world import Network, World

DC_PORT, RS_PORT, PROBE_PORT = 4330, 4331, 4332
DNS_DELAY = 0.02


class SimDc(SimServer):
    """A coordinator; its table of nodes outlives a crash."""

    def __init__(self, host: Host, own: DcIdentity, town: Town, ports: dict[int, Any]) -> None:
        self.own, self.town = own, town
        self.rows: dict[str, StoredNode] = {}
        super().__init__(host, own.identity.name, ports, self._build)

    def _build(self, birth: Birth) -> DcCore:
        settings = DcSettings(
            self.own.domain,
            tuple(at for number, at in self.ports.items() if number < 100),
            tuple(at for number, at in self.ports.items() if number > 100),
        )
        return DcCore(
            settings,
            self.own.identity,
            self.own.sign_private,
            self.own.sign_certificate,
            self.own.prefix,
            self.town.platform.trust,
            DcState(tuple(self.rows.values()), birth.stored),
            random=birth.random,
            now=birth.now,
            wall_ms=birth.wall_ms,
        )

    def execute_other(self, command: Any) -> None:
        """The table of nodes and the DNS."""
        match command:
            case StoreNode(node=node):
                self.rows[node.name] = node
            case ForgetNode(name=name):
                self.rows.pop(name, None)
            case Flush(ticket=ticket):
                self.post(Flushed(ticket))
            case LookupDomain():
                self.host.world.clock.after(DNS_DELAY, lambda: self._resolved(command))
            case _:
                super().execute_other(command)

    def _resolved(self, asked: LookupDomain) -> None:
        self.post(self.town.dns(asked))


class Town:
    """Everything a story needs; hosts hang on the public Internet unless told otherwise."""

    def __init__(self, seed: int = 1, *, delay: float = 0.010) -> None:
        self.world = World(seed)
        self.platform = Platform(self.world.clock)
        self.shape = Shape(delay=delay)
        self.dcs: dict[str, SimDc] = {}
        self.relays: dict[str, SimServer] = {}
        self.nodes: dict[str, SimNode] = {}
        self.dns_entries: dict[str, tuple[DomainTarget, ...]] = {}
        self.dns_works = True

    # -------------------------------------------------------------- servers

    def domain(self, domain: str, *, relay: bool = True) -> SimDc:
        """A domain: its coordinator and one relay on the same dual-stack machine."""
        own = self.platform.dc(f"dc.{domain}", domain)
        host = self.world.host(f"server.{domain}")
        attached = host.attach("eth0", self.world.internet, self.shape)
        hosts = [attached.addresses[family] for family in (4, 6)]
        ports = {n: (at, DC_PORT) for n, at in enumerate(hosts, 1)}
        ports |= {100 + n: (at, PROBE_PORT) for n, at in enumerate(hosts, 1)}
        coordinator = SimDc(host, own, self, ports)
        self.dcs[domain] = coordinator
        endpoints = tuple(Endpoint(at, DC_PORT) for at in hosts)
        self.dns_entries[domain] = (DomainTarget(own.identity.name, own.peer.key, endpoints),)
        coordinator.start()
        if relay:
            self._relay(domain, own, host, hosts, endpoints).start()
        return coordinator

    def _relay(
        self,
        domain: str,
        own: DcIdentity,
        host: Host,
        hosts: list[str],
        coordinator: tuple[Endpoint, ...],
    ) -> SimServer:
        identity = self.platform.rs(f"rs1.{domain}", domain)
        ports = {n: (at, RS_PORT) for n, at in enumerate(hosts, 1)}
        listen = {n: Endpoint(*at) for n, at in ports.items()}

        def build(birth: Birth) -> RsCore:
            return RsCore(
                RsSettings(self.platform.id),
                identity,
                self.platform.trust,
                HomeDc(own.peer, coordinator, own.sign_certificate),
                listen,
                random=birth.random,
                now=birth.now,
                wall_ms=birth.wall_ms,
            )

        self.relays[domain] = SimServer(host, identity.name, ports, build)
        return self.relays[domain]

    def directory(self) -> None:
        """The account server tells every coordinator of all of them."""
        entries = tuple(
            DirectoryEntry(dc.own.identity.certificates[0], self.dns_entries[domain][0].endpoints)
            for domain, dc in self.dcs.items()
        )
        for coordinator in self.dcs.values():
            coordinator.post(DirectoryUpdated(entries))

    def dns(self, asked: LookupDomain) -> DomainResolved:
        """What the recursive resolver answers."""
        if not self.dns_works:
            return DomainResolved(asked.token, "", (), "no answer from the DNS")
        for suffix in asked.suffixes:
            if suffix in self.dns_entries:
                return DomainResolved(asked.token, suffix, self.dns_entries[suffix])
        return DomainResolved(asked.token, "", (), "no such domain")

    # -------------------------------------------------------------- nodes

    def node(
        self,
        name: str,
        network: Network | None = None,
        *,
        domain: str = "home.test",
        families: tuple[int, ...] | None = None,
    ) -> SimNode:
        """A node that is enrolled but not started."""
        own = self.dcs[domain].own
        host = self.world.host(f"{name}.{domain}")
        host.attach("eth0", network or self.world.internet, self.shape, families=families)
        endpoints = self.dns_entries[domain][0].endpoints
        home = Home(domain, own.peer, endpoints, own.sign_certificate, tuple(self.dcs))
        identity = self.platform.node(f"{name}.{domain}", domain)
        made = SimNode(host, identity, self.platform.trust, home)
        self.nodes[name] = made
        return made

    def up(self, *nodes: SimNode, within: float = 10.0) -> None:
        """Start nodes and wait until all are registered."""
        for node in nodes:
            node.start()
        ready = self.world.run(within, lambda: all(each.state == "up" for each in nodes))
        assert ready, {each.name: (each.states, each.told[-5:]) for each in nodes}

    def behind(self, kind: NatKind | None, *, v6: bool = False) -> Network:
        """A fresh home network."""
        return self.world.home(kind, v6=v6)

    def run(self, seconds: float, done: Callable[[], bool] | None = None) -> bool:
        """Let virtual time pass."""
        return self.world.run(seconds, done)

    # -------------------------------------------------------------- what a story looks at

    def resolve(self, asker: SimNode, name: str, within: float = 6.0) -> tuple[bytes | None, float]:
        """Ask the stub; the address (None: refused) and the seconds it took."""
        began = self.world.clock.now
        token = asker.resolve(name)
        assert self.world.run(within, lambda: token in asker.names), "the stub never answered"
        return asker.names[token].address, self.world.clock.now - began

    def path_kind(self, node: SimNode, peer: str) -> str:
        """``direct``, ``relay`` or ``none``, as the status says."""
        answers = node.ask("status")
        self.world.run(0.001)
        for entry in answers[0].result["peers"]:
            if entry["name"] == peer:
                return str(entry["path"]["kind"])
        return "none"
