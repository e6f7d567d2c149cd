"""Things to do later, by name: the node's one list of instants."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable

SPARE = 16  # entries of the heap that may be out of date, whatever the number of live ones


class Timers:
    """Named instants (boot-clock seconds). Setting a name again replaces its instant."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Hashable]] = []
        self._live: dict[Hashable, tuple[int, float, Callable[[float], None]]] = {}
        self._order = itertools.count()

    def set(self, name: Hashable, when: float, call: Callable[[float], None]) -> None:
        """Call ``call(now)`` at ``when``, instead of whatever ``name`` stood for before."""
        number = next(self._order)
        self._live[name] = (number, when, call)
        heapq.heappush(self._heap, (when, number, name))
        if len(self._heap) > 2 * len(self._live) + SPARE:
            self._heap = [e for e in self._heap if self._current(e)]
            heapq.heapify(self._heap)

    def cancel(self, name: Hashable) -> None:
        """Forget ``name``; unknown names are ignored."""
        self._live.pop(name, None)

    def __len__(self) -> int:
        return len(self._live)

    def pending(self, name: Hashable) -> float | None:
        """When ``name`` is due, or None."""
        entry = self._live.get(name)
        return entry[1] if entry else None

    def run(self, now: float) -> None:
        """Call everything that is due, in order of its instant, then of being set."""
        while (head := self._head()) is not None and head[0] <= now:
            heapq.heappop(self._heap)
            _, _, call = self._live.pop(head[2])
            call(now)

    def deadline(self) -> float | None:
        """The earliest instant, or None."""
        head = self._head()
        return head[0] if head else None

    def _head(self) -> tuple[float, int, Hashable] | None:
        while self._heap:
            head = self._heap[0]
            if self._current(head):
                return head
            heapq.heappop(self._heap)
        return None

    def _current(self, entry: tuple[float, int, Hashable]) -> bool:
        """Whether this is what its name stands for now."""
        live = self._live.get(entry[2])
        return live is not None and live[0] == entry[1]
