"""The receive window: which data counters of a session have arrived (rule S2).

One byte per counter in a ring, so that the common case, the next counter in order, is one store.
Counters start at 1. The ring is made with the first datagram: an idle session has none.
"""

from __future__ import annotations

from ntmd.proto import timing

FIRST_COUNTER = 1
DEFAULT_SIZE = 4 * timing.DATA_WINDOW
"""A window is local. At 300,000 datagrams a second a path difference of 55 ms is 16,500 of them."""

SEEN = bytes((1,)) * 64
FRESH, DUPLICATE, TOO_OLD, OUT_OF_RANGE = 0, 1, 2, 3


class Window:
    """Accepts each counter once, if it is not more than ``size`` (a power of 2) behind."""

    __slots__ = ("distinct", "greatest", "mask", "ring", "size")

    def __init__(self, size: int = DEFAULT_SIZE) -> None:
        assert size & (size - 1) == 0
        self.size = size
        self.mask = size - 1
        self.greatest = 0
        self.distinct = 0
        self.ring = bytearray()

    def check(self, counter: int) -> int:
        """FRESH if the counter may be accepted, else why not. Changes nothing."""
        if counter > self.greatest:
            return FRESH if counter <= timing.COUNTER_LIMIT else OUT_OF_RANGE
        if counter < FIRST_COUNTER:
            return OUT_OF_RANGE
        if counter + self.size <= self.greatest:
            return TOO_OLD
        return DUPLICATE if self.ring[counter & self.mask] else FRESH

    def accept(self, counter: int) -> bool:
        """Mark a counter that was FRESH and whose tag was right; True if it is the greatest."""
        self.distinct += 1
        ring = self.ring
        if not ring:
            ring = self.ring = bytearray(self.size)
        step = counter - self.greatest
        if step > 1:
            self._forget(step - 1)
        ring[counter & self.mask] = 1
        if step > 0:
            self.greatest = counter
        return step > 0

    def accept_many(self, counter: int, count: int) -> None:
        """Mark ``count`` counters from ``counter`` on, which is the greatest plus 1."""
        self.distinct += count
        self.greatest = counter + count - 1
        if not self.ring:
            self.ring = bytearray(self.size)
        begin = counter & self.mask
        first = min(count, self.size - begin)
        self.ring[begin : begin + first] = SEEN[:first]
        if first < count:
            self.ring[: count - first] = SEEN[: count - first]

    def _forget(self, count: int) -> None:
        """Clear the places of ``count`` counters after the greatest: they have not arrived."""
        if count >= self.size:
            self.ring[:] = bytes(self.size)
            return
        begin = (self.greatest + 1) & self.mask
        first = min(count, self.size - begin)
        self.ring[begin : begin + first] = bytes(first)
        self.ring[: count - first] = bytes(count - first)

    @property
    def lost(self) -> int:
        """Counters up to the greatest that never arrived."""
        return self.greatest - self.distinct

    def bitmap(self) -> int:
        """Bit i is set if the counter ``greatest - 1 - i`` arrived, for i below 64."""
        bits = 0
        for i in range(min(64, self.greatest - 1, self.size - 1)):
            if self.ring[(self.greatest - 1 - i) & self.mask]:
                bits |= 1 << i
        return bits
