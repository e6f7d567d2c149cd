"""Following a peer that moved: its sealed Move, or data from a new source (rule C6, 2 and 3).

The sending path switches at once and is challenged within one round trip; until the new source
answered, data also goes over the previous path or the relay leg. A source that does not answer, or
a previous one that still does after an implicit move, makes the tunnel go back.
"""

from __future__ import annotations

from dataclasses import dataclass

from ntmd.node.common import Common
from ntmd.node.direction import Directions
from ntmd.node.journal import Journal
from ntmd.node.probing import Prober, Proof
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Open
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.proto.events import MessageReceived
from ntmd.proto.messages import Answer, Move, MoveCause, Probe
from ntmd.proto.plane import PeerMoved
from ntmd.proto.timing import AMPLIFICATION, IMPLICIT_MOVE_QUIET, REVERT_PAUSE, SILENCE_FLOOR
from ntmd.proto.types import Path

QUESTION_PAUSE = 2.0  # a second source is asked about at most this often, seconds
MOVE_LEAST = 64  # bytes of a Move without its padding, at least
EXPLICIT_PATIENCE = 3.0  # a listed candidate may take a NAT and some loss to answer, in silences


@dataclass(slots=True)
class _Following:
    """A switch that is not proven yet."""

    new: Path
    previous: Path | None
    implicit: bool
    previous_answered: bool = False


