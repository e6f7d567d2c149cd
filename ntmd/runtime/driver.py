"""The driver: one event loop, one core, one timer.

Every input is handed to the core with the time; then its commands are executed in order, and the
timer is set to its deadline. Whatever executing a command posts (a refused datagram, a result) is
taken after the commands already waiting, never inside the core. The same driver runs the node and
each server.

An exception in the core or in a command is a defect of ours, never of a peer's making: it is
logged with its traceback and ends :meth:`Driver.run`, so that a supervisor sees it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ntmd.proto.io import Core
from ntmd.runtime.clock import boot_clock
from ntmd.runtime.journal import Trace, journal

LONGEST_SLEEP = (
    60.0  # the loop's timer stands still while the machine sleeps: look again after this
)
EARLIEST = 0.0005  # a deadline this near is as good as passed

log = journal(__name__)


class Driver:
    """Runs ``core``; ``execute`` carries out one command and may call :meth:`post`.

    ``look()`` gives what the clocks say happened; it goes before all that waits or is due.
    """

    def __init__(
        self,
        core: Core,
        execute: Callable[[Any], None],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        clock: Callable[[], float] = boot_clock,
        trace: Trace | None = None,
        look: Callable[[], Sequence[Any]] = tuple,
    ) -> None:
        self.core = core
        self.clock = clock
        self.failure: BaseException | None = None
        self._execute = execute
        self._loop = loop or asyncio.get_running_loop()
        self._trace = trace
        self._look = look
        self._inputs: deque[Any] = deque()
        self._busy = False
        self._stopped = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None

    def post(self, event: Any) -> None:
        """Hand one input to the core and do what it wishes; from the loop's thread only."""
        self._inputs.append(event)
        if not self._busy:
            self._work()

    def post_soon(self, event: Any) -> None:
        """Like :meth:`post`, from any thread."""
        self._loop.call_soon_threadsafe(self.post, event)

    def look(self) -> None:
        """Ask the clocks now: the machine may have slept."""
        if not self._busy:
            self._work()

    async def run(self) -> None:
        """Serve until :meth:`stop`; raises what the core raised."""
        self._work()
        await self._stopped.wait()
        if self._timer is not None:
            self._timer.cancel()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Let :meth:`run` return; inputs posted afterwards are ignored."""
        self._stopped.set()

    def _work(self) -> None:
        if self._stopped.is_set():
            self._inputs.clear()
            return
        self._busy = True
        try:
            self._inputs.extendleft(reversed(self._look()))
            self._drain()
            while self._inputs:
                self._take(self._inputs.popleft())
                self._drain()
        except Exception as error:  # ours: crash loudly
            log.failure("the core failed", error)
            self.failure = error
            self.stop()
        finally:
            self._busy = False
        if not self._stopped.is_set():
            self._arm()

    def _take(self, event: Any) -> None:
        now = self.clock()
        if self._trace is not None:
            self._trace.write("input", event, now)
        self.core.handle(event, now)

    def _drain(self) -> None:
        while commands := self.core.take_commands():
            for command in commands:
                if self._trace is not None:
                    self._trace.write("command", command, self.clock())
                self._execute(command)

    def _arm(self) -> None:
        deadline = self.core.deadline()
        if deadline == self._armed and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        if deadline is None:
            self._timer = None
            return
        wait = min(max(deadline - self.clock(), 0.0), LONGEST_SLEEP)
        self._timer = self._loop.call_later(wait, self._tick)

    def _tick(self) -> None:
        self._timer = None
        deadline, now = self._armed, self.clock()
        self._armed = None
        if deadline is not None and deadline - now <= EARLIEST and not self._stopped.is_set():
            self._busy = True
            try:
                for event in self._look():
                    self._take(event)
                self.core.handle_deadline(max(now, deadline))
            except Exception as error:  # ours: crash loudly
                log.failure("the core failed at its deadline", error)
                self.failure = error
                self.stop()
            finally:
                self._busy = False
        self._work()
