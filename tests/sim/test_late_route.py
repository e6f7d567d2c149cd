"""A link has an address before it has a route: what leaves in between reaches nobody.

A DHCP client sets the default route some milliseconds after the address. Whoever sends at once on a
socket bound to the link asks its neighbours for the way (ARP) in vain, and what was sent is lost.
"""

from __future__ import annotations

import pytest

from ntmd.proto.frame import Kind
from ntmd.proto.types import Endpoint
from tests.sim.inner_stream import InnerStream
from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, RS_PORT, Stage
from tests.sim.test_move import STEP, delivered, gap, pair

KINDS = pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC], ids=["direct", "relay"])
LATE = (0.004, 0.012, 0.030)  # seconds from address to route


def plug(stage: Stage, laptop: SimNode, kind: NatKind, route_after: float) -> float:
    """Another link; returns the instant at which it leads somewhere."""
    network, _ = stage.place(kind)
    laptop.host.attach("wlan0", network, NODE_LINK, route_after=route_after)
    return stage.world.clock.now + route_after


def moved(kind: NatKind, route_after: float, *, peer_sends: bool) -> tuple[float, int]:
    """A hard move while one end sends: the hole, beyond the time without a route; datagrams that
    arrived."""
    stage, laptop, desk = pair(kind, kind)
    sender, receiver = (desk, laptop) if peer_sends else (laptop, desk)
    stage.stream(sender, receiver, 400, STEP)
    stage.run(1.0)
    at = stage.world.clock.now
    laptop.host.detach("eth0")
    plug(stage, laptop, kind, route_after)
    stage.run(5.0)
    assert laptop.inner.bad == desk.inner.bad == []
    return gap(receiver, at - 0.1) - route_after, len(delivered(receiver))


@KINDS
@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("peer_sends", [False, True], ids=["mover sends", "peer sends"])
def test_a_late_route_costs_its_own_time_and_no_more(
    kind: NatKind, late: float, peer_sends: bool
) -> None:
    at_once, whole = moved(kind, 0.0, peer_sends=peer_sends)
    beyond, arrived = moved(kind, late, peer_sends=peer_sends)
    assert beyond <= at_once + STEP
    assert arrived >= whole - (late / STEP + 2 if peer_sends else 0)


@KINDS
def test_a_stream_that_waited_for_a_link_goes_on_with_its_route(kind: NatKind) -> None:
    """Its repetition is parked and leaves once: not into the void."""
    stage, laptop, desk = pair(kind, kind)
    writer, reader = InnerStream(laptop, desk.address), InnerStream(desk, laptop.address)
    laptop.host.detach("eth0")
    stage.run(0.1)
    writer.write(b"word")
    stage.run(9.9)
    there = plug(stage, laptop, kind, 0.012)
    stage.run(3.0)
    [(came, _)] = reader.words
    assert came - there <= 0.060


@KINDS
@pytest.mark.parametrize("late", [0.5, 3.0])
def test_a_route_that_comes_much_later_is_a_new_chance(kind: NatKind, late: float) -> None:
    """By then the link was tried as it is; the move begins anew."""
    stage, laptop, desk = pair(kind, kind)
    stage.stream(desk, laptop, 800, STEP)
    stage.run(1.0)
    laptop.host.detach("eth0")
    there = plug(stage, laptop, kind, late)
    stage.run(late + 1.5)
    first = min(at for at in delivered(laptop).values() if at > there - late + 0.05)
    assert first - there <= 0.150


@KINDS
def test_a_relay_is_told_before_it_gets_data(kind: NatKind) -> None:
    """It forwards nothing from an unknown source (rule S2), so LegMove is first in the burst."""
    stage, laptop, desk = pair(kind, kind)
    stage.stream(laptop, desk, 200, STEP)
    stage.run(1.0)
    laptop.host.detach("eth0")
    stage.run(0.1)
    sent: list[tuple[Endpoint, int]] = []

    network, _ = stage.place(kind)
    assert network.gateway is not None
    assert network.gateway.nat is not None
    outside = network.gateway.nat.address

    def tap(packet: Packet) -> None:
        if packet.source.host == outside:
            sent.append((packet.destination, packet.data[0]))

    stage.world.internet.taps.append(tap)
    laptop.host.attach("wlan0", network, NODE_LINK, route_after=0.010)
    stage.run(0.040)
    [relay] = {to for to, what in sent if what == Kind.DATA and to.port == RS_PORT}
    kinds = [what for to, what in sent if to == relay]
    assert kinds[0] == Kind.CONTROL
    assert kinds.count(Kind.DATA) >= 8, "what was parked"
