"""Who waits for which reply."""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.common import Common
from ntmd.proto.messages import Reply, Request
from ntmd.proto.timing import REQUEST_TIMEOUT
from ntmd.proto.types import Path

Done = Callable[[Reply | None, float], None]
"""Called once with the reply, or with None when there was none in time."""


class Requests:
    """Outstanding requests of the node, by association and request id."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._waiting: dict[tuple[int, int], Done] = {}
        self._gone = 0

    def ask(
        self,
        handle: int,
        request: Request,
        now: float,
        done: Done,
        *,
        path: Path | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        """Ask; ``done`` is called exactly once unless the association is forgotten."""
        number = self._common.engine.ask(handle, request, now, path=path, timeout=timeout)
        if number:
            self._waiting[handle, number] = done
        else:  # the association is gone
            self._gone += 1
            self._common.timers.set(("gone", self._gone), now, lambda at: done(None, at))

    def replied(self, handle: int, number: int, reply: Reply | None, now: float) -> None:
        """A reply came in (None: the request failed); unknown ones are ignored."""
        done = self._waiting.pop((handle, number), None)
        if done is not None:
            done(reply, now)
