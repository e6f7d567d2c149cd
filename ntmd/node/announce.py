"""Telling a peer where to send from now on: sealed Moves, repeated until one is answered.

A Move goes out on several ways at once. If none is answered, it is said again as soon as a relay
leg to the peer comes back: until then the peer may go on sending to where nobody is.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.candidates import own_candidates
from ntmd.node.common import Common
from ntmd.node.journal import Journal
from ntmd.node.probing import Prober, Proof
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Open
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.proto.messages import Move, MoveCause
from ntmd.proto.timing import (
    MOVE_BUDGET,
    MOVE_PADDING_ACTIVE,
    MOVE_PADDING_IDLE,
    RECENT_PEER,
)
from ntmd.proto.types import Endpoint, Path, Peer, path_id

MOVE_HEADROOM = 180  # header, tag and the other fields of a Move, bytes
MEET_AFTER = 0.2  # a Move unanswered for this long has the coordinator asked, seconds, or ...
LATE, SLACK = 1.5, 0.02  # ... after so many of the usual round trips and so many seconds
BURST = 2.0  # Moves within this time share one budget of bytes, seconds


class Announcer:
    """Sends Moves and remembers which peers have not answered their last one."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        tunnels: Tunnels,
        steering: Steering,
        journal: Journal,
        reflexive: Callable[[], dict[int, Endpoint]],
        ask: Callable[[Tunnel, float], None],
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._tunnels, self._steering, self._journal = tunnels, steering, journal
        self._reflexive, self._ask = reflexive, ask
        self._owed: dict[int, tuple[int, MoveCause, bool]] = {}  # last Move, unanswered
        self._lost: dict[int, int] = {}  # ... and whose ladder over the relay is over: its seq
        self._spent = 0
        self._spent_at = -1e9

    def send(
        self, tunnel: Tunnel, ways: list[Path], cause: MoveCause, old_dead: bool, now: float
    ) -> None:
        """Send the Move of the tunnel's present seq, on every way."""
        seq = tunnel.move_seq
        self._owed[tunnel.number] = (seq, cause, old_dead)
        wait = min(MEET_AFTER, LATE * tunnel.paths.usual + SLACK)
        self._common.timers.set(
            ("meet", tunnel.number), now + wait, lambda at: self._meet(tunnel, seq, at)
        )
        for way in ways:
            self._send(tunnel, way, cause, old_dead, now)

    def _send(
        self, tunnel: Tunnel, way: Path, cause: MoveCause, old_dead: bool, now: float
    ) -> None:
        seq, primary = tunnel.move_seq, tunnel.paths.primary or way
        active = now - max(tunnel.busy_at, tunnel.heard_at) < RECENT_PEER
        size = MOVE_PADDING_ACTIVE if active else MOVE_PADDING_IDLE

        def make(nonce: int) -> Move:
            here = own_candidates(self._underlay, self._reflexive(), 8)
            padding = self._padding(size, now)
            number = path_id((way if old_dead else primary).socket)
            return Move(seq, number, int(cause), nonce, here, old_dead, tunnel.seen(), padding)

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

    def _padding(self, size: int, now: float) -> bytes:
        """Zeros up to ``size`` on the wire, within the budget of all Moves of one event."""
        if now - self._spent_at > BURST:
            self._spent, self._spent_at = 0, now
        if self._spent + size > MOVE_BUDGET:
            return b""
        self._spent += size
        return bytes(max(0, size - MOVE_HEADROOM))

    def _meet(self, tunnel: Tunnel, seq: int, now: float) -> None:
        """No answer on any way: the peer has moved too and the relay is gone, perhaps. The
        coordinator knows where both are."""
        owed = self._owed.get(tunnel.number)
        if owed is not None and owed[0] == seq and isinstance(tunnel.state, Open):
            self._ask(tunnel, now)

    def leg_changed(self, peer: Peer, now: float) -> None:
        """A leg came (back) after the Move had gone nowhere: the peer still has to be told."""
        tunnel = self._tunnels.by_key.get(peer.key)
        if tunnel is not None and self._lost.get(tunnel.number) == tunnel.move_seq:
            self._again(tunnel, now)

    def _again(self, tunnel: Tunnel, now: float) -> None:
        seq, cause, old_dead = self._owed.get(tunnel.number, (-1, MoveCause.LINK_LOST, True))
        way = self._steering.relay_way(tunnel)
        if seq != tunnel.move_seq or not tunnel.live or tunnel.handle is None or way is None:
            return
        if not self._prober.under_way(tunnel.handle, way):
            self._send(tunnel, way, cause, old_dead, now)

    def _answered(self, tunnel: Tunnel, seq: int, proof: Proof, now: float) -> None:
        """The peer knows, and the way works both ways."""
        self._journal.heard(tunnel, now)
        if tunnel.move_seq != seq:
            return
        owed = self._owed.pop(tunnel.number, None)
        sending = tunnel.paths.sending
        if not proof.path.relayed or proof.path in sending:
            if not proof.path.relayed:
                tunnel.paths.prove(proof.path, proof.rtt, now)
            if len(sending) > 1 and (not proof.path.relayed or sending[0] == proof.path):
                self._settle(tunnel, proof.path)
            elif len(sending) > 1:
                self._second_leg(tunnel, proof.path, seq, now)
        self._steering.on_proof(tunnel, proof, now)
        if owed is not None and (owed[2] or owed[1] == MoveCause.PATH_SILENT):
            self._steering.restored.begin(tunnel, proof.answer.seen, now)

    def _settle(self, tunnel: Tunnel, path: Path) -> None:
        self._tunnels.switch(tunnel, (path,))
        self._journal.arrived(tunnel, self._steering.describe(path))

    def _second_leg(self, tunnel: Tunnel, path: Path, seq: int, now: float) -> None:
        """The leg at the second relay answers first: it carries, beside the others for a moment."""
        rest = tuple(p for p in tunnel.paths.sending if p != path)
        self._tunnels.switch(tunnel, (path, *rest))

        def alone(_: float) -> None:
            if tunnel.move_seq == seq and tunnel.paths.primary == path:
                self._settle(tunnel, path)

        self._common.timers.set(("meet", tunnel.number), now + MEET_AFTER, alone)

    def _unanswered(self, tunnel: Tunnel, way: Path, now: float) -> None:
        """A whole ladder on one way came to nothing."""
        tunnel.paths.disprove(way)
        if way.relayed:
            self._lost[tunnel.number] = tunnel.move_seq
            if self._steering.relay_way(tunnel) != way:  # the relay had lost that leg meanwhile
                self._again(tunnel, now)
        if way in tunnel.paths.sending:
            rest = tuple(p for p in tunnel.paths.sending if p != way)
            if rest:
                self._tunnels.switch(tunnel, rest)
            else:
                self._steering.rescue(tunnel, now)
