"""Platform time: what the node believes the date to be (rule S8).

Validity of certificates and records is judged by platform time = boot clock + offset. The offset
starts from the shell's wall clock, never below the persisted lower bound, and is replaced by the
first authenticated answer of the coordinator.
"""

from __future__ import annotations

from ntmd.proto.timing import CLOCK_COMPLAINT, CLOCK_SLACK


class PlatformClock:
    """Milliseconds since the epoch at any boot-clock instant."""

    def __init__(self, wall_ms: int, now: float, lower_bound_ms: int = 0) -> None:
        self._offset_ms = max(wall_ms, lower_bound_ms) - int(now * 1000)
        self._wall_offset_ms = wall_ms - int(now * 1000)
        self.authenticated = False

    def __call__(self, now: float) -> int:
        """Platform time at ``now``, in ms."""
        return self._offset_ms + int(now * 1000)

    def wall(self, now: float) -> int:
        """What the shell's wall clock says at ``now``, in ms."""
        return self._wall_offset_ms + int(now * 1000)

    def read(self, wall_ms: int, now: float) -> None:
        """The shell read its wall clock; it only counts until an authenticated answer came."""
        self._wall_offset_ms = wall_ms - int(now * 1000)
        if not self.authenticated:
            self._offset_ms = max(self._offset_ms, self._wall_offset_ms)

    def learn(self, platform_ms: int, now: float) -> None:
        """An authenticated answer of the coordinator carried its time."""
        if platform_ms > 0:
            self._offset_ms = platform_ms - int(now * 1000)
            self.authenticated = True

    def slack_ms(self) -> int:
        """How far server certificates may be out of their validity (0 once authenticated)."""
        return 0 if self.authenticated else int(CLOCK_SLACK * 1000)

    def wrong_by(self) -> float:
        """Seconds by which the wall clock is off, 0 when it is within the complaint limit."""
        off = (self._wall_offset_ms - self._offset_ms) / 1000
        return off if self.authenticated and abs(off) > CLOCK_COMPLAINT else 0.0
