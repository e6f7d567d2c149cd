"""The node's own moves: the underlay changed, everything follows from the new sockets.

Order on the wire: LegMove to the relays (they forward nothing from an unknown source), then a
sealed Move to every peer over its relay leg and directly, then the coordinator. Keys, tunnel
entries and counters stay; data leaves on the relay leg and towards the peer's old endpoint at once.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.candidates import own_candidates
from ntmd.node.common import Common
from ntmd.node.inputs import NetworkChanged
from ntmd.node.journal import Journal
from ntmd.node.probing import Prober, Proof
from ntmd.node.registration import Registration
from ntmd.node.relays import Relays
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Calling, Open, Waking
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import OwnSocket, Underlay
from ntmd.proto.messages import Move, MoveCause
from ntmd.proto.timing import (
    MOVE_BUDGET,
    MOVE_PADDING_ACTIVE,
    MOVE_PADDING_IDLE,
    RECENT_PEER,
)
from ntmd.proto.types import Endpoint, Path, Peer, path_id

MOVE_HEADROOM = 180  # header, tag and the other fields of a Move, bytes
REKEY_AFTER_MOVE = 2.0  # data keys are replaced this long after a move (rule S3), seconds
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
        reflexive: Callable[[], dict[int, Endpoint]],
        call: Callable[[Tunnel, float], None],
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._relays, self._tunnels, self._steering = relays, tunnels, steering
        self._registration, self._journal, self._call = registration, journal, call
        self._reflexive = reflexive
        self._cause = (MoveCause.NETWORK_CHANGED, "network changed")
        self._old: dict[int, Path] = {}
        self._owed: dict[int, int] = {}  # tunnels whose last Move nobody answered: its seq
        self._lost: dict[int, int] = {}  # ... and whose ladder over the relay is over
        self._spent = 0
        self._spent_at = -1e9

    # -------------------------------------------------------------- what happened

    def network_changed(self, event: NetworkChanged, now: float) -> None:
        """The watcher saw the underlay change."""
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
        self._registration.say_state(now)

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

    def socket_opened(self, socket: OwnSocket, now: float) -> None:
        """A new own socket can be used."""
        self._rehome(now)
        self._registration.say_state(now)

    def socket_failed(self, socket: OwnSocket, now: float) -> None:
        """A socket died: like a link that was lost."""
        self._cause = (MoveCause.SEND_ERROR, f"socket on {socket.network.interface} failed")
        self._leave(socket)
        if self._underlay.usable():
            self._rehome(now)
        self._registration.say_state(now)

    # -------------------------------------------------------------- moving everything

    def _rehome(self, now: float) -> None:
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
        """Where a Move goes out: the relay leg, the peer's last endpoint, its candidates."""
        ways = [w for _, w in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)][:1]
        if not tunnel.relay_only:
            if old is not None and not old.relayed:
                ways += self._underlay.ways((old.remote,))[:1]
            ways += self._underlay.ways(tuple(tunnel.candidates))
        return list(dict.fromkeys(ways))[:WAYS_PER_MOVE]

    def _move(self, tunnel: Tunnel, now: float) -> None:
        """One peer: a sealed Move on every way, data on the two best at once."""
        old = self._old.pop(tunnel.number, None) or tunnel.paths.primary
        names = self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)
        if names:
            self._relays.prepare(names[0][0], now)
        ways = self._ways(tunnel, old)
        if not ways or tunnel.handle is None:
            if old is not None:
                self._old[tunnel.number] = old
            return
        tunnel.paths.lapse()
        tunnel.doubted = tunnel.unanswered = None
        tunnel.move_seq += 1
        self._owed[tunnel.number] = tunnel.move_seq
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
        )
        self._tunnels.switch(tunnel, tuple(ways[:2]))
        for way in ways:
            self._send_move(tunnel, way, now)
        self._journal.sent(tunnel, now)
        if isinstance(tunnel.state, Open):
            self._common.timers.set(
                ("rekey", tunnel.number),
                now + REKEY_AFTER_MOVE,
                lambda at: self._steering.rekey(tunnel, at),
            )

    def _send_move(self, tunnel: Tunnel, way: Path, now: float) -> None:
        seq, cause = tunnel.move_seq, int(self._cause[0])
        active = now - max(tunnel.busy_at, tunnel.heard_at) < RECENT_PEER
        size = MOVE_PADDING_ACTIVE if active else MOVE_PADDING_IDLE

        def make(nonce: int) -> Move:
            here = own_candidates(self._underlay, self._reflexive(), 8)
            padding = self._padding(size, now)
            seen = tunnel.seen()
            return Move(seq, path_id(way.socket), cause, nonce, here, True, seen, padding)

        assert tunnel.handle is not None
        self._prober.start(
            tunnel.handle,
            way,
            now,
            lambda proof, at: self._answered(tunnel, seq, proof, at),
            lost=lambda at: self._unanswered(tunnel, way, at),
            make=make,
            purpose="move",
        )

    def leg_changed(self, peer: Peer, now: float) -> None:
        """A leg came (back) after the Move had gone nowhere: the peer still has to be told."""
        tunnel = self._tunnels.by_key.get(peer.key)
        if tunnel is not None and self._lost.get(tunnel.number) == tunnel.move_seq:
            self._move_again(tunnel, now)

    def _move_again(self, tunnel: Tunnel, now: float) -> None:
        if self._owed.get(tunnel.number) != tunnel.move_seq:
            return
        way = self._steering.relay_way(tunnel)
        if not tunnel.live or tunnel.handle is None or way is None:
            return
        if not self._prober.under_way(tunnel.handle, way):
            self._send_move(tunnel, way, now)

    def _padding(self, size: int, now: float) -> bytes:
        """Zeros up to ``size`` on the wire, within the budget of all Moves of one event."""
        if now - self._spent_at > REKEY_AFTER_MOVE:
            self._spent, self._spent_at = 0, now
        if self._spent + size > MOVE_BUDGET:
            return b""
        self._spent += size
        return bytes(max(0, size - MOVE_HEADROOM))

    def _answered(self, tunnel: Tunnel, seq: int, proof: Proof, now: float) -> None:
        """The peer knows, and the way works both ways."""
        self._journal.heard(tunnel, now)
        if tunnel.move_seq != seq:
            return
        self._owed.pop(tunnel.number, None)
        sending = tunnel.paths.sending
        if not proof.path.relayed or proof.path in sending:
            if not proof.path.relayed:
                tunnel.paths.prove(proof.path, proof.rtt, now)
            if len(sending) > 1 and (not proof.path.relayed or sending[0] == proof.path):
                self._tunnels.switch(tunnel, (proof.path,))
                self._journal.arrived(tunnel, self._steering.describe(proof.path))
        self._steering.on_proof(tunnel, proof, now)

    def _unanswered(self, tunnel: Tunnel, way: Path, now: float) -> None:
        """A whole ladder on one way came to nothing."""
        tunnel.paths.disprove(way)
        if way.relayed:
            self._lost[tunnel.number] = tunnel.move_seq
            if self._steering.relay_way(tunnel) != way:  # the relay had lost that leg meanwhile
                self._move_again(tunnel, now)
        if way in tunnel.paths.sending:
            rest = tuple(p for p in tunnel.paths.sending if p != way)
            if rest:
                self._tunnels.switch(tunnel, rest)
            else:
                self._steering.rescue(tunnel, now)
