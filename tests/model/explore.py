"""Choosing the next step: what was seen least goes first. Coverage is counted, seeds decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from random import Random

from tests.model.history import History
from tests.model.places import EVERY, PLACES
from tests.model.steps import KINDS, MENDING, WEIGHTS, Step, draw

STATES = ("established", "established/idle", "idle", "waking", "calling")
PATHS = ("direct", "relay", "two", "none")
CANDIDATES = 5
MEND = 0.5  # chance of a mending step while there is no way


@dataclass
class Coverage:
    """How often each situation x transition, and each pair of transitions, was met."""

    situations: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    def note(self, situation: tuple[str, str], before: Step | None, step: Step) -> None:
        """A step was taken."""
        self.situations[*situation, step.what] += 1
        if before is not None:
            self.pairs[before.what, step.what, before.settle] += 1

    def rarity(self, situation: tuple[str, str], before: Step | None, step: Step) -> int:
        """Small where nothing like it was seen yet."""
        pair = self.pairs[before.what, step.what, before.settle] if before is not None else 0
        return min(self.situations[*situation, step.what], pair)

    def add(self, other: Coverage) -> None:
        """Take in what another run met."""
        self.situations.update(other.situations)
        self.pairs.update(other.pairs)

    def words(self) -> str:
        """Covered and total of the main situations and of all pairs of transitions."""
        main = list(product(STATES, PATHS, KINDS))
        pairs = list(product(KINDS, KINDS, (True, False)))
        met = sum(1 for each in main if self.situations[each])
        met_pairs = sum(1 for each in pairs if self.pairs[each])
        return (
            f"situation x transition {met}/{len(main)} (and {len(self.situations) - met} mixed "
            f"ones), pairs of transitions {met_pairs}/{len(pairs)}"
        )


def first_places(seed: int) -> tuple[str, ...]:
    """Where the nodes begin: every ordered pair comes up in turn. Of four thousand seeds, the last
    thousand have a third node and places without UDP."""
    rich = seed // 1000 % 4 == 3
    kinds = list(EVERY if rich else PLACES)
    pair = kinds[seed % len(kinds)], kinds[seed // len(kinds) % len(kinds)]
    return (*pair, "port restricted") if rich else pair


def explore(history: History, count: int, coverage: Coverage) -> Iterator[Step]:
    """``count`` steps for this history, each chosen when it is due."""
    dice = history.arena.clock.stream("explore")
    kinds, rich = list(KINDS), history.arena.rich
    weights = [WEIGHTS.get(what, 1) for what in kinds]
    before: Step | None = None
    for _ in range(count):
        situation = history.situation()
        if not history.oracle.way() and dice.random() < MEND:
            options = [draw(dice, what, rich) for what in MENDING]
        else:
            options = [draw(dice, what, rich) for what in _some(dice, kinds, weights)]
        options = [each for each in options if history.applies(each)] or [draw(dice, "traffic")]
        step = min(options, key=lambda each: coverage.rarity(situation, before, each))
        applied = history.applied
        yield step
        if history.applied > applied:
            coverage.note(situation, before, step)
            before = step


def _some(dice: Random, kinds: list[str], weights: list[int]) -> list[str]:
    return dice.choices(kinds, weights, k=CANDIDATES)
