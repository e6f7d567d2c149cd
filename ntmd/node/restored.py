"""After an outage: what it ate leaves again, and once more if that was lost as well (rule S14).

The first datagrams on a new way are the ones most likely to be lost: a NAT or a relay may not be
ready for it, and all that had waited leaves at once. A stream whose only repetition was among them
would wait for its own clock, for seconds. So the peer is asked twice, soon afterwards, what came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntmd.node.common import Common
from ntmd.node.probing import Prober, Proof
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.proto.messages import SeenCounters
from ntmd.proto.timing import ONE_OUTAGE, PARKED_STREAM_SECONDS, RESEND_LOOKS

if TYPE_CHECKING:
    from ntmd.node.steering import Steering


class Restored:
    """Tunnels that have a way again."""

    def __init__(
        self, common: Common, prober: Prober, tunnels: Tunnels, steering: Steering
    ) -> None:
        self._common, self._prober = common, prober
        self._tunnels, self._steering = tunnels, steering
        self._until: dict[int, float] = {}  # tunnel: a wish until then is about the same outage

    def begin(self, tunnel: Tunnel, seen: SeenCounters | None, now: float) -> None:
        """There is a way; ``seen``: what had arrived at the peer when it said so, if it did."""
        self._wish(tunnel, seen, now)
        last = tunnel.activity.last_tx if tunnel.activity is not None else -1e9
        if now - last <= PARKED_STREAM_SECONDS:
            self._arm(tunnel, 0, now)

    def forget(self, tunnel: Tunnel) -> None:
        """The association ended."""
        self._until.pop(tunnel.number, None)
        self._common.timers.cancel(("restored", tunnel.number))

    def _wish(self, tunnel: Tunnel, seen: SeenCounters | None, now: float) -> None:
        again = now < self._until.get(tunnel.number, -1e9)
        if self._tunnels.resend(tunnel, seen, again=again):
            self._until[tunnel.number] = now + ONE_OUTAGE

    def _arm(self, tunnel: Tunnel, look: int, now: float) -> None:
        if look < len(RESEND_LOOKS):
            self._common.timers.set(
                ("restored", tunnel.number),
                now + RESEND_LOOKS[look],
                lambda at: self._look(tunnel, look, at),
            )

    def _look(self, tunnel: Tunnel, look: int, now: float) -> None:
        primary = tunnel.paths.primary
        if primary is None or tunnel.handle is None or not tunnel.installed:
            return

        def came(proof: Proof, at: float) -> None:
            self._wish(tunnel, proof.answer.seen, at)
            self._steering.on_proof(tunnel, proof, at)

        self._prober.start(tunnel.handle, primary, now, came, ladder=(), purpose="restored")
        self._arm(tunnel, look + 1, now)
