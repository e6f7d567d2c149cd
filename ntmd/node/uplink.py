"""The node's association with one server: coordinator or relay.

Calls on every way at once, keeps to the one that answered, announces each change of network under
a growing sequence (rule C7), and calls again with a growing pause while the server is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ntmd.node.common import Common
from ntmd.node.probing import Prober, Proof
from ntmd.node.race import Race
from ntmd.node.underlay import Underlay
from ntmd.proto.events import CallFailed, Established
from ntmd.proto.timing import (
    DOUBT_LADDER,
    LADDER,
    LINK_PATIENCE,
    LINK_RETRY,
    LINK_RETRY_MAX,
    STANDBY_FRESH,
)
from ntmd.proto.types import Endpoint, Path, Peer

Seen = Callable[[float, int | None], None]
"""A server told another source: now, and the own socket in use if it had one before."""

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
"""Waits from the failure of a call (10 s) to the next, seconds; up to a quarter more by chance: a
server that was away for long hears each node within 160 s, and never many at once."""
NEWS_PAUSE, NEWS_PAUSE_MAX = 1.0, 64.0  # between two changes of what the server saw, seconds
WANTED_PAUSE = 5.0  # somebody who needs the server has it called before its time, so often at most
REKEY_AFTER_MOVE = 2.0  # a move is settled by then, seconds
UNEASY = 0.5  # a keep-alive unanswered for this long (six copies) makes the link suspect, seconds
BRIEF = (0.1,)  # two copies are enough for a link that was silent for long
REKEY_PAUSE = 10.0  # at most one rekey for moves in this time, seconds


class Link(Enum):
    """State of the association with a server."""

    IDLE = "idle"
    CALLING = "calling"
    UP = "up"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Spare:
    """A way on another own socket that answered: round trip and when, seconds."""

    path: Path
    rtt: float
    at: float


def patience(quiet: float) -> float:
    """How long a link that has been silent for ``quiet`` is left alone, seconds."""
    return min(max(LINK_RETRY, quiet / LINK_PATIENCE), LINK_RETRY_MAX)


class Uplink:
    """One server. ``path`` is where it is spoken to; ``observed`` what it saw of each socket;
    ``spares`` are ways on other own sockets that answer too, by socket; ``mute`` are those that do
    not: since when, and when last asked."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        peer: Peer,
        endpoints: tuple[Endpoint, ...],
        *,
        up: Callable[[bool, float], None],
        down: Callable[[float], None],
        announce: Callable[[float], None],
        seen: Seen,
    ) -> None:
        self._common = common
        self._underlay = underlay
        self._prober = prober
        self._up, self._down, self._announce, self._seen = up, down, announce, seen
        self._failures = 0
        self._rekeyed = -1e9
        self._called = -1e9
        self.peer = peer
        self.endpoints = endpoints
        self.state = Link.IDLE
        self.handle: int | None = None
        self.path: Path | None = None
        self.proven = False
        self.seq = 0
        self.rtt: float | None = None
        self.last_heard: float | None = None
        self.observed: dict[int, Endpoint] = {}
        self.observed_at: dict[int, float] = {}
        self._news: dict[int, tuple[float, float]] = {}  # socket: no other one before, and pause
        self.spares: dict[int, Spare] = {}
        self.mute: dict[int, tuple[float, float]] = {}
        self.race = Race(self, common, underlay, prober)
        self.uneasy: Callable[[int, float], None] = lambda *_: None

    @property
    def up(self) -> bool:
        """Whether the server answers."""
        return self.state is Link.UP

    def call(self, now: float) -> None:
        """Shake hands on every way at once; the first answer carries."""
        ways = self._ways()
        if not ways:
            self.state = Link.IDLE if self.handle is None else Link.SILENT
            return
        if self.state is not Link.SILENT:
            self.state = Link.CALLING
        self._called = now
        self.handle = self._common.engine.call(self.peer, ways, now)
        self.race.expect(now)

    def wanted(self, now: float) -> None:
        """Somebody needs the silent server now: do not wait for the end of the pause."""
        if self.state is Link.SILENT and now - self._called >= WANTED_PAUSE:
            self.call(now)
        if self.state is not Link.UP:
            self.race.hurry(now, WANTED_PAUSE)

    def _ways(self) -> list[Path]:
        """Every way to the server: over UDP, then over TLS where that is open."""
        return [*self._underlay.ways(self.endpoints), *self.race.ways()]

    def established(self, event: Established, now: float) -> None:
        """A session with the server is confirmed."""
        silent = self.state is Link.SILENT  # what it was told since then, it may not know
        self.handle = event.handle
        self._failures = 0
        self._common.timers.cancel(("recall", self.peer.key))
        if event.first:
            self._prober.cancel(event.handle)  # a Move of the old association has its sequence
            self.seq = 0
            self.spares.clear()
        self.state = Link.UP
        if self.path is None or event.first:
            self.path = event.path
            self._common.engine.set_primary(event.handle, self.path, self.seq)
        elif self.proven and self._carries(self.path):
            if silent:
                self.announce_again(now)  # what it knew may have been another mapping
        elif silent or event.path != self.path:
            self._take(event.path, now)  # the server goes by the sequence, not by the session
        self.heard(event.path, now)
        self._up(event.first, now)

    def _carries(self, path: Path) -> bool:
        return self._underlay.is_open(path.socket)

    def failed(self, event: CallFailed, now: float) -> None:
        """No handshake: try again after a growing pause."""
        if self.state is Link.UP:
            return
        self.state = Link.SILENT
        self._down(now)
        self._again(now)

    def silent(self, now: float) -> None:
        """A whole ladder went unanswered."""
        if self.state is Link.UP:
            self.state = Link.SILENT
            self.proven = False
            self._failures = 0
            self._down(now)
            self.call(now)

    def _again(self, now: float) -> None:
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1
        pause *= 1 + self._common.number(2) / 0x4_0000
        self._common.timers.set(("recall", self.peer.key), now + pause, self._recall)

    def _recall(self, now: float) -> None:
        if self.state is not Link.UP and not self._common.stopping:
            self.call(now)

    def heard(self, path: Path, now: float) -> None:
        """Anything authenticated came from the server."""
        self.last_heard = now
        if path == self.path:
            self.proven = True
        self.race.heard(path, now)

    def saw(
        self, socket: int, observed: Endpoint | None, now: float, *, announced: bool = False
    ) -> bool:
        """The server told which source it saw; True if that is another one, and not one of many.

        Where it is the way in use, the server is told too, whatever it was that asked: pings move
        nothing (rule C7). ``announced``: it has just been told, by what this answers.
        """
        if observed is not None:
            self.observed_at[socket] = now
        before = self.observed.get(socket)
        if observed is None or before == observed:
            return False
        self.observed[socket] = observed
        if before is not None and not self._is_news(socket, now):
            return False
        mapped_anew = before is not None and self.path is not None and socket == self.path.socket
        if mapped_anew and not announced:
            self.announce_again(now)
        self._seen(now, socket if mapped_anew else None)
        return True

    def _is_news(self, socket: int, now: float) -> bool:
        """A source that changes all the time (a NAT in pieces, a server that lies) is passed on at
        growing distances, the newest one."""
        due, pause = self._news.get(socket, (-1e9, NEWS_PAUSE))
        if now < due:
            self._common.timers.set(
                ("news", self.peer.key, socket), due, lambda at: self._late_news(socket, at)
            )
            return False
        pause = min(2 * pause, NEWS_PAUSE_MAX) if now < due + pause else NEWS_PAUSE
        self._news[socket] = (now + pause, pause)
        return True

    def _late_news(self, socket: int, now: float) -> None:
        if socket in self.observed and self._is_news(socket, now):
            if self.path is not None and socket == self.path.socket:
                self.announce_again(now)
            self._seen(now, None)

    def ask(self, now: float) -> bool:
        """Ask for a sign of life in quick succession; what comes of it, others watch. False if it
        is being asked already, or cannot be."""
        handle, path = self.handle, self.path
        if not self.up or handle is None or path is None or self._prober.under_way(handle, path):
            return False

        def won(proof: Proof, at: float) -> None:
            self._answered(proof, at)
            self.saw(proof.path.socket, proof.answer.observed, at)

        self._prober.start(handle, path, now, won, ladder=DOUBT_LADDER, purpose="standby")
        return True

    def challenge(self, now: float, done: Callable[[bool, float], None]) -> None:
        """Keep-alive: ``done(mapping unchanged, now)`` once answered; silence is handled here."""
        if not self.up or self.handle is None or self.path is None:
            return
        handle, path = self.handle, self.path

        def won(proof: Proof, at: float) -> None:
            self._common.timers.cancel(("uneasy", self.peer.key))
            self._answered(proof, at)
            socket = proof.path.socket
            known = self.observed.get(socket)
            self.saw(socket, proof.answer.observed, at)
            done(self.observed.get(socket) == known, at)

        self._prober.start(handle, path, now, won, lost=self.silent, purpose="keepalive")

        self._suspect(path, now)
        self.race.expect(now)

    def _suspect(self, path: Path, now: float) -> None:
        """The way in use was asked: if nothing comes in quick succession, its link is suspect."""

        def unanswered(at: float) -> None:
            handle = self.handle
            if handle is not None and path == self.path and self._prober.under_way(handle, path):
                self.uneasy(path.socket, at)

        self._common.timers.set(("uneasy", self.peer.key), now + UNEASY, unanswered)

    def _answered(self, proof: Proof, now: float) -> None:
        if proof.path == self.path:
            self.rtt = proof.rtt if self.rtt is None else 0.75 * self.rtt + 0.25 * proof.rtt
        self.heard(proof.path, now)

    def network_changed(self, now: float) -> bool:
        """Sockets came or went: move to the best way. True if the path changed."""
        for socket in [s for s in self.observed if not self._underlay.is_open(s)]:
            del self.observed[socket]
            self.observed_at.pop(socket, None)
            self._news.pop(socket, None)
        for socket in [s for s in self.spares if not self._underlay.is_open(s)]:
            del self.spares[socket]
        for socket in [s for s in self.mute if not self._underlay.is_open(s)]:
            del self.mute[socket]
        ways = self._ways()
        if not ways:
            if self.path is not None and not self._carries(self.path):
                self.proven = False
            return False
        if self.handle is None or not self._common.engine.established(self.handle):
            self._failures = 0
            if self.handle is not None and self.state is Link.CALLING:
                self._common.engine.widen(self.handle, ways, now)
            else:
                self.call(now)
            return False
        self.race.udp_may_pass(now)
        best = self._best(ways)
        if best == self.path and self.proven:
            return False
        self._take(best, now)
        self._rekey_later(now)
        for way in ways:
            if way != best:
                self._prober.start(self.handle, way, now, self.alternative, purpose="move")
        if not self.up:
            self.call(now)
        return True

    def _best(self, ways: list[Path]) -> Path:
        """The best socket's way, to the endpoint in use where the family allows."""
        if self.path is not None and self.path in ways and self.proven:
            return self.path
        spares = [s.path for s in self.spares.values() if s.path in ways]
        if spares:
            return min(spares, key=lambda w: (self._underlay.rank(w.socket), w))
        link = ways[0].socket
        near = [w for w in ways if self._underlay.rank(w.socket) == self._underlay.rank(link)]
        here = [w for w in near if self._underlay.places.at(w.socket).udp]
        first = [w for w in ways if w.socket == (here or ways)[0].socket]
        same = [w for w in first if self.path is not None and w.remote == self.path.remote]
        return (same or first)[0]

    def _rekey_later(self, now: float) -> None:
        """After a move the session gets fresh indices and counters too (rule S3)."""
        if now - self._rekeyed < REKEY_PAUSE:
            return
        self._rekeyed = now

        def rekey(at: float) -> None:
            if self.up and self.handle is not None:
                self._common.engine.rekey(self.handle, at)

        self._common.timers.set(("rekey", self.peer.key), now + REKEY_AFTER_MOVE, rekey)

    def _take(self, path: Path, now: float) -> None:
        assert self.handle is not None
        self.path = path
        self.proven = False
        self.seq += 1
        self._prober.cancel(self.handle)
        self._common.engine.set_primary(self.handle, path, self.seq)
        self._announce(now)
        self.race.expect(now)

    def woke(self, now: float) -> None:
        """The machine slept: tell the server where we are, or call it without a pause."""
        self.proven = False
        self._failures = 0
        if self.up and self.handle is not None and self._common.engine.established(self.handle):
            self.announce_again(now)
        else:
            self.call(now)

    def announce_again(self, now: float) -> None:
        """The same path under a greater sequence: the NAT's mapping may be another one by now."""
        if self.handle is not None and self.path is not None and self._carries(self.path):
            self._take(self.path, now)

    def alternative(self, proof: Proof, now: float) -> None:
        """A way that was not chosen answers: take it if the chosen one does not."""
        self.saw(proof.path.socket, proof.answer.observed, now)
        self.last_heard = now
        if not self.proven and self._underlay.is_open(proof.path.socket):
            self.promote(proof, now)

    def promote(self, proof: Proof, now: float) -> None:
        """Take a way that has just answered."""
        self._take(proof.path, now)
        self._answered(proof, now)

    # -------------------------------------------------------------- other own links

    def warm(
        self,
        socket: int,
        now: float,
        then: Callable[[float], None] | None = None,
        ladder: tuple[float, ...] = LADDER,
    ) -> None:
        """Ask the server over an own socket, mostly one not in use; ``then`` when it answered."""
        way = self.way_on(socket)
        if way is None or self.handle is None or not self.up:
            return
        if self._prober.under_way(self.handle, way) and then is None:
            return
        in_use = way == self.path and ladder == LADDER

        def answered(proof: Proof, at: float) -> None:
            self.last_heard = at
            self.mute.pop(socket, None)
            if self._underlay.is_open(socket):
                self.spares[socket] = Spare(way, proof.rtt, at)
                self.saw(socket, proof.answer.observed, at)
                if then is not None:
                    then(at)

        def silent(at: float) -> None:
            self.spares.pop(socket, None)
            since, _ = self.mute.get(socket, (now, now))
            self.mute[socket] = (since, now)
            if in_use and way == self.path:
                self.silent(at)

        self._prober.start(
            self.handle, way, now, answered, lost=silent, ladder=ladder, purpose="standby"
        )
        if in_use:  # a tunnel goes another way than its coordinator is spoken to
            self._suspect(way, now)

    def way_on(self, socket: int) -> Path | None:
        """The way to this server on an own socket: to the endpoint in use, or to another one."""
        ways = [w for w in self._underlay.ways(self.endpoints) if w.socket == socket]
        same = [w for w in ways if self.path is not None and w.remote == self.path.remote]
        return next(iter(same or ways), None)

    def spare_on(self, socket: int, now: float) -> Spare | None:
        """The way on that socket, if it answered lately."""
        spare = self.spares.get(socket)
        if spare is None or now - spare.at > STANDBY_FRESH or not self._underlay.is_open(socket):
            return None
        return spare

    def shift(self, now: float) -> bool:
        """Move to the best other link that answers, if it is preferred: the old one still works."""
        if self.path is None or not self.up or not self._carries(self.path):
            return False
        found = [s for n in self.spares if (s := self.spare_on(n, now)) is not None]
        rank = self._underlay.rank
        best = min(found, key=lambda s: (rank(s.path.socket), s.rtt), default=None)
        if best is None or rank(best.path.socket) >= rank(self.path.socket):
            return False
        if self.proven and self.rtt is not None:
            self.spares[self.path.socket] = Spare(self.path, self.rtt, now)
        self._take(best.path, now)
        self.proven, self.rtt = True, best.rtt
        self.spares.pop(best.path.socket, None)
        self._rekey_later(now)
        return True

    def close(self, now: float) -> None:
        """The node goes down."""
        self._common.timers.cancel(("recall", self.peer.key))
        for socket in self._news:
            self._common.timers.cancel(("news", self.peer.key, socket))
        self.race.close()
