"""The driver hands over inputs in order, keeps the deadline, and crashes loudly."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ntmd.runtime.driver import Driver


class Recorder:
    """A core that writes down what it is told and wishes for what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.wishes: list[Any] = []
        self.wake: float | None = None
        self.on_deadline: Callable[[float], None] = lambda now: None

    def handle(self, event: Any, now: float) -> None:
        if event == "broken":
            raise ZeroDivisionError
        self.seen.append(event)
        self.wishes.append(("did", event))

    def handle_deadline(self, now: float) -> None:
        self.seen.append("deadline")
        self.wake = None
        self.on_deadline(now)

    def take_commands(self) -> list[Any]:
        wishes, self.wishes = self.wishes, []
        return wishes

    def deadline(self) -> float | None:
        return self.wake


def test_what_a_command_posts_waits_until_the_commands_before_it_are_done() -> None:
    async def story() -> None:
        core, order = Recorder(), []

        def execute(command: Any) -> None:
            order.append(command)
            if command == ("did", "first"):
                driver.post("second")
                order.append("posted")

        driver = Driver(core, execute)
        core.wishes.append("waiting")
        driver.post("first")
        assert order == ["waiting", ("did", "first"), "posted", ("did", "second")]
        assert core.seen == ["first", "second"]

    asyncio.run(story())


def test_the_deadline_is_kept_and_never_early() -> None:
    async def story() -> None:
        core = Recorder()
        driver = Driver(core, lambda command: None)
        done = asyncio.get_running_loop().create_future()
        core.on_deadline = done.set_result
        wanted = driver.clock() + 0.03
        core.wake = wanted
        driver.post("go")
        assert await asyncio.wait_for(done, 5) >= wanted

    asyncio.run(story())


def test_a_deadline_moved_forward_is_kept_too() -> None:
    async def story() -> None:
        core = Recorder()
        driver = Driver(core, lambda command: None)
        done = asyncio.get_running_loop().create_future()
        core.on_deadline = done.set_result
        core.wake = driver.clock() + 3600
        driver.post("later")
        core.wake = driver.clock() - 1
        driver.post("now")
        await asyncio.wait_for(done, 5)
        assert core.seen == ["later", "now", "deadline"]

    asyncio.run(story())


def test_an_error_of_ours_ends_the_run_with_that_error() -> None:
    async def story() -> None:
        driver = Driver(Recorder(), lambda command: None)
        driver.post("broken")
        driver.post("ignored afterwards")
        await driver.run()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(story())


def test_an_error_at_the_deadline_ends_the_run_too() -> None:
    async def story() -> None:
        core = Recorder()

        def fail(now: float) -> None:
            raise KeyError("ours")

        core.on_deadline = fail
        core.wake = 0.0
        await asyncio.wait_for(Driver(core, lambda command: None).run(), 5)

    with pytest.raises(KeyError):
        asyncio.run(story())


def test_stop_ends_the_run_in_peace() -> None:
    async def story() -> None:
        driver = Driver(Recorder(), lambda command: None)
        asyncio.get_running_loop().call_soon(driver.stop)
        await asyncio.wait_for(driver.run(), 5)

    asyncio.run(story())
