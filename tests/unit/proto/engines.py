"""Two or more session engines on a bus with delay, loss and virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from ntmd.proto.crypto import public_key
from ntmd.proto.events import Admission, Identity, OpenPolicy, Policy, Psk, Remote
from ntmd.proto.io import SendDatagram
from ntmd.proto.messages import PskRef
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Arrival, Endpoint, Path, Peer, Role
from tests.sim.clock import EPOCH_MS, Clock
from tests.sim.platform import Platform

EVERYBODY = OpenPolicy((Role.NODE, Role.DC, Role.RS))
DELAY = 0.01

Lose = Callable[["Station", "Station", bytes], bool]


class PskPolicy:
    """Rule C4 as a node applies it: psks that it holds, and peers that it has met."""

    def __init__(self, held: list[Psk], *, met: bool) -> None:
        self.held, self.met = held, met

    def admit(
        self, caller: Remote, offered: tuple[PskRef, ...], arrival: Arrival, now: float
    ) -> Admission | None:
        for position, ref in enumerate(offered, 1):
            for psk in self.held:
                if (psk.kind, psk.id) == (ref.kind, ref.id):
                    return Admission(psk, position)
        return Admission() if self.met else None

    def accept_unauthorised(self, peer: Peer, now: float) -> bool:
        return self.met


class Station:
    """An engine at an endpoint, with everything it reported and received."""

    def __init__(
        self, bus: Bus, identity: Identity, at: Endpoint, policy: Policy, life: int, mark: int
    ) -> None:
        self.bus, self.identity, self.at = bus, identity, at
        self.events: list[Any] = []
        self.marks: list[int] = []
        self.engine = SessionEngine(
            identity,
            bus.platform.trust,
            policy,
            random=bus.clock.stream(f"{identity.name} {life}").randbytes,
            platform_ms=lambda now: bus.platform_ms(self, now),
            sequencer=Sequencer(mark, self.marks.append),
        )
        self.skew_ms = 0

    @property
    def peer(self) -> Peer:
        return Peer(self.identity.role, self.identity.name, self.key)

    @property
    def key(self) -> bytes:
        return public_key(self.identity.private_key)

    def to(self, other: Station) -> Path:
        return Path(1, other.at)

    def call(self, other: Station, **more: Any) -> int:
        handle = self.engine.call(other.peer, [self.to(other)], self.bus.now, **more)
        self.bus.collect()
        return handle

    def handle(self, other: Station) -> int:
        found = self.engine.handle_of(other.key)
        assert found is not None
        return found

    def all(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def in_use(self) -> int | None:
        """Number of the session in use."""
        from ntmd.proto.events import SessionInUse

        uses = self.all(SessionInUse)
        return uses[-1].number if uses else None


class Bus:
    """Virtual time, and datagrams under way. ``lose`` decides about each datagram sent."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = Clock(seed)
        self.platform = Platform(self.clock)
        self.now = 1000.0
        self.stations: dict[Endpoint, Station] = {}
        self.flying: list[tuple[float, int, Endpoint, Endpoint, bytes]] = []
        self.serial = 0
        self.sent: list[tuple[Endpoint, Endpoint, bytes]] = []
        self.lose: Lose = lambda source, destination, data: False
        self.on_event: Callable[[Station, Any], None] = lambda station, event: None
        self.delay: Callable[[bytes], float] = lambda data: DELAY
        self.stopped: dict[Endpoint, float] = {}  # processes that do not run, until when

    def platform_ms(self, station: Station, now: float) -> int:
        return EPOCH_MS + int((now - 1000.0) * 1000) + station.skew_ms

    def add(
        self,
        identity: Identity,
        policy: Policy = EVERYBODY,
        *,
        at: Endpoint | None = None,
        life: int = 0,
        mark: int = 0,
    ) -> Station:
        number = len(self.stations) + 1
        at = at or Endpoint(f"203.0.{number >> 8}.{number & 0xFF}", 4000)
        station = Station(self, identity, at, policy, life, mark)
        self.stations[at] = station
        return station

    def node(self, name: str, policy: Policy = EVERYBODY, **more: Any) -> Station:
        return self.add(self.platform.node(f"{name}.lab.test", "lab.test", **more), policy)

    def restart(self, old: Station, policy: Policy = EVERYBODY, mark: int = 0) -> Station:
        """The same identity in a new process."""
        return self.add(old.identity, policy, at=old.at, life=old.bus.serial + 1, mark=mark)

    def collect(self) -> None:
        """Take what the engines have put out."""
        for station in list(self.stations.values()):
            while outputs := station.engine.take_outputs():
                for output in outputs:
                    if isinstance(output, SendDatagram):
                        self._send(station, output)
                    else:
                        station.events.append(output)
                        self.on_event(station, output)

    def _send(self, station: Station, output: SendDatagram) -> None:
        target = output.path.remote
        self.sent.append((station.at, target, output.data))
        destination = self.stations.get(target)
        if destination is None or self.lose(station, destination, output.data):
            return
        self.fly(station.at, target, output.data)

    def fly(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        """Put a datagram under way."""
        self.serial += 1
        arrival = self.now + self.delay(data)
        heapq.heappush(self.flying, (arrival, self.serial, source, target, data))

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.now + seconds
        self.collect()
        while True:
            times = [at for each in self.stations.values() if (at := self._due(each)) is not None]
            if self.flying:
                times.append(self.flying[0][0])
            if not times or min(times) > end:
                break
            self.now = max(self.now, min(times))
            self._turn()
        self.now = end

    def _turn(self) -> None:
        while self.flying and self.flying[0][0] <= self.now:
            _, _, source, target, data = heapq.heappop(self.flying)
            if target in self.stations and self.now < self.stopped.get(target, 0.0):
                self.serial += 1  # it waits in the kernel's buffer
                held = (self.stopped[target], self.serial, source, target, data)
                heapq.heappush(self.flying, held)
            elif target in self.stations:
                self.stations[target].engine.receive(data, 1, source, self.now)
                self.collect()
        for station in list(self.stations.values()):
            deadline = self._due(station)
            if deadline is not None and deadline <= self.now:
                station.engine.handle_deadline(self.now)
        self.collect()

    def _due(self, station: Station) -> float | None:
        """When its timer fires, if its process runs then."""
        deadline = station.engine.deadline()
        return None if deadline is None else max(deadline, self.stopped.get(station.at, 0.0))


def pair(seed: int = 1) -> tuple[Bus, Station, Station]:
    """Two nodes that have not met."""
    bus = Bus(seed)
    return bus, bus.node("alice"), bus.node("bob")


def joined(seed: int = 1) -> tuple[Bus, Station, Station]:
    """Two nodes with a session begun by the first."""
    bus, alice, bob = pair(seed)
    alice.call(bob)
    bus.run(1.0)
    return bus, alice, bob
