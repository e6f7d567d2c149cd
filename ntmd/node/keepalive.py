"""Keep-alive of the home relay, the coordinator and spare links, and of nothing else (rule S6).

All pings fire in one wake-up. The interval grows while pings show that the NAT's mapping survived
it. Where a NAT gives a new mapping another port, a lapse shows; where it keeps the port, a lapse
would go unseen, and the interval stays below what NATs are known to keep.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.common import Common
from ntmd.node.nat import NatTests
from ntmd.node.underlay import Underlay
from ntmd.node.uplink import Uplink
from ntmd.proto.timing import KEEPALIVE_FIRST, KEEPALIVE_MAX, STREAM_KEEPALIVE

GROWTH = 1.5
UNSEEN = 45.0  # where a lapsed mapping would come back with the same port, seconds
SEEN = 100.0  # where it would not; below the 120 s of RFC 4787 REQ-5, seconds
ROUNDS = 3  # pings that must keep their port at one interval before a longer one is tried


class KeepAlive:
    """One timer for all servers that are kept warm."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        nat: NatTests,
        home: Uplink,
        uplinks: Callable[[], list[Uplink]],
    ) -> None:
        self._common, self._underlay, self._nat = common, underlay, nat
        self._places = underlay.places
        self._home, self._uplinks = home, uplinks
        self.spares: Callable[[float], None] = lambda _: None
        self.uneasy: Callable[[int, float], None] = lambda *_: None
        self._good = 0
        self._lapsed = KEEPALIVE_MAX * 2  # an interval that a mapping did not survive, seconds
        self.interval = KEEPALIVE_FIRST

    def start(self, now: float) -> None:
        """Begin, or begin anew after a move: with what the NATs of the present networks kept when
        this node was last there, if it ever was. What lapsed then may have been a router's restart,
        so one interval beyond it is tried again in each stay."""
        self._good = 0
        known = [self._places.at(socket.number) for socket in self._underlay.usable()]
        lapsed = [place.lapsed / 1000 * GROWTH**2 for place in known if place.lapsed]
        self._lapsed = min(lapsed, default=KEEPALIVE_MAX * 2)
        kept = min((place.kept / 1000 for place in known), default=0.0)
        self.interval = max(KEEPALIVE_FIRST, min(kept, KEEPALIVE_MAX))
        self._arm(now)

    def _learn(self) -> None:
        path = self._home.path
        if path is not None and not self._home.race.carries:
            lapsed = round(self._lapsed * 1000) if self._lapsed <= KEEPALIVE_MAX else 0
            self._places.learn(path.socket, kept=round(self.interval * 1000), lapsed=lapsed)

    def _arm(self, now: float) -> None:
        self._common.timers.set("keepalive", now + self.interval, self._round)

    def _round(self, now: float) -> None:
        if self._common.stopping:
            return
        for uplink in self._uplinks():
            uplink.uneasy = self.uneasy
            uplink.challenge(now, self._answered)
        self.spares(now)
        self._arm(now)

    def limit(self) -> float:
        """The longest interval that is justified by what is known of the NAT, seconds."""
        path = self._home.path
        if self._home.race.carries:
            return STREAM_KEEPALIVE
        facts = self._nat.facts.get(path.socket) if path is not None else None
        if path is None or facts is None:
            return KEEPALIVE_FIRST
        if facts.surely_open:
            return KEEPALIVE_MAX
        own, seen = self._underlay.sockets.get(path.socket), self._home.observed.get(path.socket)
        local = own.local if own is not None else None
        shows = seen is not None and local is not None and seen.port != local.port
        return min(SEEN if shows else UNSEEN, self._lapsed / GROWTH)

    def _answered(self, unchanged: bool, now: float) -> None:
        if not unchanged:
            self._good = 0
            self._lapsed = min(self._lapsed, self.interval)
            self.interval = max(KEEPALIVE_FIRST, min(self.interval, self.limit()))
            self._learn()
            self._arm(now)
            return
        self._good += 1
        if self._good >= ROUNDS:
            self._good = 0
            self.interval = max(KEEPALIVE_FIRST, min(self.interval * GROWTH, self.limit()))
            self._learn()
