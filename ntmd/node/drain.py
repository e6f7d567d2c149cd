"""A relay that is about to leave says so: its legs move to another relay before it is gone.

A leg elsewhere is used only once the peer has answered over it, so that nothing is sent to a relay
at which the other end is not ready yet. Without a leg elsewhere the coordinator is asked for one.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.common import Common
from ntmd.node.probing import Prober, Proof
from ntmd.node.relays import Leg, Relays
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.proto.messages import Draining
from ntmd.proto.types import Path, Peer

ASK_SPREAD = 2.0  # questions for legs elsewhere are spread over this, seconds


class Drain:
    """Moves traffic off draining relays. ``ask`` asks the coordinator for a way to a name."""

    def __init__(
        self,
        common: Common,
        prober: Prober,
        relays: Relays,
        tunnels: Tunnels,
        *,
        ask: Callable[[str, bytes, float], None],
        leg_changed: Callable[[Peer, float], None],
    ) -> None:
        self._common, self._prober = common, prober
        self._relays, self._tunnels = relays, tunnels
        self._ask, self._leg_changed = ask, leg_changed

    def told(self, name: str, message: Draining, now: float) -> None:
        """A relay says that it drains, or that it stays after all."""
        self._common.tell("info", "relay drains", relay=name, draining=message.draining)
        for peer in self._relays.drains(name, message.draining, now):
            if message.draining:
                self._away(peer, now)
            else:
                self._leg_changed(peer, now)

    def leg_changed(self, peer: Peer, now: float) -> None:
        """A leg of the peer opened, maybe the one that was asked for."""
        if self._leaves(peer):
            self._prove(peer, now)

    # -------------------------------------------------------------- parts

    def _legs(self, peer: Peer) -> list[tuple[bool, Leg, Path]]:
        """The peer's open legs: whether the relay drains, the leg, and the way."""
        return [
            (relay.draining, leg, Path(path.socket, path.remote, leg.leg))
            for relay in self._relays.by_name.values()
            for leg in relay.legs.values()
            if leg.peer.key == peer.key and leg.leg
            for path in [relay.uplink.path]
            if path is not None and relay.uplink.up
        ]

    def _leaves(self, peer: Peer) -> bool:
        return any(draining for draining, _, _ in self._legs(peer))

    def _away(self, peer: Peer, now: float) -> None:
        if not all(draining for draining, _, _ in self._legs(peer)):
            self._prove(peer, now)
            return
        tunnel = self._tunnels.by_key.get(peer.key)
        primary = tunnel.paths.primary if tunnel is not None and tunnel.live else None
        if primary is not None and primary.relayed:  # the others find a relay when they need one
            wait = ASK_SPREAD * self._common.number(2) / 0x1_0000
            key = ("drain", peer.key)
            self._common.timers.set(key, now + wait, lambda at: self._ask(peer.name, b"", at))

    def _prove(self, peer: Peer, now: float) -> None:
        tunnel = self._tunnels.by_key.get(peer.key)
        if tunnel is None or tunnel.handle is None or not tunnel.live:
            return  # whoever calls next takes any leg that is open
        for draining, leg, way in self._legs(peer):
            if not (draining or leg.proved or self._prober.under_way(tunnel.handle, way)):
                self._challenge(tunnel, leg, way, now)

    def _challenge(self, tunnel: Tunnel, leg: Leg, way: Path, now: float) -> None:
        assert tunnel.handle is not None

        def won(proof: Proof, at: float) -> None:
            leg.proved = True
            self._leg_changed(tunnel.peer, at)

        self._prober.start(tunnel.handle, way, now, won, purpose="drain")
