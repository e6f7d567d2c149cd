"""The domain's relays: registration, choice by round trips and load, grants (rule C5).

A grant for one pair at one relay is made once a day and the same bytes are handed out until then;
its id stays the same for ever, so that both ends open the same leg whichever grant they hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ntm_dc.common import Common
from ntm_dc.kept import UNREADABLE, endpoints_of
from ntm_dc.registry import Node
from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.certs import Leaf, parse_leaf
from ntmd.proto.crypto import sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.io import Store
from ntmd.proto.records import pair_grant_id, sign_grant
from ntmd.proto.types import Endpoint, Path, Peer, Role

LEASE = 60  # seconds
LATELY = 3600.0  # how long a relay is handed out that is not heard of, if no other is, seconds
STORE_PREFIX = "relay/"
GRANTS_KEPT = 65_536
SHOWN = 4  # relays told to a node at registration
PAIR = 3  # relays at which two of our nodes get legs, at most
ABROAD = 2  # relays at which one of ours and a stranger do: their coordinator adds its own two


@dataclass(slots=True, eq=False)
class Relay:
    """A relay server. ``until``: end of its lease, boot clock."""

    leaf: Leaf
    endpoints: tuple[Endpoint, ...]
    until: float = -1e9
    handle: int | None = None
    legs: int = 0
    kbit_s: int = 0
    draining: bool = False
    path: Path | None = None
    tls: tuple[Endpoint, ...] = ()

    @property
    def load_ms(self) -> float:
        """How busy it is, as milliseconds of round trip."""
        megabits = self.kbit_s / 1000 * timing.RELAY_LOAD_MS_PER_MBIT
        return megabits + self.legs * timing.RELAY_LOAD_MS_PER_LEG

    @property
    def info(self) -> m.RelayInfo:
        """What nodes are told."""
        return m.RelayInfo(self.leaf.name, self.leaf.der, self.endpoints, self.tls)


class Relays:
    """All relays by name."""

    def __init__(self, common: Common, stored: Mapping[str, bytes]) -> None:
        self._common = common
        self._by_name: dict[str, Relay] = {}
        self._grants: dict[tuple[str, bytes, bytes], tuple[float, bytes]] = {}
        for key in sorted(stored):
            if key.startswith(STORE_PREFIX):
                self._load(stored[key])

    def __len__(self) -> int:
        return len(self._by_name)

    def acceptable(self, leaf: Leaf) -> bool:
        """Only relays of our own domain register here."""
        return leaf.role is Role.RS and leaf.domain == self._common.settings.domain

    def call_all(self, now: float) -> None:
        """After a restart: shake hands with the relays known from before."""
        for relay in self._by_name.values():
            relay.until = now + LEASE  # believed to be there until it had its chance to say so
            path = relay.path or self._first_path(relay)
            if path is not None:
                peer = Peer(Role.RS, relay.leaf.name, relay.leaf.key)
                self._common.engine.call(peer, [path], now)

    def register(
        self, event: m.RelayRegister, leaf: Leaf, handle: int, path: Path, now: float
    ) -> m.RelayRegistered:
        """RelayRegister: where it listens and how busy it is."""
        common = self._common
        status = m.Status.OK if self.acceptable(leaf) and event.endpoints else m.Status.REFUSED
        if status is m.Status.OK:
            known = self._by_name.get(leaf.name)
            relay = Relay(leaf, event.endpoints, now + LEASE, handle, event.legs, event.kbit_s)
            relay.draining, relay.path, relay.tls = event.draining, path, event.tls
            self._by_name[leaf.name] = relay
            if known is None or _kept(known) != _kept(relay):
                common.emit(Store(STORE_PREFIX + leaf.name, _kept(relay)))
        else:
            common.counters["relay_refused"] += 1
        return m.RelayRegistered(
            event.id, status, 0, common.platform_ms(now), common.sign_certificate, LEASE
        )

    def shown_by(self, leaf: Leaf) -> None:
        """A relay shook hands: nodes are told the certificate that it showed."""
        relay = self._by_name.get(leaf.name)
        if relay is not None and relay.leaf.key == leaf.key and relay.leaf.der != leaf.der:
            relay.leaf = leaf
            self._common.emit(Store(STORE_PREFIX + leaf.name, _kept(relay)))

    def ended(self, handle: int, now: float) -> None:
        """A relay's session is over."""
        for relay in self._by_name.values():
            if relay.handle == handle:
                relay.until = min(relay.until, now)

    def live(self, now: float) -> list[Relay]:
        """Relays that serve, the least busy first; one that drains only if there is no other."""
        return self._since(now)

    def offered(self, now: float) -> list[Relay]:
        """Those that serve; if none is heard of, those that did until lately: a relay serves
        without its coordinator, which may be the one that is cut off; nodes find out."""
        return self.live(now) or self._since(now - LATELY)

    def _since(self, then: float) -> list[Relay]:
        up = [relay for relay in self._by_name.values() if relay.until > then]
        staying = [relay for relay in up if not relay.draining]
        return sorted(staying or up, key=lambda each: (each.load_ms, each.leaf.name))

    def shown(self, home: str, now: float) -> tuple[m.RelayInfo, ...]:
        """What a node is told at registration: its home relay first if it serves."""
        ordered = sorted(self.offered(now), key=lambda each: each.leaf.name != home)
        return tuple(relay.info for relay in ordered[:SHOWN])

    def home(self, wanted: str, now: float) -> Relay | None:
        """The relay of a node: the one it keeps alive, else the least busy one."""
        up = self.offered(now)
        for relay in up:
            if relay.leaf.name == wanted:
                return relay
        return up[0] if up else None

    def for_pair(self, one: Node, two: Node, now: float) -> list[Relay]:
        """Where two of our nodes get legs: at each one's home, and at the two that are nearest to
        both (at most three in all, the nearest first)."""
        near = self._nearest((one, two), now)
        homes = [self.home(node.home_relay, now) for node in (two, one)]
        chosen = dict.fromkeys((*near[:1], *homes, *near[1:2]))
        return [relay for relay in chosen if relay is not None][:PAIR]

    def for_one(self, node: Node, now: float) -> list[Relay]:
        """Where one of our nodes gets legs with a stranger: its home and the next nearest of those
        that serve, for the stranger's coordinator counts on them."""
        home = self.home(node.home_relay, now)
        chosen = dict.fromkeys((home, *self._nearest((node,), now)))
        return [relay for relay in chosen if relay is not None and relay.until > now][:ABROAD]

    def best_at(self, node: Node, chosen: list[Relay]) -> str:
        """The relay at which ``node`` is to be sent to: of the ``chosen`` (nearest first) the
        first that it keeps warm, else its home."""
        names = [relay.leaf.name for relay in chosen]
        return next((name for name in names if name in node.relay_rtts), node.home_relay)

    def _nearest(self, nodes: tuple[Node, ...], now: float) -> list[Relay]:
        """Relays that serve by the sum of the nodes' round trips and their load."""

        def cost(relay: Relay) -> tuple[float, str]:
            name, unknown = relay.leaf.name, timing.RELAY_RTT_UNKNOWN
            rtts = sum(node.relay_rtts.get(name, unknown) for node in nodes)
            return rtts + relay.load_ms, name

        return sorted(self.offered(now), key=cost)

    def grant(self, relay: Relay, one: bytes, two: bytes, now: float) -> m.RelayGrant:
        """A grant for the pair of node keys ``one`` and ``two``, signed by our dc-sign key."""
        first, second = sorted((sha256(one), sha256(two)))
        place = (relay.leaf.name, first, second)
        made, data = self._grants.pop(place, (-1e18, b""))
        if now - made >= timing.GRANT_RENEW:
            common, issued = self._common, self._common.platform_ms(now)
            made, at = now, sha256(relay.leaf.key)
            data = sign_grant(
                common.sign_private,
                common.platform_id,
                rs_key_hash=at,
                grant_id=pair_grant_id(at, first, second),
                node_a_hash=first,
                node_b_hash=second,
                issued_ms=issued,
                expires_ms=issued + int(timing.GRANT_LIFETIME * 1000),
                kbit_s=common.settings.relay_kbit_s,
            )
            common.counters["grants"] += 1
        self._grants[place] = (made, data)
        if len(self._grants) > GRANTS_KEPT:
            del self._grants[next(iter(self._grants))]
        return m.RelayGrant(relay.info, data)

    def status(self, now: float) -> list[dict[str, object]]:
        """For the operator."""
        return [
            {
                "name": relay.leaf.name,
                "endpoints": [str(endpoint) for endpoint in relay.endpoints],
                "live": relay.until > now,
                "legs": relay.legs,
                "kbit_s": relay.kbit_s,
                "draining": relay.draining,
            }
            for relay in self._by_name.values()
        ]

    def endpoints(self, now: float) -> dict[str, tuple[Endpoint, ...]]:
        """Names and addresses of the relays that serve, for the zone."""
        return {relay.leaf.name: relay.endpoints for relay in self.live(now)}

    def _first_path(self, relay: Relay) -> Path | None:
        paths = (self._common.path_to(endpoint) for endpoint in relay.endpoints)
        return next((path for path in paths if path is not None), None)

    def _load(self, value: bytes) -> None:
        try:
            kept = json.loads(value)
            leaf = parse_leaf(bytes.fromhex(kept["certificate"]))
            found, tls = (endpoints_of(kept.get(key, ())) for key in ("endpoints", "tls"))
            relay = Relay(leaf, found, tls=tls)
            if kept["path"]:
                socket, *at = kept["path"]
                relay.path = Path(int(socket), endpoints_of([at])[0])
                if relay.path.socket not in self._common.sockets:
                    relay.path = None
        except (*UNREADABLE, ProtocolError):
            self._common.counters["stored_refused"] += 1
            return
        if self.acceptable(leaf):
            self._by_name[leaf.name] = relay


def _kept(relay: Relay) -> bytes:
    path = relay.path
    return json.dumps(
        {
            "certificate": relay.leaf.der.hex(),
            "endpoints": [list(endpoint) for endpoint in relay.endpoints],
            "tls": [list(endpoint) for endpoint in relay.tls],
            "path": [path.socket, *path.remote] if path else None,
        }
    ).encode()
