"""Replay window: each counter of a key is accepted once, however datagrams are reordered.

The ring of 64-bit blocks of RFC 6479, so that accepting is O(1) for datagrams in order and an
advance costs at most one pass over the ring. The size is local and never on the wire (rule S2).
"""

from __future__ import annotations

BLOCK_BITS = 6
BLOCK = 1 << BLOCK_BITS


class ReplayWindow:
    """Window of the last ``size`` counters (a multiple of 64) below and with the greatest seen.

    ``greatest`` is -1 before the first; ``duplicates`` and ``too_old`` count what was refused.
    """

    __slots__ = ("_accepted", "_blocks", "duplicates", "greatest", "size", "too_old")

    def __init__(self, size: int) -> None:
        if size < BLOCK or size % BLOCK:
            raise ValueError("size must be a multiple of 64")
        self.size = size
        self.greatest = -1
        self.duplicates = 0
        self.too_old = 0
        self._accepted = 0
        # One block more than the window, so that the block being filled never hides an old one.
        self._blocks = [0] * (size // BLOCK + 1)

    def check(self, counter: int) -> bool:
        """Whether :meth:`accept` would take ``counter``; changes and counts nothing."""
        if counter > self.greatest:
            return True
        if counter < 0 or counter + self.size <= self.greatest:
            return False
        block = self._blocks[(counter >> BLOCK_BITS) % len(self._blocks)]
        return not block >> (counter & (BLOCK - 1)) & 1

    def accept(self, counter: int) -> bool:
        """Take ``counter`` if it is new. Call it only for what has passed its tag."""
        if counter > self.greatest:
            self._advance(counter)
        elif counter < 0 or counter + self.size <= self.greatest:
            self.too_old += 1
            return False
        place = (counter >> BLOCK_BITS) % len(self._blocks)
        bit = 1 << (counter & (BLOCK - 1))
        if self._blocks[place] & bit:
            self.duplicates += 1
            return False
        self._blocks[place] |= bit
        self._accepted += 1
        return True

    def _advance(self, counter: int) -> None:
        blocks = self._blocks
        current = self.greatest >> BLOCK_BITS  # -1 before the first
        steps = min((counter >> BLOCK_BITS) - current, len(blocks))
        for step in range(1, steps + 1):
            blocks[(current + step) % len(blocks)] = 0
        self.greatest = counter

    @property
    def lost(self) -> int:
        """Counters below the greatest that have not arrived (so far; they may be late)."""
        return self.greatest + 1 - self._accepted

    def bitmap64(self) -> int:
        """Which of the 64 counters before the greatest arrived: bit n is ``greatest - 1 - n``.

        Counters that never existed or left the window count as not arrived.
        """
        low = self.greatest - BLOCK
        bits = 0
        for counter in range(max(low, 0, self.greatest - self.size + 1), self.greatest):
            block = self._blocks[(counter >> BLOCK_BITS) % len(self._blocks)]
            if block >> (counter & (BLOCK - 1)) & 1:
                bits |= 1 << (self.greatest - 1 - counter)
        return bits
