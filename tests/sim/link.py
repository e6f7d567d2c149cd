"""One direction of a link: delay, jitter, loss, duplication, reordering, MTU, byte counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ntmd.proto.types import Endpoint
from tests.sim.clock import Clock

Deliver = Callable[["Packet"], None]


class Packet(NamedTuple):
    """A UDP datagram (or TCP segment) on the underlay: two endpoints and bytes, nothing else."""

    source: Endpoint
    destination: Endpoint
    data: bytes
    tcp: bool = False

    @property
    def size(self) -> int:
        """Size of the IP packet."""
        return len(self.data) + (48 if ":" in self.destination.host else 28)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a link treats packets. Times in seconds, chances 0..1, ``mtu`` in bytes of IP packet,
    ``rate`` in bytes a second (0: any) with a queue that holds ``queue`` seconds of it.

    Order is kept (as on a real link with jitter) but for the packets that ``reorder`` picks, which
    are held back by ``reorder_by`` more.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_by: float = 0.02
    mtu: int = 1500
    rate: float = 0.0
    queue: float = 0.3


class Link:
    """Carries packets one way. ``script`` may decide the fate of single packets before the dice:
    it returns how many copies to carry (0 drops), or None to leave it to the shape."""

    def __init__(self, clock: Clock, name: str, shape: Shape) -> None:
        self.name = name
        self.shape = shape
        self.up = True
        self.script: Callable[[Packet], int | None] | None = None
        self.packets = 0
        self.bytes = 0
        self.drops: Counter[str] = Counter()
        self._clock = clock
        self._dice = clock.stream(f"link {name}")
        self._last = 0.0
        self._busy = 0.0  # until when what was taken in is being sent

    def carry(self, packet: Packet, deliver: Deliver) -> None:
        """Take one packet in; ``deliver`` is called for each copy that comes out: later, or at once
        where the link has no delay and nothing is ahead."""
        shape, size = self.shape, packet.size
        copies = self._copies(packet, shape, size)
        self.packets += copies
        self.bytes += copies * size
        now = self._clock.now
        if shape.rate:
            now += self._wait(size, copies)
        if not (shape.delay or shape.jitter or shape.reorder or shape.rate) and self._last <= now:
            for _ in range(copies):
                deliver(packet)
            return
        for _ in range(copies):
            arrival = now + shape.delay
            if shape.jitter:
                arrival += self._dice.random() * shape.jitter
            if shape.reorder and self._dice.random() < shape.reorder:
                arrival += shape.reorder_by
            elif arrival > self._last:
                self._last = arrival
            else:
                arrival = self._last
            self._clock.at(arrival, partial(deliver, packet))

    def _wait(self, size: int, copies: int) -> float:
        """Seconds in the queue and on the wire."""
        if not copies:
            return 0.0
        self._busy = max(self._busy, self._clock.now) + copies * size / self.shape.rate
        return self._busy - self._clock.now

    def _copies(self, packet: Packet, shape: Shape, size: int) -> int:
        if not self.up:
            self.drops["down"] += 1
            return 0
        if size > shape.mtu:
            self.drops["too_big"] += 1
            return 0
        if shape.rate and self._busy - self._clock.now > shape.queue:
            self.drops["full"] += 1
            return 0
        if self.script is not None and (scripted := self.script(packet)) is not None:
            if scripted == 0:
                self.drops["script"] += 1
            return scripted
        if shape.loss and self._dice.random() < shape.loss:
            self.drops["loss"] += 1
            return 0
        return 2 if shape.duplicate and self._dice.random() < shape.duplicate else 1
