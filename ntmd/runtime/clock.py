"""The clocks of the machine. Nothing else in the daemon or the servers reads one.

Timers run on the boot clock, which goes on while the machine sleeps; validity of certificates and
records is judged by platform time, which a core derives from the boot clock (rule S8).
"""

from __future__ import annotations

import time

CLOCK_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> float:
    """Seconds since boot, time asleep included; never goes back."""
    return time.clock_gettime(CLOCK_BOOTTIME)


def wall_ms() -> int:
    """The wall clock in milliseconds since the epoch; may be wrong, may jump."""
    return time.time_ns() // 1_000_000
