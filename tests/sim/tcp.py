"""Byte streams of the world: a small TCP over the same links, NATs and firewalls as UDP.

Ordered and reliable by sequence numbers, acknowledgements, retransmission and an advertised window;
no congestion control. A connection whose bytes stay unacknowledged for 10 s is broken.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from ntmd.proto.types import Endpoint
from tests.sim.clock import Timer
from tests.sim.link import Packet

if TYPE_CHECKING:
    from tests.sim.machine import Host, Interface

SYN, ACK, FIN, RST = 1, 2, 4, 8
HEADER = struct.Struct(">BIII")  # flags, sequence, acknowledged, window
SEGMENT = 1200
BUFFER = 65_536  # of each side, each way
RETRANSMIT = 0.2  # seconds, doubling
BROKEN_AFTER = 10.0
EPHEMERAL = 50_000

Bytes = Callable[[bytes], None]


class Connection:
    """One end. Bytes that came in go to ``received``, unless ``paused``."""

    def __init__(self, stack: Tcp, local: Endpoint, remote: Endpoint, entry: Interface) -> None:
        self.local, self.remote = local, remote
        self.opened: Callable[[], None] = lambda: None
        self.received: Bytes = lambda data: None
        self.room: Callable[[], None] = lambda: None
        self.closed: Callable[[str], None] = lambda why: None
        self.is_open = self.is_over = self.paused = False
        self._stack, self._entry = stack, entry
        self._out = b""  # not acknowledged yet
        self._sent = 0  # of it, in flight
        self._acked = self._next = 0
        self._window = BUFFER
        self._in = b""
        self._early: dict[int, bytes] = {}
        self._timer: Timer | None = None
        self._wait, self._since = RETRANSMIT, 0.0

    # -------------------------------------------------------------- the program's side

    def write(self, data: bytes) -> int:
        """Take bytes to send, as many as fit; returns how many."""
        taken = 0 if self.is_over else min(len(data), BUFFER - len(self._out))
        self._out += data[:taken]
        self._push()
        return taken

    def resume(self) -> None:
        """Read again."""
        self.paused = False
        self._hand_over()
        self._send(ACK, self._acked + self._sent, b"")

    def close(self) -> None:
        """Say goodbye and forget everything."""
        if not self.is_over:
            self._send(FIN | ACK, self._acked, b"")
            self.end("")

    def end(self, why: str) -> None:
        """It is over; ``why`` is empty if the program itself ended it."""
        if self.is_over:
            return
        self.is_over, self.is_open = True, False
        if self._timer is not None:
            self._timer.cancel()
        self._stack.forget(self)
        if why:
            self.closed(why)

    # -------------------------------------------------------------- segments

    def _send(self, flags: int, sequence: int, data: bytes) -> None:
        window = BUFFER - len(self._in)
        self._stack.transmit(self, HEADER.pack(flags, sequence, self._next, window) + data)

    def connect(self) -> None:
        """The first segment of a client."""
        self._since = self._stack.now
        self._again()

    def _again(self) -> None:
        """Send what is not acknowledged (again), ever more slowly."""
        if self.is_over:
            return
        if self._stack.now - self._since > BROKEN_AFTER:
            self.end("timed out")
            return
        if not self.is_open:
            self._send(SYN, 0, b"")
        else:
            since, self._sent = self._since, 0
            self._push()
            self._since = since  # of the first time
            if not self._sent:
                self._send(ACK, self._acked, b"")  # the window is closed: ask how it is now
        self._arm(self._wait)
        self._wait = min(self._wait * 2, 2.0)

    def _arm(self, wait: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._stack.host.world.clock.after(wait, self._again)

    def _push(self) -> None:
        if not self.is_open:
            return
        limit = min(len(self._out), self._window)
        if self._sent < limit and not self._sent:
            self._since = self._stack.now
            self._arm(self._wait)
        while self._sent < limit:
            piece = self._out[self._sent : min(self._sent + SEGMENT, limit)]
            self._send(ACK, self._acked + self._sent, piece)
            self._sent += len(piece)

    def segment(self, flags: int, sequence: int, acked: int, window: int, data: bytes) -> None:
        """One arrived."""
        if flags & RST or flags & FIN:
            self.end("reset by the other end" if self.is_open else "refused")
            return
        if not self.is_open:
            self.is_open = True
            self._wait, self._since = RETRANSMIT, self._stack.now
            if self._timer is not None:
                self._timer.cancel()
            self.opened()
        if flags & SYN:
            self._send(ACK, self._acked, b"")
        self._acknowledged(acked, window)
        if data:
            self._take(sequence, data)

    def _acknowledged(self, acked: int, window: int) -> None:
        done = acked - self._acked
        if 0 < done <= len(self._out):
            self._out, self._acked = self._out[done:], acked
            self._sent = max(0, self._sent - done)
            self._wait, self._since = RETRANSMIT, self._stack.now
        opened, self._window = window > self._window, window
        if window == 0 or opened:
            self._since = self._stack.now  # it lives, it only does not read
        if not self._out and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._push()
        if done > 0 and len(self._out) < BUFFER:
            self.room()

    def _take(self, sequence: int, data: bytes) -> None:
        if sequence > self._next:
            self._early[sequence] = data
        elif sequence + len(data) > self._next:
            self._accept(data[self._next - sequence :])
            while self._next in self._early:
                self._accept(self._early.pop(self._next))
        if not self.is_over:
            self._hand_over()
            self._send(ACK, self._acked + self._sent, b"")

    def _accept(self, data: bytes) -> None:
        room = BUFFER - len(self._in)
        self._in += data[:room]
        self._next += len(data[:room])

    def _hand_over(self) -> None:
        if not self.paused and self._in:
            data, self._in = self._in, b""
            self.received(data)


class Tcp:
    """The TCP of one machine."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._connections: dict[tuple[Endpoint, Endpoint], Connection] = {}
        self._listeners: dict[Endpoint, Callable[[Connection], None]] = {}
        self._port = EPHEMERAL

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def now(self) -> float:
        """The world's clock."""
        return self.host.world.clock.now

    def listen(self, at: Endpoint, accept: Callable[[Connection], None]) -> None:
        """Hand every new connection to ``accept``."""
        self._listeners[at] = accept

    def silence(self, at: Endpoint) -> None:
        """Nobody listens there any more; connections end."""
        self._listeners.pop(at, None)
        for connection in [c for c in self._connections.values() if c.local == at]:
            connection.close()

    def connect(self, interface: str, address: str, remote: Endpoint) -> Connection | None:
        """A new connection from an interface, not open yet; None if there is no such address."""
        entry = self.host.interfaces.get(interface)
        if entry is None or address not in entry.addresses.values():
            return None
        self._port += 1
        connection = Connection(self, Endpoint(address, self._port), remote, entry)
        self._connections[connection.local, remote] = connection
        self.host.world.clock.after(0.0, connection.connect)
        return connection

    def transmit(self, connection: Connection, data: bytes) -> None:
        """A segment leaves, if the interface it belongs to is still there."""
        self._out(connection._entry, Packet(connection.local, connection.remote, data, tcp=True))

    def _out(self, entry: Interface, packet: Packet) -> None:
        if self.host.interfaces.get(entry.name) is entry:
            self.host.world.trace.add(self.now, self.host.name, "send", packet)
            entry.up.carry(packet, lambda out: entry.network.forward(out))

    def deliver(self, packet: Packet, entry: Interface) -> None:
        """A segment came in."""
        flags, sequence, acked, window = HEADER.unpack_from(packet.data)
        place = (packet.destination, packet.source)
        connection = self._connections.get(place)
        if connection is None and flags == SYN and packet.destination in self._listeners:
            connection = Connection(self, packet.destination, packet.source, entry)
            connection.is_open = True
            self._connections[place] = connection
            self._listeners[packet.destination](connection)
        if connection is not None:
            connection.segment(flags, sequence, acked, window, packet.data[HEADER.size :])
        elif not flags & RST:
            answer = HEADER.pack(RST, acked, sequence, 0)
            self._out(entry, Packet(packet.destination, packet.source, answer, tcp=True))

    def forget(self, connection: Connection) -> None:
        """It is over."""
        self._connections.pop((connection.local, connection.remote), None)
