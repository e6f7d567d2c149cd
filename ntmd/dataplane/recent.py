"""Sealed datagrams of the last moment, kept so that they can be sent once more (rule S14).

After an outage what the peer reports missing leaves again, bit for bit: its window drops what had
arrived, so that nothing is delivered twice. Of each run only the end is kept, and of each inner
flow only the newest runs: enough for a stream to notice its loss and to go on by itself, and a bulk
flow never pushes out the last keystroke of another. Keeping costs one short copy per run.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ntmd.dataplane.table import Sender
from ntmd.proto import timing
from ntmd.proto.plane import Resend

BITMAP = 64


class Piece(NamedTuple):
    """Datagrams of ``size`` bytes side by side (the last may be shorter), counters in order."""

    session: int
    first: int
    size: int
    expires: float  # of the key
    data: bytes


class Recent:
    """Runs by tunnel and inner flow; the flow that sent longest ago leaves when there are many."""

    def __init__(self) -> None:
        self._flows: dict[tuple[int, bytes], deque[Piece]] = {}
        self._bytes = 0

    def keep(self, flow: tuple[int, bytes], sender: Sender, run: memoryview, size: int) -> None:
        """Keep the end of a run of datagrams of ``size`` bytes, the last one just sealed.

        ``flow``: number of the tunnel and ports.
        """
        whole = -(-len(run) // size)
        count = min(whole, timing.RESEND_TAIL)
        data = bytes(run[(whole - count) * size :])
        piece = Piece(sender.number, sender.counter - count + 1, size, sender.expires, data)
        pieces = self._flows.pop(flow, None)
        if pieces is None:
            pieces = deque()
        elif len(pieces) >= timing.RESEND_RUNS:
            self._bytes -= len(pieces.popleft().data)
        pieces.append(piece)
        self._flows[flow] = pieces
        self._bytes += len(piece.data)
        while self._bytes > timing.RESEND_BYTES or len(self._flows) > timing.RESEND_FLOWS:
            self._drop(next(iter(self._flows)))

    def take(self, wish: Resend, now: float) -> list[bytes]:
        """The datagrams that the peer's report shows missing, in order; each leaves only once."""
        found: list[tuple[int, bytes]] = []
        for flow in [each for each in self._flows if each[0] == wish.tunnel]:
            pieces = self._flows[flow]
            for piece in [each for each in pieces if each.session == wish.session]:
                pieces.remove(piece)
                self._bytes -= len(piece.data)
                if piece.expires > now:
                    found.extend(_missing(piece, wish))
            if not pieces:
                del self._flows[flow]
        return [datagram for _, datagram in sorted(found)]

    def newest(self, tunnel: int, session: int) -> list[bytes]:
        """The first datagram, a full one if any is, of each flow's newest run."""
        newest = [pieces[-1] for flow, pieces in self._flows.items() if flow[0] == tunnel]
        return [piece.data[: piece.size] for piece in newest if piece.session == session]

    def forget(self, tunnel: int) -> None:
        """A tunnel is gone."""
        for flow in [each for each in self._flows if each[0] == tunnel]:
            self._drop(flow)

    def expire(self, now: float) -> None:
        """Drop what was sealed under keys that are past their life."""
        for flow in [f for f, pieces in self._flows.items() if pieces[-1].expires <= now]:
            self._drop(flow)

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._bytes

    def _drop(self, flow: tuple[int, bytes]) -> None:
        self._bytes -= sum(len(piece.data) for piece in self._flows.pop(flow))


def _missing(piece: Piece, wish: Resend) -> list[tuple[int, bytes]]:
    found = []
    for at in range(0, len(piece.data), piece.size):
        counter = piece.first + at // piece.size
        behind = wish.greatest - counter
        if behind < 0 or (0 < behind <= BITMAP and not wish.bitmap >> (behind - 1) & 1):
            found.append((counter, piece.data[at : at + piece.size]))
    return found
