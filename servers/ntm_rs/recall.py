"""After a restart: the relay tells its nodes that it has lost their sessions.

An idle node would learn it by its next keep-alive only, up to five minutes later, and until then
its peers do not reach it here. So the relay keeps a *place* for each session, which its shell
writes down: own index and the source in use. After a start each gets a reset (rule S4) under that
index, from the socket towards which the node's NAT has a mapping. The token is derived from the
static key, so nothing secret is kept; and a reset ends nothing, so places that are out of date do
no harm.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ntmd.proto.io import Store, Tell
from ntmd.proto.session import SessionEngine
from ntmd.proto.stream import STREAM_SOCKET
from ntmd.proto.timing import RS_RECALL_RATE
from ntmd.proto.types import Endpoint, Path

PLACES_KEY = "rs/places"
PLACES_MAX = 65_536  # 2.6 MB; the one heard longest ago leaves
HORIZON = 3600.0  # nodes silent for longer than this come back by themselves
SETTLE = 0.1  # from a change to its writing; several changes are written at once, seconds
INTERVAL = 0.5  # between two writings at least, seconds ...
WRITTEN_PER_SECOND = 2_000  # ... and so many places a second at most: 80 kB/s
FRESH = 60.0  # that nodes were heard again, and nothing else, is written this often, seconds
COPIES = 3  # of a reset, to a node that does not come back
AGAIN = 2.0  # seconds between two copies
TICK = 0.01
MAGIC = b"ntm-rs places 1\n"
ROW = struct.Struct(">8sIB16sHQ")
V4 = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Ending:
    """Input: the process is about to end in order; what is to be kept is written now."""


class Place(NamedTuple):
    """Where a node's session was: first 8 bytes of the node's key hash, own index, own socket, the
    node's source there, and when it was heard, platform time."""

    node: bytes
    own_index: int
    socket: int
    remote: Endpoint
    heard_ms: int


def pack(place: Place) -> bytes:
    """One place, :data:`ROW` bytes; IPv4 as its mapped IPv6 address."""
    address, port = place.remote.pack()[:-2], place.remote.port
    address = V4 + address if len(address) == 4 else address
    return ROW.pack(place.node, place.own_index, place.socket, address, port, place.heard_ms)


def unpack_all(data: bytes) -> list[Place]:
    """Every place of a value that was stored; ValueError if it is not one of ours."""
    head = len(MAGIC)
    if data[:head] != MAGIC or (len(data) - head) % ROW.size:
        raise ValueError("not a list of places of this version")
    places = []
    for node, index, socket, address, port, heard in ROW.iter_unpack(data[head:]):
        if not index or not port:
            raise ValueError("a place without index or port")
        address = address[12:] if address.startswith(V4) else address
        remote = Endpoint(str(ipaddress.ip_address(address)), port)
        places.append(Place(node, index, socket, remote, heard))
    return places[-PLACES_MAX:]


class Recall:
    """The places of all sessions, and the queue of nodes still to be told. ``sockets`` are the
    relay's own; places on other ones are passed over."""

    def __init__(
        self,
        engine: SessionEngine,
        sockets: Mapping[int, Endpoint],
        platform_ms: Callable[[float], int],
        emit: Callable[[Store | Tell], None],
    ) -> None:
        self.sent = 0
        self._engine, self._sockets = engine, sockets
        self._platform_ms, self._emit = platform_ms, emit
        self._places: dict[bytes, tuple[Place, bytes]] = {}  # the one heard last comes last
        self._queue: deque[tuple[float, int, Place]] = deque()  # due, copies left; in order of due
        self._credit, self._ticked = 1.0, 0.0
        self._written = -1e9
        self._write_at: float | None = None

    def start(self, stored: Mapping[str, bytes], now: float) -> None:
        """Take what was written down, and queue every node that was there lately."""
        try:
            found = unpack_all(stored[PLACES_KEY]) if PLACES_KEY in stored else []
        except ValueError as error:
            self._emit(Tell("warning", "places of nodes cannot be used", {"why": str(error)}))
            return
        since = self._platform_ms(now) - HORIZON * 1000
        for place in sorted(found, key=lambda each: each.heard_ms):
            here = self._sockets.get(place.socket)
            if place.heard_ms > since and here and here.family == place.remote.family:
                self._places[place.node] = (place, pack(place))
        self._ticked = now
        for place, _ in reversed(self._places.values()):
            self._queue.append((now, COPIES, place))
        if self._queue:
            fields = {"nodes": len(self._queue)}
            self._emit(Tell("info", "telling nodes that their sessions are lost", fields))

    # -------------------------------------------------------------- what is written down

    def keep(self, key_hash: bytes, index: int, path: Path, now: float) -> None:
        """A node's session with this own index was heard from a validated source."""
        if path.socket == STREAM_SOCKET:  # the connection ends with this process: the node sees it
            self.drop(key_hash, now)
            return
        place = Place(key_hash[:8], index, path.socket, path.remote, self._platform_ms(now))
        old = self._places.get(place.node)
        same = old is not None and old[0][:4] == place[:4]
        if same and old is not None and place.heard_ms - old[0].heard_ms < FRESH * 1000:
            return
        self._places.pop(place.node, None)
        self._places[place.node] = (place, pack(place))
        if len(self._places) > PLACES_MAX:
            del self._places[next(iter(self._places))]
        self._changed(now, FRESH if same else INTERVAL)

    def drop(self, key_hash: bytes, now: float) -> None:
        """The node has no session here any more."""
        if self._places.pop(key_hash[:8], None) is not None:
            self._changed(now, INTERVAL)

    def _changed(self, now: float, pause: float) -> None:
        pause = max(pause, len(self._places) / WRITTEN_PER_SECOND)
        due = max(now + SETTLE, self._written + pause)
        self._write_at = due if self._write_at is None else min(due, self._write_at)

    def write(self, now: float) -> None:
        """Hand out what is to be kept over a restart: now, if anything changed."""
        if self._write_at is None:
            return
        self._written, self._write_at = now, None
        since = self._platform_ms(now) - HORIZON * 1000
        while self._places:
            node = next(iter(self._places))
            if self._places[node][0].heard_ms > since:
                break
            del self._places[node]
        rows = (packed for _, packed in self._places.values())
        self._emit(Store(PLACES_KEY, MAGIC + b"".join(rows)))

    # -------------------------------------------------------------- the nodes to be told

    def waiting(self) -> int:
        """Resets that may still have to be sent."""
        return len(self._queue)

    def tick(self, now: float) -> None:
        """Write what changed, and send the resets that are due, within the rate."""
        if self._write_at is not None and now >= self._write_at:
            self.write(now)
        if not self._queue:
            return
        earned = (now - self._ticked) * RS_RECALL_RATE
        self._credit = min(max(RS_RECALL_RATE * TICK * 2, 1.0), self._credit + earned)
        self._ticked = now
        while self._queue and self._queue[0][0] <= now and self._credit >= 1.0:
            _, copies, place = self._queue.popleft()
            known = self._places.get(place.node)
            if known is None or known[0] is not place:  # it is back, or has left for good
                continue
            self._credit -= 1.0
            self.sent += 1
            self._engine.tell_lost(place.own_index, Path(place.socket, place.remote))
            if copies > 1:
                self._queue.append((now + AGAIN, copies - 1, place))

    def deadline(self) -> float | None:
        """When something is to be sent or written."""
        if not self._queue:
            return self._write_at
        send = max(self._queue[0][0], self._ticked + TICK)
        return send if self._write_at is None else min(send, self._write_at)
