"""What ntmd wants to reach, and whether these repetitions do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.survival.ground import RTT
from tests.survival.measure import quantile
from tests.survival.summary import Cell, short

TRIP = RTT * 1000  # ms


@dataclass(frozen=True)
class Goal:
    """Median and worst of one figure, in ms (datagrams lost: a count)."""

    scenario: str
    figure: str
    median: float
    worst: float
    values: Callable[[Cell], Sequence[float]]
    unit: Callable[[float], str] = short

    def verdict(self, cell: Cell) -> tuple[str, str]:
        """The figures in words, and whether the goal is met."""
        values = self.values(cell)
        if not values:
            return "-", "not measured"
        middle, worst = quantile(values, 0.5), max(values)
        told = f"{self.unit(middle)} / {self.unit(worst)}"
        if middle > self.median:
            return told, "**not met**"
        return told, "met" if worst <= self.worst else "met by the median, **not by the worst**"

    def wanted(self) -> str:
        """The limits in words."""
        return f"<= {self.unit(self.median)} / {self.unit(self.worst)}"


def out(cell: Cell) -> Sequence[float]:
    """Gap of what the mover sends."""
    return cell.gaps("udp-out")


def back(cell: Cell) -> Sequence[float]:
    """Gap of what the peer sends."""
    return cell.gaps("udp-in")


def answer(cell: Cell) -> Sequence[float]:
    """Time to the first answer."""
    return cell.gaps("first-answer")


def hard(scenario: str, extra: float) -> list[Goal]:
    """The three kinds of hard move; ``extra``: round trips that NATs and relays may add, in ms."""
    return [
        Goal(
            scenario, "mover sends: gap", 25 + TRIP + extra, 60 + TRIP + extra, out
        ),
        Goal(f"{scenario}-peer", "peer sends: gap", 60 + extra, 150 + extra, back),
        Goal(f"{scenario}-idle", "first answer", 60 + extra, 150 + extra, answer),
    ]  # fmt: skip


GOALS = [
    Goal("soft", "datagrams lost", 0, 0, lambda cell: cell.lost(), lambda n: f"{n:.0f}"),
    *hard("hard", TRIP),
    *hard("relay", TRIP),
    Goal("both", "gap, either way", 300, 1000, Cell.datagram_gaps),
    Goal("silent", "gap, either way", 400, 800, Cell.datagram_gaps),
    Goal("servers-dead", "mover sends: gap", 25 + 2 * TRIP, 60 + 2 * TRIP, out),
    Goal("kill", "longest TCP stall", 2000, 2000, Cell.stalls),
    Goal("sleep", "gap after the wake, either way", 1.5 * TRIP + 150, 1.5 * TRIP + 150,
         Cell.datagram_gaps),
    Goal("sleep", "longest TCP stall after the wake", 200, 500, Cell.stalls),
    Goal("outage", "longest TCP stall beyond the outage", 200, 200, Cell.stalls),
]  # fmt: skip
