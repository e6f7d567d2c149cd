"""Relays: sessions with them, and the legs that datagrams to peers pass (rule C5).

The home relays are kept warm; a foreign relay, granted by the other end's coordinator, is spoken
to on demand. A relay that lost its state is found by its reset: the node shakes hands again and
opens every leg it holds a grant for, without any coordinator.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ntmd.node.common import Common
from ntmd.node.probing import Prober
from ntmd.node.requests import Requests
from ntmd.node.underlay import Underlay
from ntmd.node.uplink import Link, Seen, Uplink
from ntmd.proto.certs import check_leaf, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.frame import HEADER_SIZE, Kind
from ntmd.proto.messages import (
    LegClose,
    LegMove,
    LegMoved,
    LegOpen,
    LegOpened,
    RelayGrant,
    RelayInfo,
    Reply,
    Status,
)
from ntmd.proto.records import parse_grant
from ntmd.proto.timing import DOUBT_SECONDS, KEEPALIVE_FIRST, LEGS_PER_NODE
from ntmd.proto.types import Path, Peer, Role, path_id

HOME_RELAYS = 2
RETRY = 2.0  # a leg refused for the moment is asked for again this much later, seconds
PEERS_TRIED = 8  # known peers whose relays are all called when none answers
RENEW_PAUSE = 0.5  # many tunnels may doubt at once: the relay is told this often, seconds
QUICKER = 0.020  # another home relay is chosen only if it is this much nearer, seconds


@dataclass(slots=True)
class Leg:
    """One end of a granted pair. ``leg`` is 0 until the relay gave an id."""

    grant: bytes
    grant_id: bytes
    peer: Peer
    delivery: int
    leg: int = 0
    opening: bool = False
    dead: bool = False  # the peer answered by another relay, but not over this leg
    proved: bool = False  # the peer answered over it; asked only when another leg drains
    reset_token: bytes = b""


@dataclass(slots=True)
class Relay:
    """A relay server and the legs held there."""

    info: RelayInfo
    uplink: Uplink
    home: bool = False
    draining: bool = False
    legs: dict[bytes, Leg] = field(default_factory=dict)


class Relays:
    """All relays this node speaks to, by name."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        requests: Requests,
        *,
        leg_changed: Callable[[Peer, float], None],
        home_changed: Callable[[str, float], None],
        seen: Seen,
    ) -> None:
        self._common, self._underlay = common, underlay
        self._prober, self._requests = prober, requests
        self._leg_changed, self._home_changed, self._seen = leg_changed, home_changed, seen
        self.by_name: dict[str, Relay] = {}
        self.home_name = ""
        self._renewed: dict[str, float] = {}
        self._measured: tuple[str, ...] = ()

    # -------------------------------------------------------------- which relays

    def _ensure(self, info: RelayInfo, now: float) -> Relay:
        """The relay of this name, known from now on; raises ProtocolError."""
        leaf = parse_leaf(info.certificate)
        clock = self._common.clock
        check_leaf(
            leaf,
            self._common.trust,
            role=Role.RS,
            name=info.name,
            now_ms=clock(now),
            slack_ms=clock.slack_ms(),
        )
        known = self.by_name.get(info.name)
        if known is not None and known.uplink.peer.key == leaf.key:
            known.info = info
            known.uplink.endpoints, known.uplink.race.endpoints = info.endpoints, info.tls
            return known
        name = info.name
        uplink = Uplink(
            self._common,
            self._underlay,
            self._prober,
            Peer(Role.RS, name, leaf.key),
            info.endpoints,
            up=lambda first, at: self._up(name, at),
            down=lambda at: self._down(name, at),
            announce=lambda at: self._announce(name, at),
            seen=self._seen,
        )
        uplink.race.endpoints = info.tls
        relay = self.by_name[name] = Relay(info, uplink)
        return relay

    def set_home(self, infos: tuple[RelayInfo, ...], now: float) -> None:
        """The coordinator named the home relays."""
        chosen: list[str] = []
        for info in infos[:HOME_RELAYS]:
            try:
                relay = self._ensure(info, now)
            except ProtocolError as error:
                self._common.refuse(error)
                continue
            chosen.append(info.name)
            relay.home = True
            if not relay.uplink.up and relay.uplink.handle is None:
                relay.uplink.call(now)
        self.wanted(now)  # where the coordinator is heard, they may be heard again too
        for name, relay in self.by_name.items():
            relay.home = name in chosen
        self._common.memory.keep_relays(infos)
        self._choose_home(now)

    def _choose_home(self, now: float) -> None:
        up = [(n, r) for n, r in self.by_name.items() if r.home and r.uplink.up]
        ready = [(n, r) for n, r in up if not r.draining] or up
        if not ready:
            return
        measured = tuple(name for name, _ in self.rtts())
        new, self._measured = measured != self._measured, measured
        best, relay = min(ready, key=lambda item: (item[1].uplink.rtt or 9.0, item[0]))
        present = self.by_name.get(self.home_name)
        stays = present is not None and present.home and present.uplink.up
        if stays and present is not None:
            quicker = (present.uplink.rtt or 9.0) - (relay.uplink.rtt or 9.0) >= QUICKER
            stays = not quicker and (relay.draining or not present.draining)
        moves = not stays and best != self.home_name
        if moves:
            self.home_name = best
        if moves or new:
            self._home_changed(self.home_name, now)

    def rtts(self) -> tuple[tuple[str, int], ...]:
        """The home relays that answer, and how far they are, ms; not those about to leave."""
        return tuple(
            (name, min(int(relay.uplink.rtt * 1000), 0xFFFF))
            for name, relay in sorted(self.by_name.items())
            if relay.home and relay.uplink.up and relay.uplink.rtt and not relay.draining
        )[:HOME_RELAYS]

    def drains(self, name: str, draining: bool, now: float) -> list[Peer]:
        """A relay is about to leave, or stays; the peers with whom a leg is held there."""
        relay = self.by_name[name]
        relay.draining = draining
        self._choose_home(now)
        return [leg.peer for leg in relay.legs.values()]

    def uplinks(self) -> list[Uplink]:
        """The associations of all relays in use, the home relay's first."""
        order = sorted(self.by_name, key=lambda n: (n != self.home_name, n))
        used = [self.by_name[name] for name in order]
        return [relay.uplink for relay in used if relay.home or relay.legs]

    def wanted(self, now: float) -> None:
        """Somebody waits for a way: silent relays are called before their time."""
        for uplink in self.uplinks():
            uplink.wanted(now)

    def warm(self) -> list[Uplink]:
        """The associations that are kept alive."""
        return [r.uplink for r in self.by_name.values() if r.home]

    # -------------------------------------------------------------- the associations

    def _up(self, name: str, now: float) -> None:
        relay = self.by_name[name]
        for leg in relay.legs.values():
            leg.opening = False
            self._open(relay, leg, now)
        relay.uplink.challenge(now, lambda _, at: self._choose_home(at))
        self._choose_home(now)

    def _down(self, name: str, now: float) -> None:
        relay = self.by_name[name]
        self._common.tell("warning", "relay does not answer", relay=name)
        self._choose_home(now)
        for leg in relay.legs.values():
            self._leg_changed(leg.peer, now)
        if not any(each.uplink.up for each in self.by_name.values()):
            self.wanted(now)  # nobody finds this node until one of them answers
            lately = sorted(self._common.memory.peers.values(), key=lambda each: -each.active_ms)
            for known in lately[:PEERS_TRIED]:  # they may be at other relays
                self.want(known.grants, Peer(Role.NODE, known.name, known.key), now)

    def _announce(self, name: str, now: float) -> None:
        """One sealed LegMove takes all legs of this relay to the present path."""
        uplink = self.by_name[name].uplink
        handle, path, seq = uplink.handle, uplink.path, uplink.seq
        if handle is None or path is None:
            return

        def moved(reply: Reply | None, at: float) -> None:
            heard = uplink.last_heard
            if not isinstance(reply, LegMoved):
                if heard is None or heard < now:
                    uplink.silent(at)  # also if newer ones are under way: none was answered
                return
            if reply.seq > uplink.seq:  # a request of an older association overtook this one
                uplink.seq = reply.seq
                uplink.announce_again(at)
            if uplink.seq != seq or uplink.path != path:
                return
            uplink.heard(path, at)
            uplink.saw(path.socket, reply.observed, at, announced=True)
            self._renumber(name, reply.legs, at)

        self._requests.ask(handle, LegMove(0, seq), now, moved, path=path)

    def _renumber(self, name: str, legs: tuple[tuple[int, int], ...], now: float) -> None:
        fresh = dict(legs)
        relay, known = self.by_name[name], fresh.values()
        for leg in relay.legs.values():
            if (
                leg.leg
                and leg.leg not in fresh
                and leg.leg not in known
                and len(legs) < LEGS_PER_NODE
            ):
                self._open(
                    relay, leg, now
                )  # an answer before this one was lost, and a number in it
            if leg.leg in fresh:
                leg.leg = fresh[leg.leg]
                leg.reset_token = b""  # that of a fresh id is told by LegOpened only
                self._deliver(relay, leg)
                self._leg_changed(leg.peer, now)

    def _deliver(self, relay: Relay, leg: Leg) -> None:
        """Tell the engine which leg leads back to whoever arrives under the delivery index."""
        path = relay.uplink.path
        if path is not None:
            self._common.engine.add_delivery(leg.delivery, leg.peer.key, leg.leg, path.remote)

    def network_changed(self, now: float) -> None:
        """Tell every relay first where this node is now, the home relay before all others."""
        order = sorted(self.by_name, key=lambda n: (n != self.home_name, n))
        for name in order:
            relay = self.by_name[name]
            if relay.home or relay.legs:
                relay.uplink.network_changed(now)

    # -------------------------------------------------------------- legs

    def want(self, grants: tuple[RelayGrant, ...], peer: Peer, now: float) -> None:
        """Open a leg at every granted relay."""
        for item in grants:
            try:
                relay = self._ensure(item.relay, now)
                grant = parse_grant(item.grant)
            except ProtocolError as error:
                self._common.refuse(error)
                continue
            leg = relay.legs.get(grant.grant_id)
            if leg is None:
                delivery = self._common.engine.draw_index(now)
                leg = Leg(item.grant, grant.grant_id, peer, delivery)
                relay.legs[grant.grant_id] = leg
            leg.grant = item.grant
            if relay.uplink.up:
                self._open(relay, leg, now)
            elif relay.uplink.handle is None:
                relay.uplink.call(now)

    def reopen(self, grants: tuple[RelayGrant, ...], peer: Peer, now: float) -> None:
        """Be reachable for a peer of an earlier life of this node: legs at home relays only."""
        homes = [name for name, relay in self.by_name.items() if relay.home]
        self.want(tuple(each for each in grants if each.relay.name in homes), peer, now)

    def _open(self, relay: Relay, leg: Leg, now: float) -> None:
        handle = relay.uplink.handle
        if leg.opening or handle is None:
            return
        leg.opening = True
        request = LegOpen(0, leg.grant, leg.delivery)
        self._requests.ask(
            handle, request, now, lambda reply, at: self._opened(relay, leg, reply, at)
        )

    def _opened(self, relay: Relay, leg: Leg, reply: Reply | None, now: float) -> None:
        leg.opening = False
        if relay.legs.get(leg.grant_id) is not leg:
            return
        if isinstance(reply, LegOpened) and reply.status == Status.OK and reply.leg:
            leg.leg, leg.reset_token, leg.dead = reply.leg, reply.reset_token, False
            path = relay.uplink.path
            if path is not None:
                relay.uplink.saw(path.socket, reply.observed, now)
            self._deliver(relay, leg)
            self._leg_changed(leg.peer, now)
        elif isinstance(reply, LegOpened) and reply.status in (Status.TRY_AGAIN, Status.TOO_MANY):
            pause = max(reply.retry_after_ms / 1000, RETRY)
            self._common.timers.set(
                ("leg", leg.grant_id), now + pause, lambda at: self._open(relay, leg, at)
            )
        elif reply is None:
            relay.uplink.silent(now)
        else:
            text = getattr(reply, "text", "")
            self._common.tell("warning", "leg refused", relay=relay.info.name, text=text)
            self._forget(relay, leg, now)

    def _forget(self, relay: Relay, leg: Leg, now: float) -> None:
        relay.legs.pop(leg.grant_id, None)
        self._common.engine.drop_delivery(leg.delivery, now)
        self._leg_changed(leg.peer, now)

    def drop_peer(self, key: bytes, now: float) -> None:
        """The node has nothing to do with this peer any more."""
        for relay in self.by_name.values():
            for leg in list(relay.legs.values()):
                if leg.peer.key == key:
                    self._close(relay, leg, now)

    def _close(self, relay: Relay, leg: Leg, now: float) -> None:
        if relay.uplink.handle is not None and leg.leg:
            request = LegClose(0, leg.grant_id)
            self._requests.ask(relay.uplink.handle, request, now, lambda *_: None)
        self._forget(relay, leg, now)

    # -------------------------------------------------------------- use

    def ways_to(self, key: bytes, prefer: str) -> list[tuple[str, Path]]:
        """Open legs to the peer, the one at its home relay first: (relay name, path)."""
        found: list[tuple[bool, int, bool, str, Path]] = []
        held = [(r, leg) for r in self.by_name.values() for leg in r.legs.values()]
        leaving = any(r.draining and leg.leg and leg.peer.key == key for r, leg in held)
        for name, relay in self.by_name.items():
            path = relay.uplink.path
            if path is None or not self._underlay.is_open(path.socket):
                continue
            for leg in relay.legs.values():
                if leg.peer.key == key and leg.leg:
                    way = Path(path.socket, path.remote, leg.leg)
                    rank = 1 if relay.draining else 2 if leaving and not leg.proved else 0
                    rank += 3 * leg.dead
                    found.append((not relay.uplink.up, rank, name != prefer, name, way))
        found.sort()
        return [(name, way) for *_, name, way in found]

    def spare_ways(self, key: bytes, prefer: str, beside: int) -> list[Path]:
        """Open legs to the peer over own sockets other than ``beside``, the preferred relay's
        first: sources that the relay knows, so they carry without being announced."""
        found: list[tuple[bool, int, str, Path]] = []
        for name, relay in self.by_name.items():
            for spare in relay.uplink.spares.values():
                if spare.path.socket == beside or not self._underlay.is_open(spare.path.socket):
                    continue
                rank = self._underlay.rank(spare.path.socket)
                found += [
                    (name != prefer, rank, name, spare.path._replace(leg=leg.leg))
                    for leg in relay.legs.values()
                    if leg.peer.key == key and leg.leg
                ]
        return [way for _, _, _, way in sorted(found)]

    def duplicate(self, way: Path, now: float) -> None:
        """Ask the relay to send here too for a while what comes to this node (rule C7)."""
        relay = self.by_name.get(self.name_of(way))
        if relay is None or relay.uplink.handle is None or self._underlay.metered(way.socket):
            return
        request = LegMove(0, relay.uplink.seq, path_id(way.socket), int(DOUBT_SECONDS * 1000))
        here = way._replace(leg=0)
        self._requests.ask(relay.uplink.handle, request, now, lambda *_: None, path=here)

    def judge(self, way: Path, now: float, *, dead: bool) -> None:
        """Whether the peer answers over a leg; the relay of a dead one is asked for itself."""
        relay = self.by_name.get(self.name_of(way))
        for leg in relay.legs.values() if relay is not None else ():
            if leg.leg == way.leg and leg.dead != dead:
                leg.dead = dead
                if relay is not None and dead:
                    relay.uplink.challenge(now, lambda *_: None)
                self._leg_changed(leg.peer, now)

    def prepare(self, name: str, now: float) -> None:
        """Before a leg is used after a pause: make the own mapping known to the relay first."""
        relay = self.by_name.get(name)
        if relay is None:
            return
        heard = relay.uplink.last_heard
        if heard is None or now - heard > KEEPALIVE_FIRST:
            relay.uplink.announce_again(now)

    def renew(self, name: str, now: float) -> None:
        """A path fell silent: the own NAT may map anew, and then the relay knows no such source."""
        relay = self.by_name.get(name)
        if relay is not None and now - self._renewed.get(name, -1e9) >= RENEW_PAUSE:
            self._renewed[name] = now
            relay.uplink.announce_again(now)

    def deliveries(self, key: bytes) -> tuple[int, ...]:
        """Own indexes under which the peer's relayed datagrams arrive."""
        return tuple(
            leg.delivery
            for relay in self.by_name.values()
            for leg in relay.legs.values()
            if leg.peer.key == key
        )

    def may_answer(self, names: Iterable[str]) -> bool:
        """Whether one of these relays is not known to be silent."""
        known = [self.by_name.get(name) for name in names]
        return any(r is None or r.uplink.state is not Link.SILENT for r in known)

    def name_of(self, path: Path) -> str:
        """Which relay a relayed path passes."""
        for name, relay in self.by_name.items():
            if self._underlay.native(path) in (*relay.info.endpoints, *relay.info.tls):
                return name
        return ""

    def owner(self, handle: int) -> Relay | None:
        """The relay of an association."""
        return next((r for r in self.by_name.values() if r.uplink.handle == handle), None)

    def reset_received(self, data: bytes, now: float) -> bool:
        """A reset for a leg id: the relay lost its state. True if it was one of ours (S4)."""
        if len(data) < HEADER_SIZE + 16 or data[0] != Kind.RESET:
            return False
        index, token = int.from_bytes(data[4:8], "big"), data[HEADER_SIZE : HEADER_SIZE + 16]
        for relay in self.by_name.values():
            for leg in relay.legs.values():
                if leg.leg != index:
                    continue
                if not leg.reset_token:  # cannot be judged: ask the relay itself, sealed
                    self._open(relay, leg, now)
                    return True
                if hmac.compare_digest(leg.reset_token, token):
                    relay.uplink.call(now)
                    return True
        return False
