"""One virtual clock and event queue for a whole world; every random stream comes from its seed."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

EPOCH_MS = 1_767_225_600_000  # the world's wall clock at virtual time 0: 2026-01-01T00:00:00Z


class Timer:
    """A scheduled action that may still be cancelled."""

    __slots__ = ("action", "cancelled")

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        """The action will not run."""
        self.cancelled = True


class Clock:
    """Virtual seconds; actions run in order of time, then of their scheduling."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.seed = seed
        self.steps = 0
        self._queue: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def stream(self, label: str) -> Random:
        """A random stream of its own for ``label``: adding one user never shifts another's."""
        digest = hashlib.sha256(f"{self.seed}/{label}".encode()).digest()
        return Random(int.from_bytes(digest, "big"))

    def after(self, delay: float, action: Callable[[], Any]) -> Timer:
        """Run ``action`` in ``delay`` seconds (0: after what is already due)."""
        return self.at(self.now + delay, action)

    def at(self, when: float, action: Callable[[], Any]) -> Timer:
        """Run ``action`` at ``when``; an instant in the past means now."""
        timer = Timer(action)
        due = when if when > self.now else self.now
        heapq.heappush(self._queue, (due, next(self._order), timer))
        return timer

    def run_until(self, when: float, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass to ``when``, or until ``done()`` holds; returns whether it held."""
        if done is not None and done():
            return True
        queue = self._queue
        while queue and queue[0][0] <= when:
            self.now, _, timer = heapq.heappop(queue)
            if timer.cancelled:
                continue
            self.steps += 1
            timer.action()
            if done is not None and done():
                return True
        self.now = max(self.now, when)
        return False

    def run(self, seconds: float, done: Callable[[], bool] | None = None) -> bool:
        """Let ``seconds`` pass, or less if ``done()`` comes to hold; returns whether it held."""
        return self.run_until(self.now + seconds, done)
