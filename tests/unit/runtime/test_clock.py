"""The clock watch: sleep shows in two clocks, a set clock in two others; small steps in none."""

from __future__ import annotations

import asyncio
from typing import Any

from ntmd.runtime.clock import ClockWatch
from ntmd.runtime.driver import Driver


class Clocks:
    """Three clocks that a test moves."""

    def __init__(self) -> None:
        self.boot, self.awake, self.wall = 5000.0, 4000.0, 1_767_225_600_000
        self.watch = ClockWatch(lambda: self.boot, lambda: self.awake, lambda: self.wall)

    def run(self, seconds: float, *, asleep: bool = False) -> None:
        self.boot += seconds
        self.wall += int(seconds * 1000)
        self.awake += 0.0 if asleep else seconds


def test_sleep_is_told_once_and_with_its_length() -> None:
    clocks = Clocks()
    clocks.run(100.0)
    assert clocks.watch.slept() == 0.0
    clocks.run(36_000.0, asleep=True)
    assert clocks.watch.slept() == 36_000.0
    assert clocks.watch.slept() == 0.0
    clocks.run(1.5, asleep=True)
    assert clocks.watch.slept() == 0.0
    clocks.run(1.5, asleep=True)
    assert clocks.watch.slept() == 3.0, "two short naps make one that counts"
    assert clocks.watch.set_to() is None, "sleep is no reason to doubt the wall clock"


def test_a_clock_that_was_set_is_told_once_and_slewing_never() -> None:
    clocks = Clocks()
    clocks.wall += 400
    assert clocks.watch.set_to() is None
    clocks.wall -= 86_400_000
    assert clocks.watch.set_to() == clocks.wall
    assert clocks.watch.set_to() is None
    assert clocks.watch.slept() == 0.0


class Core:
    """Writes down what it is handed."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.due: float | None = None

    def handle(self, event: Any, now: float) -> None:
        self.taken.append(event)

    def handle_deadline(self, now: float) -> None:
        self.taken.append("due")
        self.due = None

    def take_commands(self) -> list[Any]:
        return []

    def deadline(self) -> float | None:
        return self.due


def test_what_the_clocks_say_goes_before_what_waits_and_what_is_due() -> None:
    said: list[str] = []

    def look() -> list[str]:
        taken, said[:] = list(said), []
        return taken

    async def run() -> list[Any]:
        core, now = Core(), [100.0]
        driver = Driver(core, lambda command: None, clock=lambda: now[0], look=look)
        core.due = 101.0
        task = asyncio.ensure_future(driver.run())
        await asyncio.sleep(0)
        said.append("woke")
        driver.post("packet")
        assert core.taken == ["woke", "packet"]
        now[0], said[:] = 36_000.0, ["woke again"]
        while "due" not in core.taken:
            await asyncio.sleep(0.01)
        driver.stop()
        await task
        return core.taken[2:]

    assert asyncio.run(run()) == ["woke again", "due"]
