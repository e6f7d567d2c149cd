"""Keep-alive of the home relay and the coordinator, and of nothing else (rule S6).

All pings fire in one wake-up. The interval starts short and grows while the observed endpoint
shows that the NAT's mapping survived it; once a mapping lapsed, the node stays below that.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.common import Common
from ntmd.node.uplink import Uplink
from ntmd.proto.timing import KEEPALIVE_FIRST, KEEPALIVE_MAX

GROWTH = 1.5
GOOD_ROUNDS = 3  # rounds that must pass at one interval before the next is tried


class KeepAlive:
    """One timer for all servers that are kept warm."""

    def __init__(self, common: Common, uplinks: Callable[[], list[Uplink]]) -> None:
        self._common = common
        self._uplinks = uplinks
        self._good = 0
        self._ceiling = KEEPALIVE_MAX
        self.interval = KEEPALIVE_FIRST

    def start(self, now: float, hint: float = 0.0) -> None:
        """Begin, or begin anew after a move: nothing is known of this network's NAT."""
        self._good = 0
        self._ceiling = KEEPALIVE_MAX
        self.interval = min(max(hint, KEEPALIVE_FIRST), KEEPALIVE_FIRST * 1.5)
        self._arm(now)

    def _arm(self, now: float) -> None:
        self._common.timers.set("keepalive", now + self.interval, self._round)

    def _round(self, now: float) -> None:
        if self._common.stopping:
            return
        for uplink in self._uplinks():
            uplink.challenge(now, self._answered)
        self._arm(now)

    def _answered(self, unchanged: bool, now: float) -> None:
        if not unchanged:
            self._good = 0
            self._ceiling = max(KEEPALIVE_FIRST, self.interval / GROWTH)
            self.interval = min(self.interval, self._ceiling)
            self._arm(now)
            return
        self._good += 1
        if self._good >= GOOD_ROUNDS and self.interval * GROWTH <= self._ceiling:
            self._good = 0
            self.interval = self.interval * GROWTH
