"""Sealed datagrams of the last moment, kept so that they can be sent once more (rule S14).

After an outage what the peer reports missing leaves again, bit for bit: its window drops what had
arrived, so that nothing is delivered twice. If it is lost again, because a NAT or a relay was not
ready for the new place, the next report shows that. Of each run only the end is kept, and of each
inner flow only the newest runs: enough for a stream to notice its loss and to go on by itself, and
a bulk flow never pushes out the last keystroke of another. Keeping costs one short copy per run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
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
    again: int = 0  # how often it was sent once more


class _Outage(NamedTuple):
    """Counters of a session: what had arrived by its end, and what was sent by the last wish."""

    session: int
    arrived: int
    sent: int


class Recent:
    """Runs by tunnel and inner flow; the flow that sent longest ago leaves when there are many."""

    def __init__(self) -> None:
        self._flows: dict[tuple[int, bytes], deque[Piece]] = {}
        self._outages: dict[int, _Outage] = {}  # by tunnel
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

    def take(self, wish: Resend, sent: int, now: float) -> list[bytes]:
        """The datagrams that the peer's report shows missing, in order.

        ``sent``: the session's last counter. For each outage a datagram leaves once, and once more
        for each later look; where nothing was wished for before, a later look is the first.
        """
        outage = self._outages.get(wish.tunnel) if wish.again else None
        if outage is not None and outage.session != wish.session:
            outage = None
        arrived = outage.arrived if outage is not None else wish.greatest
        self._outages[wish.tunnel] = _Outage(wish.session, arrived, sent)
        found: list[tuple[int, bytes]] = []
        for flow, pieces in self._flows.items():
            if flow[0] != wish.tunnel:
                continue
            for at, piece in enumerate(pieces):
                if piece.session != wish.session or piece.expires <= now:
                    continue
                if piece.again > (len(timing.RESEND_LOOKS) if outage is not None else 0):
                    continue
                missing = _lost_again(piece, wish, outage) if outage else _missing(piece, wish)
                if missing or outage is None:
                    found.extend(missing)
                    pieces[at] = piece._replace(again=piece.again + 1)
        return [datagram for _, datagram in sorted(found)]

    def newest(self, tunnel: int, session: int) -> list[bytes]:
        """The first datagram, a full one if any is, of each flow's newest run."""
        return [run[0] for run in self.newest_runs(tunnel, session)]

    def newest_runs(self, tunnel: int, session: int) -> list[list[bytes]]:
        """What is kept of each flow's newest run, datagram by datagram."""
        newest = [pieces[-1] for flow, pieces in self._flows.items() if flow[0] == tunnel]
        wanted = [piece for piece in newest if piece.session == session]
        return [[datagram for _, datagram in _datagrams(piece)] for piece in wanted]

    def forget(self, tunnel: int) -> None:
        """A tunnel is gone."""
        self._outages.pop(tunnel, None)
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


def _datagrams(piece: Piece) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(piece.data), piece.size):
        yield piece.first + at // piece.size, piece.data[at : at + piece.size]


def _shown(wish: Resend, counter: int) -> bool | None:
    """Whether the report shows that a datagram arrived; None if it is too old to be in it."""
    behind = wish.greatest - counter
    if behind <= 0:
        return behind == 0
    return None if behind > BITMAP else bool(wish.bitmap >> (behind - 1) & 1)


def _missing(piece: Piece, wish: Resend) -> list[tuple[int, bytes]]:
    return [each for each in _datagrams(piece) if _shown(wish, each[0]) is False]


def _lost_again(piece: Piece, wish: Resend, outage: _Outage) -> list[tuple[int, bytes]]:
    """Not what was sent since the wish before: that may be on its way."""
    since = [each for each in _datagrams(piece) if outage.arrived < each[0] <= outage.sent]
    return [each for each in since if not _shown(wish, each[0])]
