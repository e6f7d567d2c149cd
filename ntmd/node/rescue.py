"""Tunnels on which nothing answers are called anew, and the coordinator is asked beside it.

When a whole network fails, that is every tunnel at the same instant. What leaves is limited: the
first ones at once, most recently used first, the others one by one (RESCUES_AT_ONCE, RESCUE_PACE).
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.common import Common
from ntmd.node.tunnels import Tunnel
from ntmd.proto.timing import RESCUE_PACE, RESCUES_AT_ONCE


class Rescues:
    """Who waits to be called anew. ``call(tunnel, now)`` does it."""

    def __init__(self, common: Common, call: Callable[[Tunnel, float], None]) -> None:
        self._common, self._call = common, call
        self._waiting: dict[int, Tunnel] = {}
        self._credit, self._at = float(RESCUES_AT_ONCE), 0.0

    def wanted(self, tunnel: Tunnel, now: float) -> None:
        """Nothing answers on any way of ``tunnel``."""
        self._waiting[tunnel.number] = tunnel
        if len(self._waiting) == 1:  # those of the same instant first all come together
            self._common.timers.set("rescues", now, self._next)

    def _next(self, now: float) -> None:
        self._credit = min(RESCUES_AT_ONCE, self._credit + (now - self._at) / RESCUE_PACE)
        self._at = now
        order = sorted(self._waiting.values(), key=lambda t: (-t.busy_at, t.number))
        for tunnel in order[: int(self._credit + 1e-9)]:
            del self._waiting[tunnel.number]
            self._credit -= 1
            if tunnel.live:
                self._call(tunnel, now)
        if self._waiting:
            self._common.timers.set("rescues", now + RESCUE_PACE, self._next)
