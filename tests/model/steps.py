"""What can happen: one step of a history, as plain values that can be kept and replayed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from tests.model.places import EVERY, PLACES

SETTLE, OVERLAP = "settle", "overlap"


@dataclass(frozen=True, slots=True)
class Step:
    """One transition.

    ``what``: name of a transition of :mod:`tests.model.arena`; ``node`` or server it concerns;
    ``place``: the network it goes to; ``value``: seconds, bytes or chances, by its kind;
    ``after``: seconds to the next step; ``who`` sends pings meanwhile: "both", "one" (the node
    concerned) or "other"; ``settle``: wait until the tunnel carries, or no way exists; ``late``:
    seconds that the default route comes later than usual after the address (links that come).
    """

    what: str
    node: int = 0
    place: str = ""
    value: float = 0.0
    after: float = 0.5
    who: str = "both"
    settle: bool = True
    late: float = 0.0

    def row(self) -> list[Any]:
        """For JSON."""
        row = [self.what, self.node, self.place, self.value, self.after, self.who, self.settle]
        return [*row, self.late] if self.late else row

    def __str__(self) -> str:
        words = [self.what, "ab"[self.node], self.place, f"{self.value:g}" if self.value else ""]
        words.append(f"route {self.late:g} s late" if self.late else "")
        end = "" if self.settle else f" (next after {self.after:g} s)"
        return " ".join(word for word in words if word) + f" [{self.who}]{end}"


# value ranges: a choice of numbers, or nothing
KINDS: dict[str, tuple[float, ...]] = {
    "move": (0.0, 0.0, 0.3, 3.0, 20.0),  # seconds without any link
    "attach": (50.0, 600.0),  # metric: better or worse than the present one's 100
    "detach": (0.0, 1.0),  # the best, or the other
    "both": (0.0, 0.02, 1.0),  # seconds between the two
    "back": (0.0, 0.5),  # to a network of before
    "sleep": (3.0, 100.0, 400.0),
    "sleep move": (10.0, 400.0),
    "rebind": (0.0, 1.0),  # new outside address?
    "silent": (0.0, 1.0, 2.0),  # both ways, what it sends, what it would receive
    "stall": (1.0, 6.0, 20.0),  # seconds that the links hold all back, to let it go at once
    "stand": (1.0, 6.0, 20.0),  # seconds that the daemon stands still (SIGSTOP)
    "prefer": (50.0, 600.0),  # another metric of the best link's route
    "deprecate": (1.0, 0.0),  # whether the best link's addresses are
    "family": (4.0, 6.0),  # that the best link loses
    "replay": (0.0, 1.0),  # some of what came comes again: from where it was, from elsewhere
    "heal": (),
    "eat": (0.0, 1.0, 2.0),  # UDP towards peers, relays, the coordinator
    "rough": (0.02, 0.1, 0.2),
    "slow": (0.15, 0.4),  # seconds each way: a queue that has filled up, or a satellite
    "smooth": (),
    "mtu": (1280.0, 1400.0, 1492.0),
    "wall": (-86_400.0, 86_400.0, -3.6e6),
    "crash": (0.0, 0.5, 5.0),
    "down up": (0.5, 5.0),
    "idle": (1.0, 15.0, 130.0, 200.0),
    "traffic": (20.0, 100.0),
    "relay restart": (1.0, 2.0),
    "relay dies": (1.0, 2.0),
    "relay back": (1.0, 2.0),
    "relay black hole": (1.0, 2.0),
    "relay drains": (1.0, 2.0),
    "relay stays": (1.0, 2.0),
    "dc restart": (),
    "dc dies": (),
    "dc back": (),
    "dc black hole": (),
    "as dies": (),
    "as back": (),
}
WEIGHTS = {"move": 4, "both": 2, "rebind": 3, "attach": 3, "detach": 3, "back": 2, "traffic": 2}
PLACED = ("move", "attach", "both", "sleep move")
LATE = (0.0, 0.0, 0.0, 0.0, 0.05, 0.2, 0.35, 1.0)
MENDING = ("heal", "smooth", "relay back", "dc back", "as back")


def draw(dice: Random, what: str, rich: bool = False) -> Step:
    """A step of this kind with everything else left to the dice; ``rich``: see Arena."""
    values = KINDS[what]
    settle = dice.random() < 0.6
    return Step(
        what,
        dice.randrange(2),
        dice.choice(list(EVERY if rich else PLACES)) if what in PLACED else "",
        dice.choice(values) if values else 0.0,
        round(dice.choice((0.0, 0.02, 0.1, 0.5)) * dice.uniform(0.5, 1.5), 3),
        dice.choice(("both", "both", "both", "one", "other")),
        settle,
        dice.choice(LATE) if what in (*PLACED, "back") else 0.0,
    )
