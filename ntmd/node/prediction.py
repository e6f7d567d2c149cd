"""Where a NAT that gives every destination another port will be seen by a peer, if it counts.

Many such NATs give ports in a row. This node knows in which order it first sent to each
destination, and servers told it the ports that some of these got; so it can foretell the port that
a peer will see, and tell the peer, which opens its own filter there and comes in. Other hosts
behind the same NAT take ports of the row too; so the next few are named as well, and never more
(what a guess costs is bounded: rule S7, and four candidates of the peer's sixteen).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ntmd.proto.timing import (
    PREDICTED_PORTS,
    PREDICTION_DESTINATIONS,
    PREDICTION_SPREAD,
)
from ntmd.proto.types import Endpoint, Path

HIGHEST, LOWEST = 65_535, 1024
SAMPLES = 8  # ports told by servers that are remembered for each socket


@dataclass(frozen=True, slots=True)
class Sample:
    """The ``place``-th destination that a socket sent to was reached from outside ``source``."""

    place: int
    source: Endpoint


class Allocations:
    """In which order destinations were first sent to, by own socket, and what servers saw."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, Endpoint], int] = {}
        self._count: dict[int, int] = {}
        self._samples: dict[int, dict[Endpoint, Sample]] = {}

    def sent(self, path: Path) -> None:
        """Something leaves on ``path``; the NAT takes a port for a destination it did not know."""
        spot = (path.socket, path.remote)
        if spot in self._places or path.remote.family != 4:
            return
        self._count[path.socket] = self._places[spot] = self._count.get(path.socket, 0) + 1
        if len(self._places) > PREDICTION_DESTINATIONS:
            del self._places[next(iter(self._places))]

    def saw(self, path: Path, source: Endpoint | None) -> None:
        """Whoever answers on ``path`` sees this node as ``source``."""
        place = self._places.get((path.socket, path.remote))
        if place is None or source is None or path.relayed:
            return
        samples = self._samples.setdefault(path.socket, {})
        before = samples.pop(path.remote, None)
        if before is not None and before.source != source:  # it lapsed, and was made anew
            self._count[path.socket] += 1
            place = self._places[path.socket, path.remote] = self._count[path.socket]
        samples[path.remote] = Sample(place, source)
        if len(samples) > SAMPLES:
            del samples[next(iter(samples))]

    def forget(self, socket: int) -> None:
        """An own socket is gone."""
        self._samples.pop(socket, None)
        self._count.pop(socket, None)
        for spot in [spot for spot in self._places if spot[0] == socket]:
            del self._places[spot]

    def foretell(self, path: Path) -> tuple[Endpoint, ...]:
        """Where the peer at ``path.remote`` sees this node, likeliest first; () if unknown."""
        place = self._places.get((path.socket, path.remote))
        samples = sorted(self._samples.get(path.socket, {}).values(), key=lambda s: s.place)
        step = step_of(samples)
        if place is None or step == 0:
            return ()
        near = min(samples, key=lambda s: abs(s.place - place))
        first = near.source.port + step * (place - near.place)
        ports = [first + step * more for more in range(PREDICTED_PORTS)]
        return tuple(Endpoint(near.source.host, p) for p in ports if LOWEST <= p <= HIGHEST)


def step_of(samples: list[Sample]) -> int:
    """By how much each port is above (or below) the one before, 0 if there is no such row.

    ``samples`` in the order of their destinations. Others may have taken ports in between, so the
    smallest step counts; all must go the same way, from one address, and not far.
    """
    if len({sample.source.host for sample in samples}) != 1:
        return 0
    steps: list[int] = []
    for before, after in pairwise(samples):
        distance = after.source.port - before.source.port
        places = after.place - before.place
        if distance == 0 or places <= 0 or abs(distance) > PREDICTION_SPREAD * places:
            return 0
        steps.append(distance // places if distance > 0 else -(-distance // places))
    if not steps or min(steps) * max(steps) <= 0:
        return 0
    return min(steps, key=abs)
