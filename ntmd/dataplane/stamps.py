"""Fields that differ from one datagram of a run to the next, written for all of them at once.

A store into every n-th byte of a buffer costs the interpreter as much as two small ones; so headers
and nonces are laid out once, and from run to run only the bytes that changed are written.
"""

from __future__ import annotations

import struct
from collections import deque

from ntmd.dataplane.slicing import VIEWS

NONCE = struct.Struct(">IQ")
HEADER = struct.Struct(">IIQ")
drain = deque[object](maxlen=0).extend  # runs an iterator to its end
LOW = bytes(range(256)) * 2


def spread_counter(into: bytearray, at: int, stride: int, counter: int, count: int) -> None:
    """The two low bytes of ``count`` counters from ``counter`` on; the first ends at ``at``.

    The bytes above must be the same in all of them.
    """
    end = at + (count - 1) * stride + 1
    low = counter & 0xFF
    into[at:end:stride] = LOW[low : low + count]
    middle, first = counter >> 8 & 0xFF, 256 - low
    same = LOW[middle : middle + 1] * min(count, first)
    if count > first:
        same += LOW[middle + 1 : middle + 2] * (count - first)
    into[at - 1 : end - 1 : stride] = same


def pack_sequences(first: int, step: int, count: int) -> bytes:
    """``count`` TCP sequence numbers, big-endian, each ``step`` after the one before."""
    last = first + step * count
    if last <= 0xFFFF_FFFF:
        return struct.pack(f">{count}I", *range(first, last, step))
    return struct.pack(f">{count}I", *(n & 0xFFFF_FFFF for n in range(first, last, step)))


class Nonces:
    """Nonces of consecutive counters under one word (kind to flags)."""

    def __init__(self) -> None:
        self._bytes = bytearray(NONCE.size * VIEWS)
        view = memoryview(self._bytes)
        self._views = [view[i : i + NONCE.size] for i in range(0, len(view), NONCE.size)]
        self._laid = (-1, -1)

    def take(self, word: int, counter: int, count: int) -> list[memoryview]:
        """``count`` (at most ``VIEWS``) nonces from ``counter`` on, good until the next call."""
        high = counter >> 16
        if high != counter + count - 1 >> 16:
            for i in range(count):
                NONCE.pack_into(self._bytes, i * NONCE.size, word, counter + i)
            self._laid = (-1, -1)
        else:
            if self._laid != (word, high):
                self._bytes[:] = NONCE.pack(word, counter) * VIEWS
                self._laid = (word, high)
            spread_counter(self._bytes, NONCE.size - 1, NONCE.size, counter, count)
        return self._views[:count]


class Headers:
    """Datagram headers at equal distances in a buffer that others write to as well."""

    def __init__(self, arena: bytearray) -> None:
        self._arena = arena
        self._laid = (-1, -1, -1, -1)

    def disturbed(self) -> None:
        """Somebody else wrote where headers may be."""
        self._laid = (-1, -1, -1, -1)

    def write(
        self, shape: tuple[int, int, int], slot: int, counter: int, count: int, slots: int
    ) -> None:
        """Headers of ``count`` datagrams from place ``slot`` on, of ``slots`` in all.

        ``shape``: word, index, distance.
        """
        word, index, width = shape
        high = counter >> 16
        at = slot * width
        laid = self._laid == (*shape, high)
        if high != counter + count - 1 >> 16 or (slot and not laid):
            for i in range(count):
                HEADER.pack_into(self._arena, at + i * width, word, index, counter + i)
            self.disturbed()
            return
        if not laid:
            header = HEADER.pack(word, index, counter)
            for i, byte in enumerate(header[:14]):
                self._arena[i : (slots - 1) * width + i + 1 : width] = bytes((byte,)) * slots
            self._laid = (*shape, high)
        spread_counter(self._arena, at + 15, width, counter, count)
