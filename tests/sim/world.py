"""Networks, routers and hosts: where a packet goes, and what stands in its way.

A :class:`Network` is a broadcast domain. The public Internet is one; a home behind a NAT is
another, joined by a :class:`Router`. Packets are bytes between two endpoints and nothing else: what
a node knows, it learned from datagrams.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from ntmd.proto.nat64 import Prefix
from tests.sim.clock import Clock
from tests.sim.link import Link, Packet, Shape
from tests.sim.machine import Host
from tests.sim.nat import Firewall, Nat, NatKind
from tests.sim.trace import Trace

NO_DELAY = Shape()
NAT64_PREFIX = Prefix(ipaddress.IPv6Address("64:ff9b::").packed, 96)  # RFC 6052 section 2.1


class Port(Protocol):
    """Whatever has an address in a network."""

    def arrive(self, packet: Packet) -> None:
        """A packet for one of its addresses."""


class Network:
    """A broadcast domain with at most one prefix of each family, and perhaps a way out."""

    def __init__(self, world: World, name: str, *, v4: str = "", v6: str = "") -> None:
        self.name = name
        self.world = world
        self.gateway: Router | None = None
        self.taps: list[Callable[[Packet], bool | None]] = []
        self.drops: Counter[str] = Counter()
        self._pools = {
            4: ipaddress.IPv4Network(v4).hosts() if v4 else None,
            6: ipaddress.IPv6Network(v6).hosts() if v6 else None,
        }
        self._ports: dict[str, Port] = {}
        self._routes: list[tuple[ipaddress.IPv6Network, Router]] = []
        self.v6 = v6
        self.prefix_length = {
            4: ipaddress.IPv4Network(v4).prefixlen if v4 else 0,
            6: ipaddress.IPv6Network(v6).prefixlen if v6 else 0,
        }

    def families(self) -> tuple[int, ...]:
        """The address families this network speaks."""
        return tuple(family for family in (4, 6) if self._pools[family] is not None)

    def allocate(self, family: int) -> str:
        """A fresh address; none is given out twice in a run."""
        pool = self._pools[family]
        if pool is None:
            raise ValueError(f"network {self.name} has no IPv{family}")
        return str(next(pool))

    def join(self, address: str, port: Port) -> None:
        """Packets for ``address`` go to ``port``."""
        if address in self._ports:
            raise ValueError(f"{address} is taken in {self.name}")
        self._ports[address] = port

    def leave(self, address: str) -> None:
        """Nobody has ``address`` any more."""
        self._ports.pop(address, None)

    def route(self, prefix: str, router: Router) -> None:
        """A prefix that lies behind ``router``."""
        self._routes.append((ipaddress.IPv6Network(prefix), router))

    def forward(self, packet: Packet, sender: Router | None = None) -> None:
        """Bring a packet that is on this network to whoever has its destination, or outwards."""
        for tap in self.taps:
            if tap(packet) is False:
                self.drops["tap"] += 1
                return
        port = self._ports.get(packet.destination.host)
        if port is not None:
            port.arrive(packet)
            return
        if packet.destination.family == 6:
            for prefix, router in self._routes:
                if router is not sender and _within(packet.destination.host, prefix):
                    router.arrive(packet)
                    return
        if self.gateway is not None and self.gateway is not sender:
            self.gateway.leave(packet)
            return
        self.drops["no_route"] += 1


@lru_cache(4096)
def _within(address: str, prefix: ipaddress.IPv6Network) -> bool:
    return ipaddress.IPv6Address(address) in prefix


class Router:
    """Joins ``inside`` to ``outside``: IPv4 through a NAT (if any), IPv6 through a firewall."""

    def __init__(
        self,
        inside: Network,
        outside: Network,
        kind: NatKind | None,
        firewall: bool = True,
        shape: Shape = NO_DELAY,
    ) -> None:
        world = inside.world
        self.inside, self.outside = inside, outside
        self.nat: Nat | None = None
        self.nat64: Nat | None = None
        self.grants_ports = False  # whether hosts may ask for port mappings
        self.answers_after = 0.02  # how long it takes to find out what it offers, seconds
        self.up = Link(world.clock, f"{inside.name} up", shape)
        self.down = Link(world.clock, f"{inside.name} down", shape)
        if kind is not None:
            address = outside.allocate(4)
            self.nat = Nat(world.clock, inside.name, kind, address)
            outside.join(address, self)
        self.firewall = Firewall(world.clock) if firewall else None
        if inside.v6:
            outside.route(inside.v6, self)
        inside.gateway = self
        world.routers.append(self)

    def add_nat64(self, kind: NatKind) -> None:
        """Let IPv6 hosts of the inside reach IPv4 through :data:`NAT64_PREFIX` (RFC 6146)."""
        address = self.outside.allocate(4)
        self.nat64 = Nat(self.inside.world.clock, f"{self.inside.name} nat64", kind, address)
        self.outside.join(address, self)

    def leave(self, packet: Packet) -> None:
        """A packet of the inside for somewhere else."""
        four = NAT64_PREFIX.native(packet.destination) if self.nat64 else None
        if four is not None and self.nat64 is not None:
            out = self.nat64.outbound(Packet(packet.source, four, packet.data))
            self.up.carry(out, lambda out: self.outside.forward(out, self))
        elif packet.source.family == 6:
            passed = self.firewall.outbound(packet) if self.firewall else packet
            self.up.carry(passed, lambda out: self.outside.forward(out, self))
        elif self.nat is not None:
            if packet.destination.host == self.nat.address:
                self._hairpin(packet)
                return
            translated = self.nat.outbound(packet)
            self.up.carry(translated, lambda out: self.outside.forward(out, self))
        else:
            self.inside.drops["no_route"] += 1

    def arrive(self, packet: Packet) -> None:
        """A packet from outside."""
        self.down.carry(packet, self._enter)

    def rebind(self, *, new_address: bool = False) -> None:
        """The NAT or firewall restarts, perhaps with another outside address."""
        if self.firewall is not None:
            self.firewall.rebind()
        if self.nat is None:
            return
        if new_address:
            self.outside.leave(self.nat.address)
            self.nat.rebind(self.outside.allocate(4))
            self.outside.join(self.nat.address, self)
        else:
            self.nat.rebind()

    def _hairpin(self, packet: Packet) -> None:
        assert self.nat is not None
        if not self.nat.kind.hairpin:
            self.nat.drops["hairpin"] += 1
            return
        turned = self.nat.inbound(self.nat.outbound(packet))
        if turned is not None:
            self.inside.forward(turned, self)

    def _enter(self, packet: Packet) -> None:
        passed: Packet | None = packet
        if packet.destination.family == 6:
            passed = self.firewall.inbound(packet) if self.firewall else packet
        elif self.nat64 is not None:
            passed = self.nat64.inbound(packet)
            if passed is not None:
                source = NAT64_PREFIX.synthesise(passed.source)
                passed = Packet(source, passed.destination, passed.data)
        elif self.nat is not None:
            passed = self.nat.inbound(packet)
        if passed is not None:
            self.inside.forward(passed, self)


class World:
    """One Internet with everything on it, and its clock and trace."""

    def __init__(self, seed: int = 1, *, keep_trace: bool = True) -> None:
        self.clock = Clock(seed)
        self.trace = Trace(keep=keep_trace)
        self.hosts: dict[str, Host] = {}
        self.routers: list[Router] = []
        self.internet = Network(self, "internet", v4="198.18.0.0/15", v6="2001:db8:0::/64")
        self._homes = 0

    def host(self, name: str, *, skew_ms: int = 0) -> Host:
        """A new machine, attached to nothing; its boot clock began at an instant of its own."""
        boot = round(self.clock.stream(f"boot {name}").uniform(50.0, 500_000.0), 3)
        self.hosts[name] = Host(self, name, boot, skew_ms)
        return self.hosts[name]

    def home(
        self,
        kind: NatKind | None,
        *,
        v6: bool = False,
        firewall: bool = True,
        outside: Network | None = None,
        shape: Shape = NO_DELAY,
        name: str = "",
    ) -> Network:
        """A private network: IPv4 behind a NAT of ``kind`` (None: no IPv4), IPv6 behind a firewall.

        ``outside`` another home makes a cascade of NATs.
        """
        self._homes += 1
        number = self._homes
        network = Network(
            self,
            name or f"home{number}",
            v4=f"10.{number}.0.0/24" if kind is not None else "",
            v6=f"2001:db8:{number:x}::/64" if v6 else "",
        )
        Router(network, outside or self.internet, kind, firewall, shape)
        return network

    def run(self, seconds: float, done: Callable[[], bool] | None = None) -> bool:
        """Let virtual time pass; stops early when ``done()`` comes to hold."""
        return self.clock.run(seconds, done)
