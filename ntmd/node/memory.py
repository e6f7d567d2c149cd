"""What outlives the process: peers met, pins, own address, where coordinator and relays are.

Every entry is one ``Store`` command with a versioned MessagePack array as its value. An entry that
does not parse is reported and left alone; it never stops the node from starting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ntmd.proto.errors import ProtocolError
from ntmd.proto.io import Store
from ntmd.proto.messages import RelayGrant, RelayInfo
from ntmd.proto.msgpack import pack, unpack
from ntmd.proto.types import Endpoint

VERSION = 1
PEERS_KEPT = 256
PEER = "peer/"
SELF = "self"
RELAYS = "relays"
COORDINATOR = "coordinator"
COORDINATOR_TLS = "coordinator tls"
PLACES = "networks"
PLACES_KEPT = 32
CLOCK = "clock"
SEQUENCE = "sequence"


@dataclass(frozen=True, slots=True)
class Resumption:
    """A resumption psk (rule C4, kind 2); ``until_ms`` in platform time."""

    id: bytes
    secret: bytes
    until_ms: int


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """A peer of which certificate and record were verified once.

    ``endpoints`` are where it was last reached directly; ``met`` is True once a session with it was
    confirmed; ``active_ms`` is the platform time of its last session.
    """

    name: str
    key: bytes
    address: bytes
    certificate: bytes
    record: bytes
    dc_sign: bytes
    endpoints: tuple[Endpoint, ...] = ()
    resumption: tuple[Resumption, ...] = ()
    grants: tuple[RelayGrant, ...] = ()
    home_relay: str = ""
    active_ms: int = 0
    met: bool = False


class Memory:
    """The stored facts, and the only place that knows how they are written."""

    def __init__(self, stored: Mapping[str, bytes], emit: Callable[[Any], None]) -> None:
        self._emit = emit
        self.unreadable: list[str] = []
        self.peers: dict[str, KnownPeer] = {}
        self.address = b""
        self.record = b""
        self.dc_sign = b""
        self.domains: tuple[str, ...] = ()
        self.relays: tuple[RelayInfo, ...] = ()
        self.coordinator: tuple[Endpoint, ...] = ()
        self.coordinator_tls: tuple[Endpoint, ...] = ()
        self.places: dict[str, tuple[Any, ...]] = {}  # see ntmd.node.places
        self.clock_ms = 0
        for key in sorted(stored):
            self._load(key, stored[key])

    def _load(self, key: str, value: bytes) -> None:
        try:
            if key.startswith(PEER):
                peer = _read_peer(value)
                self.peers[peer.name] = peer
            elif key == SELF:
                _, self.address, self.record, self.dc_sign, domains = _fields(value, 5)
                self.domains = tuple(domains)
            elif key == RELAYS:
                self.relays = tuple(_read_relay(item) for item in _fields(value, 2)[1])
            elif key == COORDINATOR:
                self.coordinator = tuple(Endpoint.unpack(e) for e in _fields(value, 2)[1])
            elif key == COORDINATOR_TLS:
                self.coordinator_tls = tuple(Endpoint.unpack(e) for e in _fields(value, 2)[1])
            elif key == PLACES:
                found = _fields(value, 2)[1]
                self.places = {str(name): tuple(rest) for name, *rest in found[-PLACES_KEPT:]}
            elif key == CLOCK:
                self.clock_ms = int(_fields(value, 2)[1])
        except (ProtocolError, ValueError, TypeError, KeyError):
            self.unreadable.append(key)

    def by_address(self, address: bytes) -> KnownPeer | None:
        """The known peer with this virtual address."""
        return next((p for p in self.peers.values() if p.address == address), None)

    def by_key(self, key: bytes) -> KnownPeer | None:
        """The known peer with this static key."""
        return next((p for p in self.peers.values() if p.key == key), None)

    def keep_peer(self, peer: KnownPeer) -> None:
        """Remember a peer; the one least recently active leaves when there are too many."""
        if self.peers.get(peer.name) == peer:
            return
        self.peers[peer.name] = peer
        self._emit(Store(PEER + peer.name, _write_peer(peer)))
        while len(self.peers) > PEERS_KEPT:
            oldest = min(self.peers.values(), key=lambda p: (p.active_ms, p.name))
            self.forget_peer(oldest.name)

    def forget_peer(self, name: str) -> None:
        """Forget a peer altogether."""
        if self.peers.pop(name, None) is not None:
            self._emit(Store(PEER + name, None))

    def keep_self(
        self, address: bytes, record: bytes, dc_sign: bytes, domains: tuple[str, ...]
    ) -> None:
        """Remember the own address and record, and what verifies records of the own domain."""
        before = (self.address, self.record, self.dc_sign, self.domains)
        if before == (address, record, dc_sign, domains):
            return
        self.address, self.record, self.dc_sign, self.domains = address, record, dc_sign, domains
        self._emit(Store(SELF, pack([VERSION, address, record, dc_sign, list(domains)])))

    def keep_relays(self, relays: tuple[RelayInfo, ...]) -> None:
        """Remember the home relays."""
        if relays != self.relays:
            self.relays = relays
            self._emit(Store(RELAYS, pack([VERSION, [_write_relay(r) for r in relays]])))

    def keep_coordinator(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Remember where a handshake with the coordinator succeeded (rule C3)."""
        if endpoints != self.coordinator:
            self.coordinator = endpoints
            self._emit(Store(COORDINATOR, pack([VERSION, [e.pack() for e in endpoints]])))

    def keep_coordinator_tls(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Remember where the coordinator says it listens for TLS (rule S12)."""
        if endpoints != self.coordinator_tls:
            self.coordinator_tls = endpoints
            packed = pack([VERSION, [e.pack() for e in endpoints]])
            self._emit(Store(COORDINATOR_TLS, packed))

    def keep_place(self, name: str, facts: tuple[Any, ...]) -> None:
        """Remember what is known of a network; the one learned of longest ago leaves."""
        self.places.pop(name, None)
        self.places[name] = facts
        while len(self.places) > PLACES_KEPT:
            del self.places[next(iter(self.places))]
        rows = [[name, *facts] for name, facts in self.places.items()]
        self._emit(Store(PLACES, pack([VERSION, rows])))

    def keep_clock(self, platform_ms: int) -> None:
        """Raise the lower bound of the clock; written at most once an hour of platform time."""
        if platform_ms > self.clock_ms + 3_600_000:
            self.clock_ms = platform_ms
            self._emit(Store(CLOCK, pack([VERSION, platform_ms])))


def _fields(value: bytes, count: int) -> list[Any]:
    items = list(unpack(value))
    if len(items) < count or items[0] != VERSION:
        raise ValueError("stored entry of another version")
    return items


def _write_relay(relay: RelayInfo) -> list[Any]:
    return [
        relay.name,
        relay.certificate,
        [e.pack() for e in relay.endpoints],
        [e.pack() for e in relay.tls],
    ]


def _read_relay(item: Any) -> RelayInfo:
    name, certificate, *lists = item
    udp, tls = (tuple(Endpoint.unpack(bytes(e)) for e in each) for each in (*lists, [])[:2])
    return RelayInfo(str(name), bytes(certificate), udp, tls)


def _write_peer(peer: KnownPeer) -> bytes:
    return pack(
        [
            VERSION,
            peer.name,
            peer.key,
            peer.address,
            peer.certificate,
            peer.record,
            peer.dc_sign,
            [e.pack() for e in peer.endpoints],
            [[r.id, r.secret, r.until_ms] for r in peer.resumption],
            [[*_write_relay(g.relay), g.grant] for g in peer.grants],
            peer.home_relay,
            peer.active_ms,
            peer.met,
        ]
    )


def _read_peer(value: bytes) -> KnownPeer:
    fields = _fields(value, 13)
    _, name, key, address, certificate, record, dc_sign, endpoints, resumption, grants = fields[:10]
    home_relay, active_ms, met = fields[10:13]
    return KnownPeer(
        str(name),
        bytes(key),
        bytes(address),
        bytes(certificate),
        bytes(record),
        bytes(dc_sign),
        tuple(Endpoint.unpack(bytes(e)) for e in endpoints),
        tuple(Resumption(bytes(i), bytes(s), int(u)) for i, s, u in resumption),
        tuple(RelayGrant(_read_relay(g[:-1]), bytes(g[-1])) for g in grants),
        str(home_relay),
        int(active_ms),
        bool(met),
    )
