"""Datagrams inside a TLS connection, for networks that let no UDP pass (rule S12).

On the wire: u16 length, then the datagram as it would have left over UDP. TLS hides nothing more
and proves nothing: who is at the other end is the session's matter, inside. ALPN names whom a
connection is for, so that relay, coordinator and account server can share one port.
"""

from __future__ import annotations

from collections import Counter, deque

from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.frame import HEADER_SIZE, Kind
from ntmd.proto.types import Role

ALPN = {Role.RS: "ntm-rs/1", Role.DC: "ntm-dc/1"}
"""ALPN protocol name by the role of the server that is meant."""

ALPN_ACCOUNT = "http/1.1"

STREAM_SOCKET = 1000
"""Number of a server's own "socket" that stands for all of its TLS connections."""

LENGTH = 2


class Deframer:
    """Bytes of a connection in, datagrams out; holds at most one incomplete datagram."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The datagrams that are complete now; ProtocolError ends the connection."""
        data = self._rest + data
        found, at, end = [], 0, len(data)
        while end - at >= LENGTH:
            size = data[at] << 8 | data[at + 1]
            if not HEADER_SIZE <= size <= timing.STREAM_FRAME_MAX:
                raise ProtocolError("stream_frame_size", str(size))
            if end - at < LENGTH + size:
                break
            found.append(data[at + LENGTH : at + LENGTH + size])
            at += LENGTH + size
        self._rest = data[at:]
        return found


class SendQueue:
    """What waits for room in a connection: at most ``limit`` bytes, control before data.

    When it is full the oldest data leaves; control is refused only when nothing but control waits.
    """

    def __init__(self, limit: int = timing.STREAM_QUEUE) -> None:
        self.bytes = 0
        self.drops: Counter[str] = Counter()
        self._limit = limit
        self._control: deque[bytes] = deque()
        self._data: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._control) + len(self._data)

    def put(self, run: bytes | memoryview, segment: int) -> None:
        """Queue the datagrams of ``segment`` bytes that lie side by side in ``run``."""
        for start in range(0, len(run), segment):
            datagram = bytes(run[start : start + segment])
            size = len(datagram) + LENGTH
            if size - LENGTH > timing.STREAM_FRAME_MAX:
                self.drops["stream_too_big"] += 1
                continue
            while self._data and self.bytes + size > self._limit:
                self.bytes -= len(self._data.popleft())
                self.drops["stream_data_dropped"] += 1
            if self.bytes + size > self._limit:
                self.drops["stream_control_refused"] += 1
                continue
            queue = self._data if datagram[0] == Kind.DATA else self._control
            queue.append(len(datagram).to_bytes(LENGTH, "big") + datagram)
            self.bytes += size

    def take(self, room: int) -> bytes:
        """The next frames, of ``room`` bytes in all or a little more; empty if nothing waits."""
        taken, size = [], 0
        while size < room and (queue := self._control or self._data):
            frame = queue.popleft()
            taken.append(frame)
            size += len(frame)
        self.bytes -= size
        return b"".join(taken)
