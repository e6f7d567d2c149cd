"""Sealed challenges on the ladder: keep-alives, path checks, mapping tests, and Moves.

Every copy carries its own nonce, so that an answer gives the round trip of the very copy it
answers. What a challenge proves is the owner's business; here is only sending and matching.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ntmd.node.common import Common
from ntmd.proto.messages import Answer, Message, Probe
from ntmd.proto.timing import LADDER
from ntmd.proto.types import Endpoint, Path

MTU = "mtu"  # purpose of probes that ask for a size, not for life
RUNG_BITS = 4
LAST_WAIT = 1.0  # seconds after the last copy until the attempt has failed
STOOD_STILL = 1.0  # a next copy overdue for this long: nothing ran meanwhile, seconds


@dataclass(frozen=True, slots=True)
class Proof:
    """A challenge was answered: what was asked on ``path`` came back on ``back``."""

    path: Path
    back: Path
    rtt: float
    answer: Answer


@dataclass(slots=True)
class _Attempt:
    handle: int
    path: Path
    make: Callable[[int], Message]
    won: Callable[[Proof, float], None]
    lost: Callable[[float], None] | None
    ladder: tuple[float, ...]
    purpose: str
    sent: list[float] = field(default_factory=list)


def plain_probe(nonce: int) -> Probe:
    """A challenge without further wishes."""
    return Probe(nonce)


class Prober:
    """All challenges under way."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._attempts: dict[int, _Attempt] = {}
        self.observed: Callable[[Path, Endpoint | None], None] = lambda *_: None

    def start(
        self,
        handle: int,
        path: Path,
        now: float,
        won: Callable[[Proof, float], None],
        *,
        lost: Callable[[float], None] | None = None,
        make: Callable[[int], Message] = plain_probe,
        ladder: tuple[float, ...] = LADDER,
        purpose: str = "probe",
    ) -> None:
        """Send copies of ``make(nonce)`` on ``path`` until one is answered or the ladder ends."""
        base = self._common.number(8) >> RUNG_BITS
        self._attempts[base] = _Attempt(handle, path, make, won, lost, ladder, purpose)
        self._send(base, now)

    def _send(self, base: int, now: float) -> None:
        attempt = self._attempts.get(base)
        if attempt is None:
            return
        rung = len(attempt.sent)
        if rung > len(attempt.ladder):
            self._give_up(base, now)
            return
        nonce = base << RUNG_BITS | min(rung, (1 << RUNG_BITS) - 1)
        attempt.sent.append(now)
        self._common.engine.tell(attempt.handle, attempt.make(nonce), now, path=attempt.path)
        wait = attempt.ladder[rung] if rung < len(attempt.ladder) else LAST_WAIT
        self._common.timers.set(("probe", base), now + wait, lambda at: self._send(base, at))

    def _give_up(self, base: int, now: float) -> None:
        attempt = self._attempts.pop(base)
        if attempt.lost is not None:
            attempt.lost(now)

    def answered(self, handle: int, answer: Answer, back: Path, now: float) -> bool:
        """An Answer came in; False if it belongs to nothing under way."""
        base, rung = answer.nonce >> RUNG_BITS, answer.nonce & ((1 << RUNG_BITS) - 1)
        attempt = self._attempts.get(base)
        if attempt is None or attempt.handle != handle or rung >= len(attempt.sent):
            return False
        due = self._common.timers.pending(("probe", base))
        if due is not None and now > due + STOOD_STILL:
            return False  # it waited for us: no round trip, and no sign that the way carries now
        self._drop(base)
        self.observed(attempt.path, answer.observed)
        rtt = max(now - attempt.sent[rung], 1e-6)
        attempt.won(Proof(attempt.path, back, rtt, answer), now)
        return True

    def _drop(self, base: int) -> None:
        self._attempts.pop(base, None)
        self._common.timers.cancel(("probe", base))

    def attempts(self) -> list[tuple[Path, str]]:
        """What is being challenged, and for what purpose."""
        return [(each.path, each.purpose) for each in self._attempts.values()]

    def copies(self, handle: int, path: Path) -> list[float]:
        """When challenges that are under way on ``path`` were sent, and not answered."""
        found = [a.sent for a in self._attempts.values() if (a.handle, a.path) == (handle, path)]
        return [at for sent in found for at in sent]

    def under_way(self, handle: int, path: Path) -> bool:
        """Whether ``path`` is being challenged on a ladder; single copies do not count."""
        return any(
            a.handle == handle and a.path == path and a.ladder and a.purpose != MTU
            for a in self._attempts.values()
        )

    def cancel(
        self, handle: int, *, purpose: str | None = None, keep: Callable[[Path], bool] | None = None
    ) -> None:
        """Stop the attempts of an association: all, those of a purpose, those on paths not kept."""
        for base, attempt in list(self._attempts.items()):
            if attempt.handle != handle or purpose not in (None, attempt.purpose):
                continue
            if keep is None or not keep(attempt.path):
                self._drop(base)

    def cancel_socket(self, socket: int) -> None:
        """Stop all attempts on an own socket that is gone."""
        for base, attempt in list(self._attempts.items()):
            if attempt.path.socket == socket:
                self._drop(base)
