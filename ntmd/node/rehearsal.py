"""``ntmd rehearse``: the present link is made silent for a while, and what survives is told.

The plane blocks its own sockets on the link and unblocks them by itself, so nothing outlives the
daemon and nothing else on the host is touched. Meanwhile every tunnel carries a sealed challenge
at each beat, on whatever its data would take; silence raises doubt as it does while data flows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ntmd.node.common import Common
from ntmd.node.probing import Prober, Proof
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Asleep
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.proto.plane import BlockInterface
from ntmd.proto.timing import (
    REHEARSAL_AFTER,
    REHEARSAL_BEAT,
    REHEARSAL_BEFORE,
    REHEARSAL_LONGEST,
    REHEARSAL_PEERS,
    SILENCE_FLOOR,
)
from ntmd.proto.types import Path

REFUSED, USAGE, UNREACHABLE = 1, 2, 4
Answer = Callable[[dict[str, Any], bool], None]
Fail = Callable[[str, int], None]


@dataclass(slots=True)
class _Subject:
    """One tunnel under test; a beat is the instant at which its challenge left."""

    tunnel: Tunnel
    before: Path | None = None
    during: str = ""
    beats: list[float] = field(default_factory=list)
    answered: dict[float, float] = field(default_factory=dict)  # beat to instant of the answer

    def heard_between(self, start: float, end: float) -> bool:
        """Whether a challenge that left in this time was answered."""
        return any(start <= beat < end for beat in self.answered)


@dataclass(slots=True)
class _Run:
    """The rehearsal under way. It blocks from ``start`` to ``end``."""

    token: int
    answer: Answer
    fail: Fail
    interface: str
    subjects: list[_Subject]
    start: float
    end: float
    blocked: bool = False
    released: bool = False


class Rehearsal:
    """At most one at a time."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        tunnels: Tunnels,
        steering: Steering,
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._tunnels, self._steering = tunnels, steering
        self._run: _Run | None = None

    def start(
        self, token: int, arguments: dict[str, Any], answer: Answer, fail: Fail, now: float
    ) -> None:
        """Begin: listen whether peers answer at all, then block."""
        seconds = arguments.get("seconds", 5.0)
        if not isinstance(seconds, int | float) or not 1 <= seconds <= REHEARSAL_LONGEST:
            fail(f"a rehearsal lasts from 1 s to {REHEARSAL_LONGEST:.0f} s.", USAGE)
            return
        if self._run is not None:
            fail("another rehearsal is under way. Wait for its end, then try again.", REFUSED)
            return
        live = [t for t in self._tunnels.all() if t.live and t.handle is not None]
        live.sort(key=lambda t: (-t.busy_at, t.number))
        if not live:
            fail(
                "no tunnel is up, so there is nothing that could survive."
                " Reach a peer first, for instance with `ntmd ping NAME`.",
                REFUSED,
            )
            return
        interface = arguments.get("block") or self._present(live)
        present = list(dict.fromkeys(s.network.interface for s in self._underlay.usable()))
        if interface not in present:
            fail(
                f"{interface or 'no link'} carries nothing of ntmd now."
                f" Links that do: {', '.join(present) or 'none'}.",
                REFUSED,
            )
            return
        subjects = [_Subject(tunnel) for tunnel in live[:REHEARSAL_PEERS]]
        for subject in subjects:
            if isinstance(subject.tunnel.state, Asleep):
                self._steering.explore(subject.tunnel, now)
        begin = now + REHEARSAL_BEFORE
        run = _Run(token, answer, fail, str(interface), subjects, begin, begin + seconds)
        self._run = run
        self._say("listening", run, now)
        self._beat(run, now)

    def _present(self, live: list[Tunnel]) -> str:
        """The link that carries now: that of the busiest tunnel, else the best one."""
        for tunnel in live:
            if tunnel.paths.primary is not None:
                return self._underlay.interface(tunnel.paths.primary.socket)
        usable = self._underlay.usable()
        return usable[0].network.interface if usable else ""

    def cancel(self, token: int) -> None:
        """Whoever asked is gone: unblock at once."""
        if self._run is not None and self._run.token == token:
            self._over(self._run)

    def notice(self, now: float) -> tuple[str, str, str] | None:
        """For ``health`` in ``ntmd status``, while a link is blocked."""
        run = self._run
        if run is None or not run.blocked or run.released:
            return None
        left = max(0.0, run.end - now)
        text = f"{run.interface} is blocked by `ntmd rehearse` for {left:.0f} s more"
        return "rehearsal", "warning", text

    # -------------------------------------------------------------- each beat

    def _beat(self, run: _Run, now: float) -> None:
        if self._run is not run:
            return
        if not run.blocked and now >= run.start and not self._block(run, now):
            return
        if not run.released and now >= run.end:
            run.released = True
            for subject in run.subjects:
                subject.during = self._steering.describe(subject.tunnel.paths.primary)
            self._say("unblocked", run, now)
        if run.released and self._settled(run, now):
            self._report(run)
            return
        for subject in run.subjects:
            self._challenge(run, subject, now)
        self._common.timers.set("rehearsal", now + REHEARSAL_BEAT, lambda at: self._beat(run, at))

    def _block(self, run: _Run, now: float) -> bool:
        """The baseline is over: block, if anybody answered in it."""
        heard = [s for s in run.subjects if s.heard_between(0.0, now)]
        if not heard:
            self._over(run)
            run.fail(
                "no peer answers now, so a block would show nothing."
                " `ntmd why NAME` says what is known of the path to one.",
                UNREACHABLE,
            )
            return False
        run.subjects = heard
        for subject in heard:
            subject.before = subject.tunnel.paths.primary
        run.blocked = True
        run.end += now - run.start
        run.start = now
        self._common.emit(BlockInterface(run.interface, run.end - now))
        self._say("blocked", run, now)
        return True

    def _challenge(self, run: _Run, subject: _Subject, now: float) -> None:
        tunnel = subject.tunnel
        if tunnel.handle is None or not tunnel.live:
            return
        tunnel.busy_at = now
        subject.beats.append(now)

        def won(proof: Proof, at: float) -> None:
            subject.answered.setdefault(now, at)
            self._steering.on_proof(tunnel, proof, at)

        for path in tunnel.paths.sending:
            self._prober.start(tunnel.handle, path, now, won, ladder=(), purpose="rehearsal")
        heard = max(tunnel.heard_at, tunnel.activity.last_rx if tunnel.activity else 0.0)
        if run.blocked and now - max(heard, run.start) > tunnel.paths.silence(SILENCE_FLOOR):
            self._steering.doubt(tunnel, now)

    def _settled(self, run: _Run, now: float) -> bool:
        """Whether everybody answered after the block, and late answers had their time."""
        if now < run.end + 1.0:
            return False
        back = all(subject.heard_between(run.end, now) for subject in run.subjects)
        return back or now >= run.end + REHEARSAL_AFTER

    # -------------------------------------------------------------- what survived

    def _say(self, phase: str, run: _Run, now: float) -> None:
        run.answer(
            {
                "phase": phase,
                "interface": run.interface,
                "seconds": round(run.end - run.start, 1),
                "peers": [subject.tunnel.peer.name for subject in run.subjects],
            },
            False,
        )

    def _report(self, run: _Run) -> None:
        self._over(run)
        peers = [self._result(run, subject) for subject in run.subjects]
        survived = all(peer["survived"] for peer in peers)
        links = {socket.network.interface for socket in self._underlay.usable()}
        result = {
            "phase": "done",
            "interface": run.interface,
            "seconds": round(run.end - run.start, 1),
            "other_links": sorted(links - {run.interface}),
            "peers": peers,
            "survived": survived,
        }
        run.answer(result, True)

    def _result(self, run: _Run, subject: _Subject) -> dict[str, Any]:
        before = subject.before
        mine = before is not None and self._underlay.interface(before.socket) == run.interface
        tail = min(1.0, (run.end - run.start) / 2)
        survived = subject.heard_between(run.end - tail, run.end)
        if survived:
            verdict = "survived" if mine else "survived: it did not use that link"
        elif subject.heard_between(run.end, run.end + REHEARSAL_AFTER):
            verdict = "cut off, and back after the block"
        else:
            verdict = "lost"
        during = [beat for beat in subject.beats if run.start <= beat < run.end]
        gap = _longest(run, subject)
        return {
            "peer": subject.tunnel.peer.name,
            "before": self._steering.describe(before),
            "during": subject.during,
            "after": self._steering.describe(subject.tunnel.paths.primary),
            "gap_ms": None if gap is None else round(gap * 1000, 1),
            "sent": len(during),
            "lost": sum(beat not in subject.answered for beat in during),
            "verdict": verdict,
            "survived": survived,
        }

    def _over(self, run: _Run) -> None:
        """The plane keeps the time; this is for a rehearsal that ends before it."""
        self._run = None
        self._common.timers.cancel("rehearsal")
        if run.blocked:
            self._common.emit(BlockInterface(run.interface, 0.0))


def _longest(run: _Run, subject: _Subject) -> float | None:
    """Longest hole between answers around the block, less one beat; None if it never ended."""
    times = sorted(subject.answered.values())
    if not times or times[-1] < run.end:
        return None
    earlier = max((t for t in times if t <= run.start), default=run.start)
    instants = [earlier, *(t for t in times if t > run.start)]
    holes = [after - before for before, after in pairwise(instants)]
    return max(0.0, max(holes) - REHEARSAL_BEAT)
