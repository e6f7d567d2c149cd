"""The end of a flow that only comes in: the peer has stopped, or the own link carries nothing.

Whoever sends notices silence by what is not answered (:mod:`ntmd.node.doubt`); whoever only
receives notices that the next datagrams are late. Where there is another link to go to, a server is
asked on both: nothing is concluded from the silence itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ntmd.node.common import Common
from ntmd.node.links import Links
from ntmd.node.tunnels import Tunnel
from ntmd.proto.timing import PATH_CHECK, SILENCE_FLOOR

LATE = 4  # datagrams that stay out one after the other
SPARSE = 0.3  # seconds between datagrams from which on nothing is expected
SMOOTH = 0.3  # weight of the newest report
UNKNOWN = 1.0  # spacing that is assumed before any is known, seconds


@dataclass(slots=True)
class _Flow:
    """What comes from a peer: mean spacing of datagrams, and when they were last counted."""

    spacing: float
    at: float


class Lull:
    """Expects the next datagrams of each tunnel. ``ask(socket, now)`` asks servers."""

    def __init__(self, common: Common, links: Links, ask: Callable[[int, float], None]) -> None:
        self._common, self._links, self._ask = common, links, ask
        self._flows: dict[int, _Flow] = {}
        self._asked = -1e9

    def came(self, tunnel: Tunnel, count: int, now: float) -> None:
        """So many datagrams came in since the last report."""
        flow = self._flows.setdefault(tunnel.number, _Flow(UNKNOWN, now - UNKNOWN))
        spacing = min(now - flow.at, UNKNOWN) / count
        flow.spacing += SMOOTH * (spacing - flow.spacing)
        flow.at = now
        if flow.spacing > SPARSE:
            self._common.timers.cancel(("lull", tunnel.number))
            return
        wait = max(SILENCE_FLOOR, LATE * flow.spacing)
        self._common.timers.set(
            ("lull", tunnel.number), now + wait, lambda at: self._late(tunnel, at)
        )

    def _late(self, tunnel: Tunnel, now: float) -> None:
        self._flows.pop(tunnel.number, None)
        primary = tunnel.paths.primary
        watched = tunnel.doubted is not None or tunnel.unanswered is not None
        if primary is None or watched or now - self._asked < PATH_CHECK:
            return
        if self._links.others(primary.socket):
            self._asked = now
            self._ask(primary.socket, now)

    def forget(self, tunnel: Tunnel) -> None:
        """The association ended."""
        self._flows.pop(tunnel.number, None)
        self._common.timers.cancel(("lull", tunnel.number))
