"""Makes a failing history small: the same seed, fewer and simpler steps, the same rule broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.model.history import History, Violation
from tests.model.steps import KINDS, Step

TRIES = 400  # histories run for one shrinking


def replay(seed: int, first: tuple[str, ...], steps: list[Step]) -> Violation | None:
    """Run a recorded history; a crash of the code under test is a violation too."""
    try:
        return History(seed, first).run(steps)
    except Exception as error:
        return Violation("crash", f"{type(error).__name__}: {error}", 0)


def shrink(seed: int, first: tuple[str, ...], steps: list[Step], kind: str) -> list[Step]:
    """The smallest list of steps found that still breaks a rule of this kind."""
    left = [TRIES]

    def fails(candidate: list[Step]) -> bool:
        left[0] -= 1
        found = replay(seed, first, candidate)
        return found is not None and found.kind == kind

    steps = _fewer(steps, fails, left)
    return _simpler(steps, fails, left)


def _fewer(steps: list[Step], fails: Callable[[list[Step]], bool], left: list[int]) -> list[Step]:
    """Delta debugging: leave out ever smaller runs of steps."""
    size = max(1, len(steps) // 2)
    while left[0] > 0:
        at, shorter = 0, False
        while at < len(steps) and left[0] > 0:
            candidate = steps[:at] + steps[at + size :]
            if fails(candidate):
                steps, shorter = candidate, True
            else:
                at += size
        if size == 1 and not shorter:
            break
        size = max(1, size // 2) if not shorter or size > 1 else 1
    return steps


def _simpler(steps: list[Step], fails: Callable[[list[Step]], bool], left: list[int]) -> list[Step]:
    """Plainer steps: both send, the world settles, nothing overlaps."""
    for at in range(len(steps)):
        for plain in (
            replace(steps[at], who="both"),
            replace(steps[at], settle=True, after=5.0),
            replace(steps[at], value=next(iter(KINDS[steps[at].what]), 0.0)),
        ):
            candidate = [*steps[:at], plain, *steps[at + 1 :]]
            if plain != steps[at] and left[0] > 0 and fails(candidate):
                steps = candidate
    return steps
