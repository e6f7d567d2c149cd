"""Many histories, spread over processes: what they covered, how fast, and what failed."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.model.explore import Coverage, explore, first_places
from tests.model.history import History, Violation
from tests.model.shrink import replay, shrink
from tests.model.steps import Step

CORPUS = Path(__file__).with_name("corpus.json")
STEPS = 240  # in one history
SIZE = 1000  # transitions of a chunk, at least


@dataclass(frozen=True, slots=True)
class Failure:
    """A history that broke a rule, as short as it could be made."""

    seed: int
    first: tuple[str, ...]
    steps: list[Step]
    violation: Violation

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, at {', '.join(self.first)}: {self.violation.kind}"]
        lines += [f"    {step}" for step in self.steps]
        return "\n".join([*lines, f"  {self.violation.text}", f"  {json.dumps(self.row())}"])

    def row(self) -> dict[str, object]:
        """For the corpus."""
        rows = [step.row() for step in self.steps]
        return {"seed": self.seed, "first": list(self.first), "steps": rows}


@dataclass
class Report:
    """What some histories came to."""

    histories: int = 0
    transitions: int = 0
    events: int = 0
    coverage: Coverage = field(default_factory=Coverage)
    recovered: dict[str, list[float]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take in another report."""
        self.histories += other.histories
        self.transitions += other.transitions
        self.events += other.events
        self.coverage.add(other.coverage)
        self.failures += other.failures
        for what, times in other.recovered.items():
            self.recovered.setdefault(what, []).extend(times)

    def row(self, seconds: float) -> dict[str, object]:
        """For runs.json."""
        return {
            "transitions": self.transitions,
            "histories": self.histories,
            "transitions per second": round(self.transitions / max(seconds, 1e-9)),
            "coverage": self.coverage.words(),
            "failed": [failure.seed for failure in self.failures],
        }

    def words(self, seconds: float) -> str:
        """For people."""
        lines = [
            f"{self.transitions} transitions in {self.histories} histories, {seconds:.0f} s: "
            f"{self.transitions / max(seconds, 1e-9):.0f} transitions/s, {self.events} events",
            f"coverage: {self.coverage.words()}",
            "until pings are answered again, ms (median, 99 %, worst of n):",
        ]
        for what, times in sorted(self.recovered.items()):
            ordered = sorted(times)
            half, most, worst = (
                round(ordered[int(len(ordered) * share) - (share == 1)] * 1000)
                for share in (0.5, 0.99, 1)
            )
            lines.append(f"  {what:17} {half:6} {most:6} {worst:6}  of {len(ordered)}")
        lines.append(f"{len(self.failures)} histories failed")
        return "\n".join([*lines, *(str(failure) for failure in self.failures)])


def one(seed: int, steps: int, coverage: Coverage, *, small: bool) -> Report:
    """One history from its seed."""
    first = first_places(seed)
    report = Report(1, coverage=Coverage())
    history: History | None = None
    try:
        history = History(seed, first)
        violation = history.run(explore(history, steps, coverage))
    except Exception as error:  # the code under test broke: a finding like any other
        violation = Violation("crash", f"{type(error).__name__}: {error}", 0)
    taken = history.steps if history is not None else []
    if history is not None:
        report.transitions, report.events = history.applied, history.arena.clock.steps
        for what, seconds in history.recovered:
            report.recovered.setdefault(what, []).append(seconds)
    if violation is not None:
        short = shrink(seed, first, taken, violation.kind) if small else taken
        report.failures.append(Failure(seed, first, short, replay(seed, first, short) or violation))
    return report


def chunk(seed: int, transitions: int, small: bool) -> Report:
    """Histories with seeds from ``seed`` on, until that many transitions happened."""
    report = Report()
    gc.disable()  # a history is one knot of cycles: looking for garbage inside it is in vain
    try:
        while report.transitions < transitions:
            report.add(one(seed + report.histories, STEPS, report.coverage, small=small))
            gc.collect()
    finally:
        gc.enable()
    return report


def starts(seed: int, transitions: int) -> range:
    """First seeds of the chunks of a campaign: 1,000 apart, so no history comes up twice."""
    return range(seed, seed + 1000 * -(-transitions // SIZE), 1000)


def campaign(seed: int, transitions: int, jobs: int, *, small: bool = True) -> Iterator[Report]:
    """Reports of all chunks, in order."""
    firsts = starts(seed, transitions)
    if jobs == 1:
        yield from (chunk(first, SIZE, small) for first in firsts)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(chunk, firsts, [SIZE] * len(firsts), [small] * len(firsts))


def corpus() -> list[tuple[str, int, tuple[str, ...], list[Step]]]:
    """Histories that once failed: name, seed, first places, steps."""
    found = []
    for row in json.loads(CORPUS.read_text()):
        steps = [Step(*values) for values in row["steps"]]
        found.append((row["name"], row["seed"], tuple(row["first"]), steps))
    return found


def timed(seed: int, transitions: int, jobs: int, *, small: bool = True) -> tuple[Report, float]:
    """The whole campaign and its duration in seconds."""
    begun, report = time.monotonic(), Report()
    for each in campaign(seed, transitions, jobs, small=small):
        report.add(each)
    return report, time.monotonic() - begun
