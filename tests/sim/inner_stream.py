"""A stream through the tunnel: a TCP of words, with the waiting times of Linux and RFC 6069."""

from __future__ import annotations

import struct

from tests.sim.clock import Timer
from tests.sim.node import SimNode

SEGMENT = struct.Struct(">HHIIBBHHH")
PORT, ACK = 2222, 0x10
FIRST_WAIT = 0.24  # 200 ms over a round trip of 40 ms


class InnerStream:
    """One end. Words that arrived are in ``words`` with their instants."""

    def __init__(self, node: SimNode, to: bytes, port: int = PORT) -> None:
        self.words: list[tuple[float, bytes]] = []
        self.repeated: list[float] = []
        self._node, self._to, self._port = node, to, port
        self._unacked = b""
        self._sent = self._next = 1
        self._tries = 0
        self._last = 0.0
        self._timer: Timer | None = None
        node.inner.streams[port] = self

    @property
    def _clock(self):  # type: ignore[no-untyped-def]
        return self._node.host.world.clock

    def write(self, word: bytes) -> None:
        """Send a word; one at a time."""
        assert not self._unacked, "the last word is still on its way"
        self._unacked, self._tries = word, 0
        self._push()

    def _push(self) -> None:
        self._last = self._clock.now
        self._out(self._sent, self._unacked)
        self._arm(FIRST_WAIT * 2**self._tries)

    def _arm(self, wait: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.after(wait, self._again)

    def _again(self) -> None:
        self.repeated.append(self._clock.now)
        self._tries += 1
        self._push()

    def _out(self, sequence: int, data: bytes) -> None:
        head = SEGMENT.pack(self._port, self._port, sequence, self._next, 5 << 4, ACK, 500, 0, 0)
        self._node.inner.tcp(self._to, head + data)

    def arrived(self, segment: bytes) -> None:
        """A segment came; it is answered if it holds data."""
        _, _, sequence, acked, *_ = SEGMENT.unpack_from(segment)
        data = segment[SEGMENT.size :]
        if self._unacked and acked == self._sent + len(self._unacked):
            self._sent, self._unacked = acked, b""
            if self._timer is not None:
                self._timer.cancel()
        if data and sequence == self._next:
            self._next += len(data)
            self.words.append((self._clock.now, data))
        if data:
            self._out(self._sent, b"")

    def no_route(self, quoted: bytes) -> None:
        """RFC 6069: a repetition met no way, so the last doubling is taken back."""
        sequence = SEGMENT.unpack_from(quoted, 40)[2]
        if not self._unacked or sequence != self._sent or not self._tries:
            return
        self._tries -= 1
        left = FIRST_WAIT * 2**self._tries - (self._clock.now - self._last)
        if left > 0:
            self._arm(left)
        else:
            self._again()
