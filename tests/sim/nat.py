"""Middleboxes: a NAT by the words of RFC 4787, and a stateful IPv6 firewall (RFC 6092)."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

from ntmd.proto.types import Endpoint, NatFiltering, NatMapping
from tests.sim.clock import Clock
from tests.sim.link import Packet

FIRST_PORT = 20_000
LAST_PORT = 65_000


@dataclass(slots=True)
class Mapping:
    """One translation: inside endpoint, outside port, and whom it was used towards (with when)."""

    inside: Endpoint
    port: int
    used: float
    towards: dict[Endpoint, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NatKind:
    """How a NAT behaves. ``expiry`` in seconds without outbound packets (REQ-5: >= 120).

    ``step``: each new mapping gets a port so much above the last one; 0: any port.
    """

    mapping: NatMapping = NatMapping.ENDPOINT_INDEPENDENT
    filtering: NatFiltering = NatFiltering.ADDRESS_AND_PORT_DEPENDENT
    expiry: float = 120.0
    preserve: bool = False
    hairpin: bool = False
    refresh_inbound: bool = True
    step: int = 0

    @property
    def name(self) -> str:
        """Short name: initials of mapping and filtering."""
        return f"{self.mapping.value}/{self.filtering.value}"


FULL_CONE = NatKind(filtering=NatFiltering.ENDPOINT_INDEPENDENT)
ADDRESS_RESTRICTED = NatKind(filtering=NatFiltering.ADDRESS_DEPENDENT)
PORT_RESTRICTED = NatKind(preserve=True)
ADDRESS_SYMMETRIC = NatKind(
    mapping=NatMapping.ADDRESS_DEPENDENT, filtering=NatFiltering.ADDRESS_DEPENDENT
)
SYMMETRIC = NatKind(mapping=NatMapping.ADDRESS_AND_PORT_DEPENDENT)
SEQUENTIAL = NatKind(mapping=NatMapping.ADDRESS_AND_PORT_DEPENDENT, step=1)


class Nat:
    """An IPv4 NAT with one outside address; it translates, :mod:`tests.sim.world` moves packets."""

    def __init__(self, clock: Clock, name: str, kind: NatKind, address: str) -> None:
        self.kind = kind
        self.address = address
        self.drops: Counter[str] = Counter()
        self._clock = clock
        self._dice = clock.stream(f"nat {name}")
        self._mappings: dict[tuple[object, ...], Mapping] = {}
        self._ports: dict[int, Mapping] = {}
        self._retired: dict[int, None] = {}
        self._expire_at = 0.0  # nothing expires sooner
        self._granted: dict[Endpoint, Mapping] = {}
        self._next = self._dice.randint(FIRST_PORT, LAST_PORT) if kind.step else 0

    def grant(self, inside: Endpoint) -> Endpoint:
        """Map a port to ``inside`` for everybody, as PCP or UPnP would."""
        mapping = self._granted.get(inside)
        if mapping is None:
            mapping = Mapping(inside, self._draw_port(inside.port), self._clock.now)
            self._granted[inside] = self._ports[mapping.port] = mapping
        return Endpoint(self.address, mapping.port)

    def outbound(self, packet: Packet) -> Packet:
        """Translate a packet that leaves; makes or refreshes a mapping."""
        self._expire()
        granted = self._granted.get(packet.source)
        if granted is not None and packet.destination in granted.towards:
            return Packet(Endpoint(self.address, granted.port), packet.destination, packet.data)
        key = self._key(packet)
        mapping = self._mappings.get(key)
        if mapping is None:
            mapping = Mapping(packet.source, self._draw_port(packet.source.port), 0.0)
            self._mappings[key] = mapping
            self._ports[mapping.port] = mapping
        mapping.used = mapping.towards[packet.destination] = self._clock.now
        return packet._replace(source=Endpoint(self.address, mapping.port))

    def inbound(self, packet: Packet) -> Packet | None:
        """Translate a packet that arrives; None: filtered, or no such mapping."""
        self._expire()
        mapping = self._ports.get(packet.destination.port)
        if mapping is None:
            self.drops["no_mapping"] += 1
            return None
        if self._granted.get(mapping.inside) is mapping:
            mapping.towards[packet.source] = self._clock.now
        elif not self._passes(mapping, packet.source):
            self.drops["filtered"] += 1
            return None
        if self.kind.refresh_inbound:
            mapping.used = self._clock.now
            if packet.source in mapping.towards:
                mapping.towards[packet.source] = self._clock.now
        return packet._replace(destination=mapping.inside)

    def rebind(self, address: str | None = None) -> None:
        """Forget all mappings, as after a restart; their ports are not given out again."""
        self._retired.update(dict.fromkeys(self._ports))
        self._mappings.clear()
        self._granted.clear()
        self._ports.clear()
        if address is not None:
            self.address = address

    def _key(self, packet: Packet) -> tuple[object, ...]:
        match self.kind.mapping:
            case NatMapping.ENDPOINT_INDEPENDENT:
                return (packet.tcp, packet.source)
            case NatMapping.ADDRESS_DEPENDENT:
                return (packet.tcp, packet.source, packet.destination.host)
            case _:
                return (packet.tcp, packet.source, packet.destination)

    def _passes(self, mapping: Mapping, source: Endpoint) -> bool:
        """Whether the filter lets ``source`` in: each remote's entry ages by itself."""
        oldest = self._clock.now - self.kind.expiry
        match self.kind.filtering:
            case NatFiltering.ENDPOINT_INDEPENDENT:
                return True
            case NatFiltering.ADDRESS_DEPENDENT:
                fresh = (r.host for r, used in mapping.towards.items() if used >= oldest)
                return source.host in fresh
            case _:
                return mapping.towards.get(source, -1e9) >= oldest

    def _expire(self) -> None:
        if self._clock.now < self._expire_at:
            return
        oldest = self._clock.now - self.kind.expiry
        for key in [key for key, mapping in self._mappings.items() if mapping.used < oldest]:
            del self._ports[self._mappings.pop(key).port]
        used = min((mapping.used for mapping in self._mappings.values()), default=self._clock.now)
        self._expire_at = used + self.kind.expiry

    def _draw_port(self, wished: int) -> int:
        if self.kind.preserve and wished not in self._ports and wished not in self._retired:
            return wished
        while self.kind.step:
            self._next += self.kind.step
            if self._next > LAST_PORT:
                self._next = FIRST_PORT
            if self._next not in self._ports and self._next not in self._retired:
                return self._next
        for _ in itertools.repeat(None, 100_000):
            port = self._dice.randint(FIRST_PORT, LAST_PORT)
            if port not in self._ports and port not in self._retired:
                return port
        raise AssertionError("the NAT has no port left")


