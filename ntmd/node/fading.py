"""A way that works and loses more and more is left before it dies.

A laptop carried out of a Wi-Fi's range, a line that has begun to flap: data still comes through, so
neither silence nor an event tells. Loss (or answers that come ever later) is no verdict either; it
begins a *trial*: the same number of challenges at the same instants to a server over this link and
over another one, and to the peer on the path in use and on its rival over this link (the relay's,
or the direct one). What loses more by more than chance explains is set back: the own link, or this
one path. Unless a busy flow loses in its own queue: then what arrives of the trial arrives late.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from ntmd.node.common import Common
from ntmd.node.path import RTT_UNKNOWN
from ntmd.node.probing import LAST_WAIT, Prober, Proof
from ntmd.node.shift import Shift
from ntmd.node.tunnels import Tunnel
from ntmd.node.underlay import NO_GATEWAY, Underlay
from ntmd.proto.messages import MoveCause
from ntmd.proto.timing import (
    FADING_BACK,
    FADING_BACK_MAX,
    FADING_LATE,
    FADING_LOSS,
    TRIAL_COPIES,
    TRIAL_PACE,
    TRIAL_PAUSE,
    TRIAL_PAUSE_MAX,
)
from ntmd.proto.types import Path

LIVELY = 20  # datagrams per report (0.1 s) of a node from which on loss and delay may be its own
CALM = 2.0  # seconds after a lively report until they are not any more
QUEUE = 0.01  # seconds, and ...
QUEUED = 1.3  # ... times the least round trip: where a trial's answers come so late, is a queue
SLOWER = 3.0  # times the least round trip, and ...
SLOWER_BY = 0.1  # ... so many seconds more begin a trial
RISEN = 1.5  # times the loss at the last trial: do not wait for the end of the pause
TRIALS = 4  # at a time
WELL = 1  # of TRIAL_COPIES may stay out where a link counts as before again

Key = tuple[int, Path]  # association and path


@dataclass(slots=True)
class _Watch:
    """Of one tunnel: where it was looked at, the least round trips there (to the peer, and to the
    server over the same link), and the next trial."""

    path: Path | None = None
    least: float = math.inf
    server: float = math.inf
    pause: float = TRIAL_PAUSE
    next: float = 0.0
    tried: float = 0.0  # the loss that the last trial began with
    falls: int = 0


@dataclass(slots=True)
class _Trial:
    """``ways`` are asked, ``rtts`` are of the copies answered, seconds. To be compared: the server
    over two own links, and two paths to a peer; the first is in use."""

    ways: tuple[Key, ...]
    late: float
    judge: Callable[[_Trial, float], None]
    links: tuple[Key, ...] = ()
    paths: tuple[Key, ...] = ()
    sent: int = 0
    rtts: dict[Key, list[float]] = field(default_factory=dict)

    def lost(self, way: Key) -> int:
        """Copies that were not answered in time."""
        return TRIAL_COPIES - sum(rtt <= self.late for rtt in self.rtts.get(way, []))

    def worse(self, pair: tuple[Key, ...]) -> bool:
        """Whether the first of two lost more than two standard deviations explain."""
        lost, other = (self.lost(way) for way in pair)
        return lost > other and (lost - other) ** 2 >= 4 * (lost + other)

    def queued(self, way: Key, least: float) -> bool:
        """Whether what was answered, if anything was, had stood in a queue."""
        rtts = self.rtts.get(way)
        return not rtts or median(rtts) >= max(QUEUED * least, least + QUEUE)


class Fading:
    """Watches what the ways in use lose. ``loss`` is a tunnel's, 0 to 1; ``others`` are the ways to
    its peer beside one; ``key`` sorts them."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        shift: Shift,
        loss: Callable[[Tunnel], float],
        others: Callable[[Tunnel, Path], list[Path]],
        key: Callable[[Tunnel], Callable[[Path], tuple[int, ...]]],
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._shift, self._loss, self._others, self._key = shift, loss, others, key
        self._watched: dict[int, _Watch] = {}
        self._trials: dict[object, _Trial] = {}
        self._falls: dict[int, int] = {}  # of own sockets that were set back
        self._lively = -1e9

    def forget(self, tunnel: Tunnel) -> None:
        """The association ended."""
        self._watched.pop(tunnel.number, None)
        self._end(tunnel.number)

    def activity(self, tunnel: Tunnel, packets: int, now: float) -> None:
        """So many datagrams went either way since the last report: is their way worse than usual,
        and is there another one?"""
        if packets >= LIVELY:
            self._lively = now
        path, watch = tunnel.paths.primary, self._watched.setdefault(tunnel.number, _Watch())
        if path is None or not packets or not _settled(tunnel):
            return
        rtt = tunnel.paths.rtt(path)
        if rtt is None or rtt == RTT_UNKNOWN:  # nothing was measured
            rtt = math.inf
        if path != watch.path:
            watch.path, watch.least, watch.server = path, rtt, math.inf
        watch.least = min(watch.least, rtt)
        watch.server = min(watch.server, self._shift.server().rtt or math.inf)
        if self._loss(tunnel) >= RISEN * max(watch.tried, FADING_LOSS):
            watch.pause, watch.next = TRIAL_PAUSE, min(watch.next, now)  # it fades further
        ready = now >= watch.next and len(self._trials) < TRIALS
        if not ready or tunnel.number in self._trials:
            return
        slow = math.inf > rtt >= max(SLOWER * watch.least, watch.least + SLOWER_BY)
        if self._loss(tunnel) >= FADING_LOSS or (slow and self._calm(now)):
            self._try(tunnel, watch, path, now)

    def _calm(self, now: float) -> bool:
        """Whether nothing that we send ourselves explains loss or delay."""
        return now - self._lively >= CALM

    # -------------------------------------------------------------- a trial

    def _try(self, tunnel: Tunnel, watch: _Watch, path: Path, now: float) -> None:
        watch.next, watch.tried = now + watch.pause, self._loss(tunnel)
        watch.pause = min(2 * watch.pause, TRIAL_PAUSE_MAX)
        here, there = self._at_server(path.socket), self._elsewhere(path.socket)
        links = (here, there) if here is not None and there is not None else ()
        rival = self._rival(tunnel, path)
        if tunnel.handle is None or not (links or rival is not None):
            return
        paths = [(tunnel.handle, way) for way in (path, rival)] if rival is not None else []
        late = min(LAST_WAIT, max(FADING_LATE, 3 * watch.least))
        trial = _Trial((*paths, *links), late, lambda t, at: self._judge(tunnel, path, t, at))
        trial.links, trial.paths = links, tuple(paths)
        self._begin(tunnel.number, trial, now)

    def _rival(self, tunnel: Tunnel, path: Path) -> Path | None:
        """The best way of the other kind over the same link."""
        found = [
            way
            for way in self._others(tunnel, path)
            if way.relayed != path.relayed
            and self._underlay.is_open(way.socket)
            and self._underlay.same_link(way.socket, path.socket)
            and not tunnel.paths.loses(way)
        ]
        return min(found, key=self._key(tunnel), default=None)

    def _elsewhere(self, socket: int) -> Key | None:
        """To the server over the next best link; never over one that costs more."""
        own = self._underlay
        for other in own.usable():
            if own.same_link(other.number, socket) or own.rank(other.number) >= NO_GATEWAY:
                continue
            if own.metered(other.number) <= own.metered(socket):
                return self._at_server(other.number)
        return None

    def _at_server(self, socket: int) -> Key | None:
        server = self._shift.server()
        way = server.way_on(socket)
        return (server.handle, way) if way is not None and server.handle is not None else None

    def _begin(self, name: object, trial: _Trial, now: float) -> None:
        self._trials[name] = trial
        self._step(name, now)

    def _step(self, name: object, now: float) -> None:
        trial = self._trials.get(name)
        if trial is None:
            return
        if trial.sent == TRIAL_COPIES:
            self._end(name)
            trial.judge(trial, now)
            return
        trial.sent += 1
        for way in trial.ways:
            self._copy(trial, way, now)
        wait = TRIAL_PACE if trial.sent < TRIAL_COPIES else trial.late
        self._common.timers.set(("trial", name), now + wait, lambda at: self._step(name, at))

    def _copy(self, trial: _Trial, way: Key, now: float) -> None:
        def won(proof: Proof, _: float) -> None:
            trial.rtts.setdefault(way, []).append(proof.rtt)

        self._prober.start(way[0], way[1], now, won, ladder=(), purpose="trial")

    def _end(self, name: object) -> None:
        self._trials.pop(name, None)
        self._common.timers.cancel(("trial", name))

    # -------------------------------------------------------------- what it says

    def _judge(self, tunnel: Tunnel, path: Path, trial: _Trial, now: float) -> None:
        watch = self._watched.get(tunnel.number)
        if watch is None or path != tunnel.paths.primary or not _settled(tunnel):
            return
        calm = self._calm(now)

        def loses(pair: tuple[Key, ...], least: float) -> bool:
            return bool(pair) and trial.worse(pair) and (calm or not trial.queued(pair[0], least))

        if loses(trial.links, watch.server):
            here, there = trial.links
            name, other = (self._underlay.interface(way.socket) for _, way in trial.links)
            words = f"{name} loses {trial.lost(here)} of {TRIAL_COPIES}, {other}"
            self._set_link_back(path.socket, f"{words} {trial.lost(there)}", now)
        elif loses(trial.paths, watch.least):
            self._set_path_back(tunnel, watch, path, trial.paths[1][1], now)
        else:
            return
        watch.pause, watch.next, watch.tried = TRIAL_PAUSE, now + TRIAL_PAUSE, 1.0

    def _set_path_back(
        self, tunnel: Tunnel, watch: _Watch, path: Path, instead: Path, now: float
    ) -> None:
        """Only what lies between here and this peer loses."""
        until = now + min(FADING_BACK * 2**watch.falls, FADING_BACK_MAX)
        watch.falls += 1
        tunnel.paths.lossy[path] = until
        self._common.counters["path_lossy"] += 1
        self._common.timers.set(
            ("lossy", tunnel.number), until, lambda at: tunnel.paths.forgive(at)
        )
        self._shift.to(tunnel, instead, now)

    def _set_link_back(self, socket: int, words: str, now: float) -> None:
        if not self._underlay.set_lossy(socket, True):
            return
        self._common.counters["link_lossy"] += 1
        self._common.tell("warning", "link loses", interface=self._underlay.interface(socket))
        self._falls = {n: count for n, count in self._falls.items() if self._underlay.is_open(n)}
        self._falls[socket] = self._falls.get(socket, 0) + 1
        self._shift.preferred_changed(now, (MoveCause.PROMOTION, words))
        self._later(socket, FADING_BACK * 2.0 ** (self._falls[socket] - 1), now)

    def _later(self, socket: int, wait: float, now: float) -> None:
        wait = min(wait, FADING_BACK_MAX)
        self._common.timers.set(
            ("lossy link", socket), now + wait, lambda at: self._again(socket, wait, at)
        )

    def _again(self, socket: int, wait: float, now: float) -> None:
        """Is the link that was set back well again?"""
        if not self._underlay.is_open(socket):
            return
        way = self._at_server(socket)
        if way is None:
            self._later(socket, wait, now)
            return

        def judge(trial: _Trial, at: float) -> None:
            if trial.lost(way) > WELL:
                self._later(socket, 2 * wait, at)
            elif self._underlay.set_lossy(socket, False):
                name = self._underlay.interface(socket)
                self._shift.preferred_changed(at, (MoveCause.PROMOTION, f"{name} is well again"))

        late = max(FADING_LATE, 3 * (self._shift.server().rtt or RTT_UNKNOWN))
        trial = _Trial((way,), min(LAST_WAIT, late), judge)
        self._begin(("link", socket), trial, now)


def _settled(tunnel: Tunnel) -> bool:
    """Neither a move nor a doubt is under way."""
    return tunnel.live and tunnel.doubted is None and len(tunnel.paths.sending) == 1
