"""The ways to one peer: what is proven, what is sent on, and which is better.

Only data and choice are here; probing and switching are in :mod:`ntmd.node.steering`. A direct
path counts as proven when a sealed challenge sent on it was answered in this association (C6); what
each piece of evidence makes of a path says the table in :mod:`ntmd.node.validity`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ntmd.node.validity import PROVEN, TRANSITIONS, Evidence, Validity
from ntmd.proto.timing import PATH_SET, PROMOTE_MARGIN, PROMOTE_RATIO
from ntmd.proto.types import Endpoint, Path

RTT_UNKNOWN = 0.1  # assumed where nothing was measured yet, seconds
TRIED_KEPT = 32  # paths of which is remembered when they were tried
PATHS_AT_ONCE = 3  # a new way, the one before it, and the relay leg (rule C6)
STATES_KEPT = 64  # paths of which the state is remembered
IDS_KEPT = 32  # arrivals whose path id at the peer is remembered

Key = Callable[[Path], tuple[int, ...]]
"""Sorts paths by everything but the round trip, best first; see :mod:`ntmd.node.choice`."""


@dataclass(slots=True)
class Proven:
    """A path that answered: smoothed round trip and when it last answered, seconds."""

    rtt: float
    at: float


@dataclass(slots=True)
class Tried:
    """How often a path was challenged or called on, first and last instant (seconds)."""

    times: int
    first: float
    last: float


@dataclass(slots=True)
class PathBook:
    """``sending`` is what the plane uses: the primary, and while in doubt a second one. The primary
    leads where it does ``since`` that instant.

    ``ids`` are the peer's path ids (its own sockets, rule C7) as its control frames name them on
    each path, ``named`` is the one that it calls its primary, ``left`` those that work and are
    not to carry data: the peer moved away from them, or keeps them as spares.
    """

    proven: dict[Path, Proven] = field(default_factory=dict)
    sending: tuple[Path, ...] = ()
    allowances: dict[Path, int] = field(default_factory=dict)  # bytes, of ways not proven yet
    relayed: dict[int, Proven] = field(default_factory=dict)  # the relay leg, by own socket
    since: float = 0.0
    ids: dict[Path, int] = field(default_factory=dict)
    named: int = 0
    left: frozenset[int] = frozenset()
    tried: dict[Path, Tried] = field(default_factory=dict)
    usual: float = RTT_UNKNOWN  # the last round trip of any path, which outlives the path
    states: dict[Path, Validity] = field(default_factory=dict)  # unknown ones are not kept
    lossy: dict[Path, float] = field(default_factory=dict)  # set back until that instant, seconds

    @property
    def primary(self) -> Path | None:
        """The path that carries."""
        return self.sending[0] if self.sending else None

    def send_on(self, paths: tuple[Path, ...], now: float) -> None:
        """Send on these from now on, the first being the primary."""
        before, self.sending = self.primary, paths[:PATHS_AT_ONCE]
        after = self.primary
        if _place(before) != _place(after):
            self.since = now

    def validity(self, path: Path) -> Validity:
        """What is known of a path, direct or over a relay."""
        return self.states.get(_spot(path), Validity.UNKNOWN)

    def note(self, path: Path, evidence: Evidence) -> None:
        """Something spoke for or against ``path``; what is not proven any more carries no more."""
        spot = _spot(path)
        state = TRANSITIONS[self.states.pop(spot, Validity.UNKNOWN), evidence]
        if state is not Validity.UNKNOWN:
            self.states[spot] = state
        if state not in PROVEN:
            self.proven.pop(path, None)
        while len(self.states) > STATES_KEPT:
            del self.states[next(each for each in self.states if each not in self.proven)]

    def prove(self, path: Path, rtt: float, now: float) -> None:
        """A challenge on ``path`` was answered; the least recently proven leaves a full set."""
        self.usual = rtt
        self.note(path, Evidence.ANSWERED)
        if path.relayed:
            before = self.relayed.get(path.socket)
            self.relayed[path.socket] = Proven(_smooth(before.rtt, rtt) if before else rtt, now)
            return
        self.allowances.pop(path, None)
        known = self.proven.pop(path, None)
        self.proven[path] = Proven(_smooth(known.rtt, rtt) if known else rtt, now)
        while len(self.proven) > PATH_SET:
            spare = next((p for p in self.proven if p not in self.sending), None)
            self.note(spare if spare is not None else next(iter(self.proven)), Evidence.LAPSED)

    def trying(self, path: Path, now: float) -> None:
        """The peer is being asked on ``path``; kept for whoever wants to know what was tried."""
        self.note(path, Evidence.ASKED)
        known = self.tried.pop(path, None)
        first = known.first if known is not None else now
        self.tried[path] = Tried((known.times if known is not None else 0) + 1, first, now)
        if len(self.tried) > TRIED_KEPT:
            del self.tried[next(iter(self.tried))]

    def disprove(self, path: Path) -> None:
        """A whole ladder on ``path`` went unanswered."""
        self.note(path, Evidence.UNANSWERED)
        self.allowances.pop(path, None)

    def learn_id(self, path: Path, number: int) -> None:
        """The peer's frame came on ``path`` from its own path ``number``."""
        if self.ids.get(path) == number:
            return
        self.ids.pop(path, None)
        self.ids[path] = number
        while len(self.ids) > IDS_KEPT:
            del self.ids[next(iter(self.ids))]

    def peer_left(self, stays: int) -> None:
        """The peer moved to its path ``stays`` and may still be heard on its others."""
        self.left = frozenset(self.ids.values())
        self.peer_names(stays)

    def peer_spares(self, number: int, spare: bool) -> None:
        """The peer says whether its path ``number`` is a spare one."""
        if spare != (number in self.left):
            self.left ^= {number}

    def peer_names(self, number: int) -> None:
        """The peer calls its path ``number`` its primary."""
        self.named = number
        if number in self.left:
            self.left -= {number}

    def renew(self) -> None:
        """A new association: path ids start anew, nothing is proven."""
        self.lapse()
        self.ids.clear()
        self.left = frozenset()
        self.named = 0

    def lapse(self) -> None:
        """Idle for long: no direct path is trusted any more (rule S6)."""
        for path in [p for p in self.states if not p.relayed]:
            self.note(path, Evidence.LAPSED)
        self.allowances.clear()

    def drop_socket(self, socket: int) -> None:
        """An own socket is gone."""
        for path in [p for p in self.states if p.socket == socket]:
            self.note(path, Evidence.GONE)
            del self.states[path]  # the number of a socket never comes again
        self.relayed.pop(socket, None)
        self.lossy = {path: at for path, at in self.lossy.items() if path.socket != socket}
        for path in [p for p in self.ids if p.socket == socket]:
            del self.ids[path]
        self.sending = tuple(p for p in self.sending if p.socket != socket)

    def is_proven(self, path: Path) -> bool:
        """Whether a challenge on the path was answered; a relay leg needs no proof."""
        return path.relayed or self.validity(path) in PROVEN

    def answered(self, path: Path, since: float) -> bool:
        """Whether a challenge on the direct path was answered at ``since`` or later."""
        known = self.proven.get(path)
        return known is not None and known.at >= since

    def loses(self, path: Path) -> bool:
        """Whether the path lost much more than another one lately."""
        return path in self.lossy

    def forgive(self, now: float) -> None:
        """Paths whose time has come count as before."""
        self.lossy = {path: until for path, until in self.lossy.items() if until > now}

    def rtt(self, path: Path | None) -> float | None:
        """Measured round trip of a path, or None."""
        if path is None:
            return None
        known = self.relayed.get(path.socket) if path.relayed else self.proven.get(path)
        return known.rtt if known else None

    def proven_at(self, path: Path) -> float:
        """When the path last answered a challenge, seconds."""
        known = self.relayed.get(path.socket) if path.relayed else self.proven.get(path)
        return known.at if known else 0.0

    def best_direct(self, key: Key) -> Path | None:
        """The best proven direct path: one in doubt comes after those that are not, and of equal
        ones that with the shortest round trip goes first."""

        def order(path: Path) -> tuple[bool, tuple[int, ...], float, Path]:
            in_doubt = self.validity(path) is Validity.DOUBTFUL
            return (in_doubt, key(path), self.proven[path].rtt, path)

        return min(self.proven, key=order, default=None)

    def better(self, path: Path, key: Key) -> bool:
        """Whether the proven ``path`` should take the primary's place (with hysteresis)."""
        present = self.primary
        if present is None or present == path:
            return present is None
        if not self.is_proven(present):
            return True
        if key(path) != key(present):
            return key(path) < key(present)
        new, old = self.rtt(path), self.rtt(present)
        if new is None or old is None:
            return False
        return new < old * PROMOTE_RATIO or new < old - PROMOTE_MARGIN

    def beside(self, path: Path) -> bool:
        """Whether ``path`` is another way than the one that carries."""
        return _place(path) != _place(self.primary)

    def silence(self, floor: float) -> float:
        """How long silence must last to mean something: max(3 RTT, floor)."""
        rtt = self.rtt(self.primary)
        return max(3 * (rtt if rtt is not None else RTT_UNKNOWN), floor)


def _place(path: Path | None) -> tuple[int, Endpoint, bool] | None:
    """Where a path leads: the id of its leg makes no difference."""
    return None if path is None else (path.socket, path.remote, path.relayed)


def _spot(path: Path) -> Path:
    """The same path whatever the present id of its leg."""
    return path._replace(leg=1) if path.relayed else path


def _smooth(old: float, new: float) -> float:
    return old * 0.75 + new * 0.25