class Follow:
    """Peers' moves."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        tunnels: Tunnels,
        steering: Steering,
        directions: Directions,
        journal: Journal,
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._tunnels, self._steering = tunnels, steering
        self._directions, self._journal = directions, journal
        self._pending: dict[int, _Following] = {}
        self._accepted: dict[int, float] = {}
        self._refuse_until: dict[int, float] = {}
        self._reverts: dict[int, int] = {}
        self._questioned: dict[int, float] = {}

    # -------------------------------------------------------------- explicit

    def moved(self, tunnel: Tunnel, event: MessageReceived, move: Move, now: float) -> None:
        """A sealed Move came in."""
        self._answer(tunnel, event, move.nonce, now)
        if move.seq <= tunnel.peer_seq:
            if move.seq == tunnel.peer_seq:
                self._steering.noticed(tunnel, event.path, now)
            return
        tunnel.peer_seq = move.seq
        self._accepted[tunnel.number] = now
        before = tunnel.paths.primary
        tunnel.paths.peer_left(move.path)
        if move.old_dead:
            tunnel.paths.lapse()
            tunnel.candidates.clear()
            self._steering.doubts.moot(tunnel)
            if tunnel.handle is not None:
                self._prober.cancel(tunnel.handle, keep=lambda p: p.relayed)
        self._journal.begin(
            tunnel,
            own=False,
            seq=move.seq,
            cause=_cause(move.cause),
            before=self._steering.describe(before),
            after=self._steering.describe(event.path),
            started=now,
            now=now,
            evidence=f"sealed Move {move.seq} came {self._steering.describe(event.path)}",
            decision="follow it there" if move.old_dead else "follow it; the old way still works",
        )
        self._journal.heard(tunnel, now)
        listed = self._directions.sift(move.candidates)
        if move.old_dead or not self._named(tunnel, move.path, now):
            size = MOVE_LEAST + len(move.padding)
            self._switch(tunnel, event.path, before, old_dead=move.old_dead, size=size, now=now)
        if move.old_dead or move.cause == MoveCause.PATH_SILENT:
            self._steering.restored.begin(tunnel, move.seen, now)
        self._steering.candidates_came(tunnel, listed, now)
        if isinstance(tunnel.state, Open):
            tunnel.busy_at = max(tunnel.busy_at, now - 60.0)

    def probed(self, tunnel: Tunnel, event: MessageReceived, probe: Probe) -> None:
        """The peer challenges a path, and says whether it is to carry data."""
        if not event.path.relayed and event.move_seq >= tunnel.peer_seq:
            tunnel.paths.peer_spares(event.path_id, probe.spare)

    def _answer(self, tunnel: Tunnel, event: MessageReceived, nonce: int, now: float) -> None:
        observed = None if event.path.relayed else event.path.remote
        answer = Answer(nonce, observed, self._common.clock(now), tunnel.seen())
        self._common.engine.tell(event.handle, answer, now, path=event.path)

    def _named(self, tunnel: Tunnel, number: int, now: float) -> bool:
        """The peer's old link still works: change to a proven way to the one that it names, so
        that nothing is lost and nothing goes out twice. False: there is none yet."""
        best = self._steering.best(tunnel, now)
        if best is None or not (best.relayed or tunnel.paths.ids.get(best) == number):
            return False
        self._forget_pending(tunnel)
        tunnel.doubted = tunnel.unanswered = None
        self._tunnels.switch(tunnel, (best,))
        self._journal.arrived(tunnel, self._steering.describe(best))
        return True

    def _forget_pending(self, tunnel: Tunnel) -> None:
        self._pending.pop(tunnel.number, None)
        self._common.timers.cancel(("follow", tunnel.number))

    def _switch(
        self,
        tunnel: Tunnel,
        arrival: Path,
        before: Path | None,
        *,
        old_dead: bool,
        size: int,
        now: float,
    ) -> None:
        """Send to where the Move came from; and, until that is proven, one more way."""
        relay = self._steering.relay_way(tunnel)
        new = (relay or arrival) if arrival.relayed else arrival
        paths = [new]
        if not old_dead and before is not None and self._underlay.is_open(before.socket):
            paths.append(before)
        if relay is not None:
            paths.append(relay)
        if new.relayed:
            self._pending.pop(tunnel.number, None)
            legs = (new,) if arrival == new else (new, arrival)
            for leg in legs[1:]:  # which of two relays is there still?
                self._steering.challenge(tunnel, leg, now, "follow")
            self._tunnels.switch(tunnel, legs if old_dead else tuple(dict.fromkeys(paths)))
            return
        self._limit(tunnel, new, size)
        self._tunnels.switch(tunnel, tuple(dict.fromkeys(paths)))
        previous = None if old_dead else before
        self._begin(tunnel, _Following(new, previous, implicit=False), now)

    def _limit(self, tunnel: Tunnel, path: Path, size: int) -> None:
        """Not proven: three times what came from there may leave towards it (rule C6)."""
        if not tunnel.paths.is_proven(path):
            tunnel.paths.allowances.setdefault(path, AMPLIFICATION * size)

    def _begin(self, tunnel: Tunnel, following: _Following, now: float) -> None:
        self._pending[tunnel.number] = following
        tunnel.doubted = tunnel.unanswered = None
        self._steering.challenge(tunnel, following.new, now, "follow")
        if following.previous is not None:
            self._steering.challenge(tunnel, following.previous, now, "follow")
        wait = tunnel.paths.silence(SILENCE_FLOOR)
        if not following.implicit:
            wait *= EXPLICIT_PATIENCE
        self._common.timers.set(
            ("follow", tunnel.number), now + wait, lambda at: self._verdict(tunnel, at)
        )

    # -------------------------------------------------------------- implicit

    def source_changed(self, tunnel: Tunnel, event: PeerMoved, now: float) -> None:
        """The plane saw fresh data from outside the path set: a NAT's rebinding, or a racer."""
        new = Path(event.socket, event.source)
        primary = tunnel.paths.primary
        self._steering.noticed(tunnel, new, now)
        if primary is None or primary.relayed or primary.socket != event.socket:
            return
        if new in tunnel.paths.proven or new in tunnel.paths.sending:
            return
        quiet = self._accepted.get(tunnel.number, -1e9) + IMPLICIT_MOVE_QUIET
        if now < max(quiet, self._refuse_until.get(tunnel.number, 0.0)):
            self._question(tunnel, new, now)
            return
        self._journal.begin(
            tunnel,
            own=False,
            seq=tunnel.peer_seq,
            cause="peer's address changed",
            before=self._steering.describe(primary),
            after=self._steering.describe(new),
            started=now,
            now=now,
            evidence=f"the newest sealed data came from {new.remote}, not from {primary.remote}",
            decision="send to both until one of them answers",
            told=False,
        )
        self._limit(tunnel, new, event.length)
        relay = self._steering.relay_way(tunnel)
        ways = (new, primary) if relay is None else (new, primary, relay)
        self._tunnels.switch(tunnel, ways)
        following = _Following(new, primary, implicit=True)
        tunnel.paths.disprove(primary)
        self._begin(tunnel, following, now)

    def _question(self, tunnel: Tunnel, new: Path, now: float) -> None:
        """The peer is heard from a second source on the link that it sends on: ask at both.

        Data that comes in says nothing of the way back, so a mapping that died right after a move
        would otherwise go unnoticed for as long as the peer sends.
        """
        old = tunnel.paths.primary
        asked = self._questioned.get(tunnel.number, -1e9)
        if old is None or old.relayed or old == new or now - asked < QUESTION_PAUSE:
            return
        if old.socket != new.socket:  # the peer asks on our spare link: that says nothing of it
            return
        if tunnel.number in self._pending or len(tunnel.paths.sending) > 1:
            return
        self._questioned[tunnel.number] = now
        for path in (old, new):
            self._steering.challenge(tunnel, path, now, "follow")
        self._common.timers.set(
            ("question", tunnel.number),
            now + tunnel.paths.silence(SILENCE_FLOOR),
            lambda at: self._judge(tunnel, old, new, now, at),
        )

    def _judge(self, tunnel: Tunnel, old: Path, new: Path, since: float, now: float) -> None:
        """The silent source has lost: a path that failed (rule C6, cause 1)."""
        paths = tunnel.paths
        if paths.primary != old or paths.answered(old, since) or not paths.answered(new, since):
            return
        paths.disprove(old)
        self._journal.begin(
            tunnel,
            own=False,
            seq=tunnel.peer_seq,
            cause="peer's address changed",
            before=self._steering.describe(old),
            after=self._steering.describe(new),
            started=since,
            now=now,
        )
        self._done(tunnel, new)

    # -------------------------------------------------------------- judging

    def proved(self, tunnel: Tunnel, proof: Proof, now: float) -> None:
        """A challenge was answered while a switch is pending."""
        pending = self._pending.get(tunnel.number)
        if pending is None:
            self._settle_after_relayed(tunnel, proof)
            return
        if pending.implicit and proof.path == pending.previous:
            self._revert(tunnel, pending, now)
        elif proof.path == pending.new and not pending.implicit:
            self._done(tunnel, pending.new)
        elif pending.implicit or proof.path.relayed or proof.path == pending.previous:
            return
        else:
            self._done(tunnel, proof.path)

    def _settle_after_relayed(self, tunnel: Tunnel, proof: Proof) -> None:
        """A move that arrived over the relay: the first direct path that answers takes over."""
        sending = tunnel.paths.sending
        if len(sending) < 2 or tunnel.doubted is not None or not sending[0].relayed:
            return
        if not proof.path.relayed or (proof.path in sending and all(p.relayed for p in sending)):
            self._done(tunnel, proof.path)

    def _done(self, tunnel: Tunnel, path: Path) -> None:
        self._pending.pop(tunnel.number, None)
        self._common.timers.cancel(("follow", tunnel.number))
        self._tunnels.switch(tunnel, (path,))
        self._journal.arrived(tunnel, self._steering.describe(path))

    def _verdict(self, tunnel: Tunnel, now: float) -> None:
        """Time is up: whoever answered stays; silence goes back."""
        pending = self._pending.pop(tunnel.number, None)
        if pending is None:
            return
        if tunnel.paths.is_proven(pending.new):
            self._done(tunnel, pending.new)
            return
        if pending.implicit:
            self._suspect(tunnel, now)
        previous = pending.previous
        if previous is not None and self._underlay.is_open(previous.socket) and pending.implicit:
            self._tunnels.switch(tunnel, (previous,))
            self._steering.doubt(tunnel, now)
            return
        self._steering.settle(tunnel, now)

    def _revert(self, tunnel: Tunnel, pending: _Following, now: float) -> None:
        """The previous source of an implicit move still answers: whoever raced it loses."""
        self._pending.pop(tunnel.number, None)
        self._common.timers.cancel(("follow", tunnel.number))
        tunnel.paths.disprove(pending.new)
        tunnel.candidates.pop(pending.new.remote, None)
        if tunnel.handle is not None:
            self._prober.cancel(tunnel.handle, keep=lambda p: p != pending.new)
        if pending.previous is not None:
            self._tunnels.switch(tunnel, (pending.previous,))
        self._suspect(tunnel, now)

    def _suspect(self, tunnel: Tunnel, now: float) -> None:
        count = self._reverts.get(tunnel.number, 0)
        self._reverts[tunnel.number] = count + 1
        pause = REVERT_PAUSE[min(count, len(REVERT_PAUSE) - 1)]
        self._refuse_until[tunnel.number] = now + pause
        self._common.counters["suspected_forwarder"] += 1
        self._journal.note(tunnel, "suspected-forwarder")

    def named_primary(self, tunnel: Tunnel, event: MessageReceived, now: float) -> None:
        """A control frame names the path it came on as the peer's primary (rule C6)."""
        if not event.path.relayed:
            tunnel.paths.learn_id(event.path, event.path_id)
        if event.move_seq >= tunnel.peer_seq:
            tunnel.paths.peer_names(event.primary_id)
        pending = self._pending.get(tunnel.number)
        if pending is None and not event.path.relayed and event.path_id == event.primary_id:
            primary = tunnel.paths.primary
            if primary is not None and tunnel.paths.ids.get(primary) == event.path_id:
                self._question(tunnel, event.path, now)
        if pending is None or pending.previous is None or event.path != pending.previous:
            return
        if event.move_seq >= tunnel.peer_seq and event.path_id == event.primary_id:
            if pending.implicit:
                self._revert(tunnel, pending, now)
            else:
                self._done(tunnel, pending.previous)


def _cause(number: int) -> str:
    try:
        word = MoveCause(number).name.lower().replace("_", " ")
    except ValueError:
        word = "unknown"
    return f"peer moved: {word}"