class Firewall:
    """A stateful IPv6 filter: only answers to what left come in (RFC 6092 REC-14 ff.)."""

    def __init__(
        self,
        clock: Clock,
        filtering: NatFiltering = NatFiltering.ADDRESS_AND_PORT_DEPENDENT,
        expiry: float = 120.0,
    ) -> None:
        self.filtering = filtering
        self.expiry = expiry
        self.drops: Counter[str] = Counter()
        self._clock = clock
        self._flows: dict[tuple[object, ...], float] = {}

    def outbound(self, packet: Packet) -> Packet:
        """Let it out, and remember towards whom."""
        self._flows[self._key(packet.source, packet.destination)] = self._clock.now
        return packet

    def inbound(self, packet: Packet) -> Packet | None:
        """Let it in only where something went out before."""
        key = self._key(packet.destination, packet.source)
        used = self._flows.get(key)
        if used is None or used < self._clock.now - self.expiry:
            self.drops["filtered"] += 1
            return None
        self._flows[key] = self._clock.now
        return packet

    def rebind(self) -> None:
        """Forget all flows."""
        self._flows.clear()

    def _key(self, inside: Endpoint, remote: Endpoint) -> tuple[object, ...]:
        match self.filtering:
            case NatFiltering.ENDPOINT_INDEPENDENT | NatFiltering.NONE:
                return (inside,)
            case NatFiltering.ADDRESS_DEPENDENT:
                return (inside, remote.host)
            case _:
                return (inside, remote)
