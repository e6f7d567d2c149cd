"""The first word after a pause: whether the way that carried still does, nobody knows by then.

A NAT forgets or rebinds without any event, at either end. So a tunnel that rests is made to send
its next datagrams on the relay leg too, before anything wants to leave; the first of them has the
way asked, and silence of little more than one round trip makes it doubtful (rules C6, S6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntmd.node.common import Common
from ntmd.node.path import RTT_UNKNOWN
from ntmd.node.probing import Proof
from ntmd.node.tunnel import Open
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.proto.timing import REST_AFTER
from ntmd.proto.types import Path

if TYPE_CHECKING:
    from ntmd.node.steering import Steering

LATE = 1.5  # round trips, and ...
SLACK = 0.02  # ... so many seconds more make the way doubtful if nothing was answered


class Rest:
    """Tunnels without data for a while, and those that have just begun to speak again."""

    def __init__(self, common: Common, tunnels: Tunnels, steering: Steering) -> None:
        self._common, self._tunnels, self._steering = common, tunnels, steering
        self._resting: dict[int, Path] = {}  # tunnel: its primary when it fell silent
        self._asked: dict[int, Path] = {}  # ... and when it spoke again, until that answers

    def watch(self, tunnel: Tunnel, now: float) -> None:
        """Look again when the tunnel may have been silent for long enough."""
        self._arm(tunnel, max(tunnel.busy_at, now - REST_AFTER) + REST_AFTER)

    def _arm(self, tunnel: Tunnel, due: float) -> None:
        self._common.timers.set(("rest", tunnel.number), due, lambda at: self._look(tunnel, at))

    def _look(self, tunnel: Tunnel, now: float) -> None:
        primary = tunnel.paths.primary
        if not isinstance(tunnel.state, Open) or primary is None:
            return
        if now < tunnel.busy_at + REST_AFTER:  # as it was armed: differences round otherwise
            self.watch(tunnel, now)
            return
        if len(tunnel.paths.sending) > 1:  # a move or a doubt is being settled
            self._arm(tunnel, now + REST_AFTER)
            return
        self._resting[tunnel.number] = primary
        leg = self._steering.relay_way(tunnel)
        if leg is not None and not primary.relayed:
            self._tunnels.switch(tunnel, (primary, leg))

    def stirred(self, tunnel: Tunnel, now: float) -> None:
        """Data went through the tunnel, either way."""
        primary = self._resting.pop(tunnel.number, None)
        if primary is None:
            return
        self.watch(tunnel, now)
        if primary != tunnel.paths.primary or tunnel.doubted is not None:
            return
        self._asked[tunnel.number] = primary
        self._steering.prepare(tunnel, now)
        self._steering.doubts.ask(tunnel, primary, now)
        wait = LATE * (tunnel.paths.rtt(primary) or RTT_UNKNOWN) + SLACK
        self._common.timers.set(
            ("stirred", tunnel.number), now + wait, lambda at: self._silent(tunnel, at)
        )

    def proved(self, tunnel: Tunnel, proof: Proof) -> None:
        """A challenge was answered; that of the way that carried ends the copies."""
        asked = self._asked.get(tunnel.number)
        if asked is None or asked != proof.path:
            return
        del self._asked[tunnel.number]
        self._common.timers.cancel(("stirred", tunnel.number))
        sending = tunnel.paths.sending
        doubled = len(sending) == 2 and sending[0] == asked and sending[1].relayed
        if doubled and tunnel.doubted is None:
            self._tunnels.switch(tunnel, (asked,))

    def _silent(self, tunnel: Tunnel, now: float) -> None:
        asked = self._asked.pop(tunnel.number, None)
        if asked is not None and asked == tunnel.paths.primary:
            self._steering.doubt(tunnel, now)

    def forget(self, tunnel: Tunnel) -> None:
        """The association ended."""
        self._resting.pop(tunnel.number, None)
        self._asked.pop(tunnel.number, None)
        for name in ("rest", "stirred"):
            self._common.timers.cancel((name, tunnel.number))
