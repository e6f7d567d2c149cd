"""Cutting and joining of messages larger than a datagram, inside the seal (rule S5).

Fragment header, 8 bytes: 0x01, flags (bit 0: more follow), offset in 8-byte units u16, id u32.
Fragments but the last have equal sizes of at least 512 bytes; overlap, a gap at the end or a
second total drop the whole message. Memory is bounded per tunnel; only a peer can send fragments.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.frame import FRAGMENT

HEADER = struct.Struct(">BBHI")
UNIT = 8


def cut(body: bytes, number: int, room: int) -> list[bytes]:
    """``body`` in fragments of at most ``room`` bytes each, header included."""
    step = (room - HEADER.size) // UNIT * UNIT
    pieces = []
    for offset in range(0, len(body), step):
        more = offset + step < len(body)
        head = HEADER.pack(FRAGMENT, more, offset // UNIT, number)
        pieces.append(head + body[offset : offset + step])
    return pieces


@dataclass(slots=True)
class _Open:
    started: float
    step: int = 0
    total: int | None = None
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class Reassembly:
    """The messages of one tunnel or association that are still in pieces."""

    __slots__ = ("_limit", "_open")

    def __init__(self, limit: int = timing.FRAGMENT_BYTES) -> None:
        self._open: dict[int, _Open] = {}
        self._limit = limit

    def add(self, fragment: bytes, now: float) -> bytes | None:
        """The whole message once its last piece is there; raises ProtocolError("fragment")."""
        if len(fragment) <= HEADER.size:
            raise ProtocolError("fragment", "empty")
        _, flags, units, number = HEADER.unpack_from(fragment)
        piece, offset = fragment[HEADER.size :], units * UNIT
        self._expire(now)
        entry = self._open.get(number)
        if entry is None:
            if len(self._open) >= timing.FRAGMENTS_OPEN:
                del self._open[next(iter(self._open))]  # it lost a piece, most likely
            entry = self._open[number] = _Open(now)
        try:
            return self._place(number, entry, piece, offset, more=bool(flags & 1))
        except ProtocolError:
            self._open.pop(number, None)
            raise

    def _place(
        self, number: int, entry: _Open, piece: bytes, offset: int, *, more: bool
    ) -> bytes | None:
        if entry.pieces.get(offset) == piece:
            return None
        if offset in entry.pieces or len(entry.pieces) >= timing.FRAGMENTS_PER_MESSAGE:
            raise ProtocolError("fragment", "overlap")
        if more:
            if len(piece) < timing.FRAGMENT_MIN or len(piece) % UNIT:
                raise ProtocolError("fragment", "size")
            if entry.step not in (0, len(piece)):
                raise ProtocolError("fragment", "unequal")
            entry.step = len(piece)
        elif entry.total is not None:
            raise ProtocolError("fragment", "second end")
        else:
            entry.total = offset + len(piece)
        entry.pieces[offset] = piece
        entry.size += len(piece)
        if sum(each.size for each in self._open.values()) > self._limit:
            raise ProtocolError("fragment", "memory")
        return self._finish(number, entry)

    def _finish(self, number: int, entry: _Open) -> bytes | None:
        if entry.total is None or entry.size < entry.total:
            return None
        at, whole = 0, []
        for offset in sorted(entry.pieces):
            if offset != at:
                raise ProtocolError("fragment", "gap")
            whole.append(entry.pieces[offset])
            at += len(entry.pieces[offset])
        if at != entry.total:
            raise ProtocolError("fragment", "gap")
        del self._open[number]
        return b"".join(whole)

    def _expire(self, now: float) -> None:
        old = [n for n, e in self._open.items() if now - e.started > timing.FRAGMENT_LIFETIME]
        for number in old:
            del self._open[number]
