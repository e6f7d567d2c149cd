"""What an idle node costs: bytes and wake-ups an hour, with one peer or fifty (rule S6)."""

from __future__ import annotations

from functools import partial

import pytest

from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage

HOUR = 3600.0
HEADERS = 28  # IPv4 and UDP
BYTES_AN_HOUR = 30_000  # both ways, headers included
WAKE_UPS_AN_HOUR = 300
RENEWAL = 1_300  # bytes of a registration that brings a fresh record and grant
LARGE = 500  # bytes; only registrations and renewals are: once or twice in the hour, by chance


class Meter:
    """Counts what a node sends and receives, and the instants at which it runs at all."""

    def __init__(self, node: SimNode) -> None:
        self.bytes = self.small = 0
        self._instants: dict[float, None] = {}
        self._node, self._clock = node, node.host.world.clock
        self._send, self._received, self._post = node.send, node._received, node.post
        node.send = self.sent  # type: ignore[method-assign]
        node.post = self.posted  # type: ignore[method-assign]
        for number, socket in node._open.items():
            socket.receive = partial(self.received, number)

    @property
    def wake_ups(self) -> int:
        """Instants further apart than what one exchange takes."""
        ups, last = 0, -1.0
        for instant in self._instants:
            ups += instant - last > 0.2
            last = instant
        return ups

    def _note(self, size: int) -> None:
        self.bytes += size
        self.small += size if size < LARGE else 0
        self._instants[self._clock.now] = None

    def sent(self, number: int, data: bytes, remote: object) -> int:
        self._note(len(data) + HEADERS)
        return self._send(number, data, remote)  # type: ignore[arg-type]

    def received(self, number: int, data: bytes, source: object) -> None:
        self._note(len(data) + HEADERS)
        self._received(number, data, source)  # type: ignore[arg-type]

    def posted(self, event: object) -> None:
        self._note(0)
        self._post(event)


def second_hour(peers: int, kind: NatKind) -> tuple[Stage, Meter]:
    """A node behind a NAT that met ``peers`` others, in its second hour without a packet."""
    stage = Stage(5, keep_trace=False)
    stage.domain()  # coordinator and relay on different addresses
    laptop = stage.node("laptop", stage.world.home(kind))
    others = [stage.node(f"peer{number}") for number in range(peers)]
    stage.all_up()
    for other in others:
        stage.first_answer(laptop, other)
    stage.run(HOUR)
    meter = Meter(laptop)
    stage.run(HOUR)
    return stage, meter


@pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC], ids=lambda kind: str(kind.name))
def test_the_second_idle_hour_is_within_budget(kind: NatKind) -> None:
    stage, meter = second_hour(1, kind)
    assert 0 < meter.bytes <= BYTES_AN_HOUR
    assert 0 < meter.wake_ups <= WAKE_UPS_AN_HOUR
    begun = stage.world.clock.now
    stage.first_answer(stage.nodes["peer0"], stage.nodes["laptop"])
    assert stage.world.clock.now - begun < 0.2  # the first ping reaches it


def test_fifty_idle_peers_cost_what_one_costs() -> None:
    _, one = second_hour(1, PORT_RESTRICTED)
    _, fifty = second_hour(50, PORT_RESTRICTED)
    assert abs(fifty.small - one.small) <= 0.03 * one.small
    for meter in (one, fifty):
        assert meter.bytes - meter.small <= 2 * RENEWAL
    assert abs(fifty.wake_ups - one.wake_ups) <= 3
