"""Feedback for one-way flows (rule S15): what arrived, while data comes and none goes back."""

from __future__ import annotations

from ntmd.node.common import Common
from ntmd.node.tunnels import Tunnel
from ntmd.proto.messages import Seen
from ntmd.proto.plane import TunnelActivity
from ntmd.proto.timing import SEEN_INTERVAL


class SeenReports:
    """Sends ``Seen`` at most every 100 ms, never when idle."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._sent: dict[int, tuple[float, int]] = {}

    def activity(self, tunnel: Tunnel, event: TunnelActivity, now: float) -> None:
        """Running totals came in, ``tunnel.activity`` is already the new one."""
        at, counted = self._sent.get(tunnel.number, (-1e9, 0))
        if event.rx_packets == counted or tunnel.handle is None:
            return
        if now - event.last_tx < SEEN_INTERVAL or now - at < SEEN_INTERVAL * 0.9:
            return
        counters = tunnel.seen()
        if counters is None:
            return
        self._sent[tunnel.number] = (now, event.rx_packets)
        self._common.engine.tell(tunnel.handle, Seen(counters), now)
