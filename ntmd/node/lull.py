"""The end of a flow that only comes in: the peer has stopped, or the own link carries nothing.

Whoever sends notices silence by what is not answered (:mod:`ntmd.node.doubt`); whoever only
receives notices that the next datagrams are late. Where there is another link to go to, a server is
asked on both: nothing is concluded from the silence itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ntmd.node.chance import CERTAIN, nats
from ntmd.node.common import Common
from ntmd.node.links import Links
from ntmd.node.path import RTT_UNKNOWN
from ntmd.node.probing import Prober
from ntmd.node.tunnels import Tunnel
from ntmd.node.uplink import Uplink
from ntmd.proto.timing import DOUBT_SECONDS, PATH_CHECK, SILENCE_FLOOR

ASKED_MOST = 3  # times, PATH_CHECK apart
LATE = 4  # datagrams that stay out one after the other
SPARSE = 0.3  # seconds between datagrams from which on nothing is expected
SMOOTH = 0.3  # weight of the newest report
TICK = 0.05  # seconds between looks at what was asked
UNKNOWN = 1.0  # spacing that is assumed before any is known, seconds


@dataclass(slots=True)
class _Flow:
    """What comes from a peer: mean spacing of datagrams, and when they were last counted."""

    spacing: float
    at: float
    reports: int = 0
    asked: int = 0  # times since the last datagram


class Lull:
    """Expects the next datagrams of each tunnel. ``ask(socket, now, answers)`` asks a server on
    every link and has ``answers(other link, now)`` called; ``loss`` is a tunnel's, 0 to 1."""

    def __init__(
        self,
        common: Common,
        links: Links,
        prober: Prober,
        server: Callable[[], Uplink],
        ask: Callable[[int, float, Callable[[int, float], None]], None],
        loss: Callable[[Tunnel], float],
    ) -> None:
        self._common, self._links, self._prober = common, links, prober
        self._server, self._ask, self._loss = server, ask, loss
        self._flows: dict[int, _Flow] = {}
        self._asked = -1e9

    def came(self, tunnel: Tunnel, count: int, now: float) -> None:
        """So many datagrams came in since the last report."""
        flow = self._flows.setdefault(tunnel.number, _Flow(UNKNOWN, now - UNKNOWN))
        spacing = min(now - flow.at, UNKNOWN) / count
        flow.reports += 1
        flow.spacing += max(SMOOTH, 1 / flow.reports) * (spacing - flow.spacing)
        flow.at, flow.asked = now, 0
        if flow.spacing > SPARSE:
            self._common.timers.cancel(("lull", tunnel.number))
            return
        self._arm(tunnel, now + max(SILENCE_FLOOR, LATE * flow.spacing))

    def _arm(self, tunnel: Tunnel, due: float) -> None:
        self._common.timers.set(("lull", tunnel.number), due, lambda at: self._late(tunnel, at))

    def _late(self, tunnel: Tunnel, now: float) -> None:
        flow, primary = self._flows.get(tunnel.number), tunnel.paths.primary
        if flow is None or primary is None or flow.asked >= ASKED_MOST:
            self._flows.pop(tunnel.number, None)
            return
        flow.asked += 1
        self._arm(tunnel, now + PATH_CHECK)
        if now - self._asked >= PATH_CHECK and self._links.others(primary.socket):
            self._asked = now
            socket = primary.socket
            self._ask(socket, now, lambda _, at: self._answered(tunnel, socket, now, at))

    def _answered(self, tunnel: Tunnel, socket: int, since: float, now: float) -> None:
        """Another link answers: is this one silent, or were the questions on it lost?"""
        server, primary = self._server(), tunnel.paths.primary
        if primary is None or primary.socket != socket or self._links.heard_since(socket, since):
            return
        way = server.path
        if server.handle is None or way is None or way.socket != socket:
            return
        due = now - 1.25 * (server.rtt or RTT_UNKNOWN)
        asked = sum(at <= due for at in self._prober.copies(server.handle, way))
        if asked * nats(self._loss(tunnel)) >= CERTAIN:
            self._links.silent(socket, now)
        elif now - since < DOUBT_SECONDS:
            self._common.timers.set(
                ("lull ends", tunnel.number),
                now + TICK,
                lambda at: self._answered(tunnel, socket, since, at),
            )

    def forget(self, tunnel: Tunnel) -> None:
        """The association ended."""
        self._flows.pop(tunnel.number, None)
        for name in ("lull", "lull ends"):
            self._common.timers.cancel((name, tunnel.number))
