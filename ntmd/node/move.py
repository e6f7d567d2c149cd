"""The node's own moves: the underlay changed, everything follows from the new sockets.

Order on the wire: LegMove to the relays (they forward nothing from an unknown source), then a
sealed Move to every peer over its relay leg and directly, then the coordinator. Keys, tunnel
entries and counters stay; data leaves on the relay leg and towards the peer's old endpoint at once.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.announce import Announcer
from ntmd.node.common import Common
from ntmd.node.inputs import NetworkChanged
from ntmd.node.journal import Journal
from ntmd.node.path import PATHS_AT_ONCE
from ntmd.node.probing import Prober
from ntmd.node.registration import Registration
from ntmd.node.relays import Relays
from ntmd.node.shift import REKEY_AFTER_MOVE, Shift
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Calling, Open, Waking
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import OwnSocket, Underlay
from ntmd.proto.messages import MoveCause
from ntmd.proto.types import Path

WAYS_PER_MOVE = 9  # the relay leg and at most this many direct ways in all


class Moves:
    """Follows the underlay."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        relays: Relays,
        tunnels: Tunnels,
        steering: Steering,
        registration: Registration,
        journal: Journal,
        announcer: Announcer,
        shift: Shift,
        call: Callable[[Tunnel, float], None],
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._relays, self._tunnels, self._steering = relays, tunnels, steering
        self._registration, self._journal, self._call = registration, journal, call
        self._announcer, self._shift = announcer, shift
        self._cause = (MoveCause.NETWORK_CHANGED, "network changed")
        self._old: dict[int, Path] = {}

    # -------------------------------------------------------------- what happened

    def network_changed(self, event: NetworkChanged, now: float) -> tuple[OwnSocket, ...]:
        """The watcher saw the underlay change. Returns the sockets that are ready by that."""
        change = self._underlay.change(event, now)
        if change.gone:
            present = {s.network.interface for s in self._underlay.sockets.values()}
            lost = next((s for s in change.gone if s.network.interface not in present), None)
            if lost is not None:
                self._cause = (MoveCause.LINK_LOST, f"link down {lost.network.interface}")
            else:
                name = change.gone[0].network.interface
                self._cause = (MoveCause.NETWORK_CHANGED, f"new address on {name}")
            for socket in change.gone:
                self._leave(socket)
        for socket in change.routed:
            self._steering_afresh(socket)
        if (change.gone or change.routed) and self._underlay.usable():
            self._rehome(now)
        if change.demoted:
            self._shift.preferred_changed(now, _hint(change.demoted[0], self._underlay))
        self._registration.say_state(now)
        return change.ready

    def _steering_afresh(self, socket: OwnSocket) -> None:
        """A gateway appeared: whatever was sent on this socket before may never have left."""
        uplinks = [r.uplink for r in self._relays.by_name.values()]
        for uplink in (self._registration.uplink, *uplinks):
            if uplink.path is not None and uplink.path.socket == socket.number:
                uplink.proven = False

    def _leave(self, socket: OwnSocket) -> None:
        """A socket is gone: nothing is sent or awaited on it any more."""
        self._prober.cancel_socket(socket.number)
        for tunnel in self._tunnels.all():
            primary = tunnel.paths.primary
            if primary is not None and primary.socket == socket.number:
                self._old.setdefault(tunnel.number, primary)
            tunnel.paths.drop_socket(socket.number)

    def socket_ready(self, now: float) -> None:
        """A new own socket can be used."""
        self._rehome(now)
        self._shift.keep_warm(now)
        self._registration.say_state(now)

    def socket_failed(self, socket: OwnSocket, now: float) -> None:
        """A socket died: like a link that was lost."""
        self._cause = (MoveCause.SEND_ERROR, f"socket on {socket.network.interface} failed")
        self._leave(socket)
        if self._underlay.usable():
            self._rehome(now)
        self._registration.say_state(now)

    def woke(self, asleep: float, now: float) -> None:
        """The machine slept: every mapping and path is doubtful, so everybody is told anew.

        Relays first, for they forward nothing from an unknown source; then the tunnels that were
        in use; one that slept is woken by its first packet.
        """
        self._cause = (MoveCause.WAKE, f"woke after {asleep:.0f} s")
        self._registration.last_cause = self._cause[0]
        self._underlay.changed_at = now
        if not self._underlay.usable():
            return
        for uplink in self._relays.uplinks():
            uplink.woke(now)
        for tunnel in sorted(self._tunnels.all(), key=lambda t: (-t.busy_at, t.number)):
            if isinstance(tunnel.state, Calling | Waking):
                self._call(tunnel, now)
            elif isinstance(tunnel.state, Open):
                self._move(tunnel, now)
        self._registration.uplink.woke(now)

    # -------------------------------------------------------------- moving everything

    def _rehome(self, now: float) -> None:
        """The own networks, or what they reach, are others: a coordinator's word about which way
        is possible was about those before."""
        for tunnel in self._tunnels.all():
            tunnel.relay_only = False
        self._registration.last_cause = self._cause[0]
        self._relays.network_changed(now)
        order = sorted(self._tunnels.all(), key=lambda t: (-t.busy_at, t.number))
        for tunnel in order:
            if isinstance(tunnel.state, Calling | Waking):
                self._call(tunnel, now)
            elif tunnel.live:
                if self._must_move(tunnel):
                    self._move(tunnel, now)
                else:
                    self._steering.say_candidates(tunnel, now)
                    self._steering.explore(tunnel, now)
        if not self._registration.uplink.network_changed(now):
            self._registration.refresh(now)
            if self._registration.nat.endpoints:
                self._registration.nat.run(self._registration.nat.endpoints, now)

    def _must_move(self, tunnel: Tunnel) -> bool:
        """Whether what the tunnel is sent on is gone, or the relay was told another source."""
        primary = tunnel.paths.primary
        if primary is None or not self._underlay.is_open(primary.socket):
            return True
        relay = self._steering.relay_way(tunnel)
        return primary.relayed and relay is not None and relay.socket != primary.socket

    def _ways(self, tunnel: Tunnel, old: Path | None) -> list[Path]:
        """Where a Move goes out: a relay leg, the peer's last endpoint, the leg at a second relay
        (the first may have died unnoticed), its candidates."""
        legs = [w for _, w in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)]
        ways = legs[:1]
        if not tunnel.relay_only and old is not None and not old.relayed:
            ways += self._underlay.ways((self._underlay.native(old),))[:1]
        ways += legs[1:2]
        if not tunnel.relay_only:
            ways += self._underlay.ways(tuple(tunnel.candidates))
        return list(dict.fromkeys(ways))[:WAYS_PER_MOVE]

    def _move(self, tunnel: Tunnel, now: float) -> None:
        """One peer: a sealed Move on every way, data on the two best at once."""
        old = self._old.pop(tunnel.number, None) or tunnel.paths.primary
        names = self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)
        for name, _ in names[:2]:
            self._relays.prepare(name, now)
        ways = self._ways(tunnel, old)
        if not ways or tunnel.handle is None:
            if old is not None:
                self._old[tunnel.number] = old
            return
        tunnel.paths.lapse()
        tunnel.doubted = tunnel.unanswered = None
        tunnel.move_seq += 1
        self._prober.cancel(tunnel.handle)
        self._journal.begin(
            tunnel,
            own=True,
            seq=tunnel.move_seq,
            cause=self._cause[1],
            before=self._steering.describe(old),
            after=self._steering.describe(ways[0]),
            started=self._underlay.changed_at,
            now=now,
            evidence=f"{self._cause[1]}, noticed {(now - self._underlay.changed_at) * 1000:.0f} ms"
            " before",
            decision=f"tell the peer on {len(ways)} ways, send on "
            + " and ".join(self._steering.describe(way) for way in ways[:2]),
        )
        self._announcer.send(tunnel, ways, self._cause[0], True, now)
        self._tunnels.switch(tunnel, tuple(ways[:PATHS_AT_ONCE]))
        self._common.engine.widen(tunnel.handle, ways[:PATHS_AT_ONCE], now)  # a rekey under way
        self._journal.sent(tunnel, now)
        if isinstance(tunnel.state, Open):
            self._common.timers.set(
                ("rekey", tunnel.number),
                now + REKEY_AFTER_MOVE,
                lambda at: self._steering.rekey(tunnel, at),
            )


def _hint(socket: OwnSocket, underlay: Underlay) -> tuple[MoveCause, str]:
    """What the watcher's change says of a link that still works."""
    name = socket.network.interface
    now = underlay.sockets.get(socket.number)
    if now is not None and now.deprecated and not socket.deprecated:
        return MoveCause.NETWORK_CHANGED, f"address deprecated on {name}"
    return MoveCause.NETWORK_CHANGED, f"other link preferred to {name}"
