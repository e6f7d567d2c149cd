"""Stateless resets: how a restart is noticed within a round trip (rule S4).

Kind 10: header with the index as received, token 16, random bytes; always shorter than its
trigger. Sent only to data and control frames with an index nobody owns, within limits, and never
to a relay that we know; and, without a trigger, by a relay that restarted (:meth:`Resets.tell`).
A matching token begins a handshake and ends nothing by itself.
"""

from __future__ import annotations

from ntmd.proto import timing
from ntmd.proto.association import Association
from ntmd.proto.context import Context
from ntmd.proto.errors import ProtocolError
from ntmd.proto.frame import HEADER_SIZE, Kind, pack_header
from ntmd.proto.types import Endpoint, Path

TOKEN = 16
SMALLEST = HEADER_SIZE + TOKEN
JITTER = 16  # random bytes at the end: 0 to 15
PAUSE = 1.0  # between two handshakes begun for resets of one peer, seconds


class Resets:
    """Sends and recognises resets."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._second = -1
        self._sent = 0
        self._by_source: dict[str, int] = {}

    def answer(self, socket: int, source: Endpoint, index: int, length: int, now: float) -> None:
        """A frame of ``length`` bytes came with an unknown index."""
        context = self._context
        context.counters["unknown_index"] += 1
        room = length - 1 - SMALLEST
        if room < 0 or index == 0 or source in context.relays or not self._allowed(source, now):
            return
        self.tell(index, Path(socket, source), room)

    def tell(self, index: int, path: Path, room: int = JITTER) -> None:
        """Send a reset for an own index, perhaps of an earlier life, with up to ``room`` bytes more
        than it needs."""
        context = self._context
        extra = min(room, context.random(1)[0] % JITTER)
        counter = int.from_bytes(context.random(8), "big")
        header = pack_header(Kind.RESET, 0, 0, 0, index, counter)
        data = header + context.reset_token(index) + context.random(extra)
        context.counters["reset_sent"] += 1
        context.send(data, path)

    def _allowed(self, source: Endpoint, now: float) -> bool:
        second = int(now)
        if second != self._second:
            self._second, self._sent = second, 0
            self._by_source.clear()
        of_source = self._by_source.get(source.host, 0)
        if self._sent >= timing.RESETS_TOTAL or of_source >= timing.RESETS_PER_SOURCE:
            self._context.counters["reset_limit"] += 1
            return False
        self._sent += 1
        self._by_source[source.host] = of_source + 1
        return True

    def received(self, data: bytes, now: float) -> Association | None:
        """The association whose peer lost its state, if a handshake should begin now."""
        if len(data) < SMALLEST:
            raise ProtocolError("truncated")
        found = self._context.tokens.get(data[HEADER_SIZE:SMALLEST])
        if found is None or found[1] != int.from_bytes(data[4:8], "big"):
            raise ProtocolError("bad_reset")
        association = self._context.associations.get(found[0])
        if association is None:
            return None
        current = association.current
        if current is not None and current.peer_reset != data[HEADER_SIZE:SMALLEST]:
            raise ProtocolError("old_reset")  # says nothing about the session in use
        if now - association.last_reset < PAUSE:
            return None
        association.last_reset = now
        return association
