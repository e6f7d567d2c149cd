"""The clocks of the machine. Nothing else in the daemon or the servers reads one.

Timers run on the boot clock, which goes on while the machine sleeps; validity of certificates and
records is judged by platform time, which a core derives from the boot clock (rule S8).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ntmd.proto.timing import CLOCK_STEP, SLEPT

CLOCK_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> float:
    """Seconds since boot, time asleep included; never goes back."""
    return time.clock_gettime(CLOCK_BOOTTIME)


def wall_ms() -> int:
    """The wall clock in milliseconds since the epoch; may be wrong, may jump."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds that the machine was awake; stands still while it sleeps."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class ClockWatch:
    """Notices, whenever it is asked, that the machine slept or that its clock was set.

    It costs a few system calls a turn and no wake-up: whoever has a reason to act asks first.
    """

    def __init__(
        self,
        boot: Callable[[], float] = boot_clock,
        awake: Callable[[], float] = monotonic,
        wall: Callable[[], int] = wall_ms,
    ) -> None:
        self._boot, self._awake, self._wall = boot, awake, wall
        self._asleep = boot() - awake()
        self._ahead = wall() / 1000 - boot()

    def slept(self) -> float:
        """Seconds slept since it was last asked; 0.0 if that is within what clocks differ by."""
        asleep = self._boot() - self._awake()
        since = asleep - self._asleep
        if since <= SLEPT:
            return 0.0
        self._asleep = asleep
        return since

    def set_to(self) -> int | None:
        """The wall clock in ms if it was set since last asked, else None."""
        wall = self._wall()
        ahead = wall / 1000 - self._boot()
        if abs(ahead - self._ahead) <= CLOCK_STEP:
            return None
        self._ahead = ahead
        return wall
