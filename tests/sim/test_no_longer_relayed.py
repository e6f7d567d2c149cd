"""A pair that had to be relayed goes direct as soon as a network where that is possible comes."""

from __future__ import annotations

import pytest

from tests.sim.nat import FULL_CONE, PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.story import NODE_LINK, Stage, met_behind
from tests.sim.test_move import move

DESK = "desk.home.test"
MEASURED = 5.0  # by then both NATs have been measured, and the coordinator knows, seconds
LATE = 0.4  # from the new network to the instant at which its NAT64 is found, seconds
PATIENCE = 3.0  # from the new network to a direct path in both directions, seconds


@pytest.mark.parametrize("mover", [0, 1])
@pytest.mark.parametrize("kind", ["public v4", FULL_CONE, PORT_RESTRICTED])
def test_away_from_a_symmetric_nat(mover: int, kind: NatKind | str) -> None:
    stage, one, two = met_behind(SYMMETRIC, 3, after=MEASURED)
    stage.run(2.0)
    assert stage.path_kind(one, two) == "relay"
    assert one.core.tunnels.all()[0].relay_only
    move(stage, (one, two)[mover], kind)
    stage.run(PATIENCE)
    expected = "relay" if kind is PORT_RESTRICTED else "direct"
    assert (stage.path_kind(one, two), stage.path_kind(two, one)) == (expected, expected)


@pytest.mark.parametrize("asked", [at / 50 for at in range(40)])
def test_a_nat64_that_is_found_late(asked: float) -> None:
    """Into a network of IPv6 alone, while the desk has IPv4 alone: until the NAT64 is found, the
    coordinator sees no way but the relay, and says so if it is asked then."""
    stage, laptop, desk = met_behind(PORT_RESTRICTED, 3, after=MEASURED)
    stage.run(2.0)
    network = stage.world.home(None, v6=True)
    assert network.gateway is not None
    network.gateway.add_nat64(PORT_RESTRICTED)
    network.gateway.answers_after = LATE
    laptop.host.detach("eth0")
    laptop.host.attach("eth0", network, NODE_LINK, families=(6,))
    stage.run(asked)
    laptop.core.directions.ask(DESK, b"", stage.world.clock.now)
    laptop.resolve(DESK)  # an input, so that what was asked leaves
    stage.run(LATE + PATIENCE)
    assert (stage.path_kind(laptop, desk), stage.path_kind(desk, laptop)) == ("direct", "direct")


@pytest.mark.parametrize(
    ("caller_at", "called_at"), [("public v4", SYMMETRIC), (SYMMETRIC, "public v4")]
)
def test_a_relay_that_is_gone_for_good_holds_nobody_up(
    caller_at: NatKind | str, called_at: NatKind | str
) -> None:
    """It is handed out for an hour in case that only the coordinator was cut off from it; but who
    has to start is decided as if it were not there."""
    stage = Stage(3)
    domain = stage.domain()
    nodes = []
    for label, at in (("laptop", caller_at), ("desk", called_at)):
        network, families = stage.place(at)
        nodes.append(stage.node(label, network, families=families))
    stage.all_up()
    stage.run(5.0)
    domain.rs.crash()
    stage.run(200.0)
    assert stage.first_answer(nodes[0], nodes[1], within=10.0) < 3.0
    assert stage.path_kind(nodes[0], nodes[1]) == "direct"


def test_a_coordinator_that_was_cut_off_still_names_relays() -> None:
    """Its relays have not come back to it yet, and may not before eight seconds."""
    stage = Stage(3)
    domain = stage.domain()
    six = stage.node("six", stage.world.home(None, v6=True), families=(6,))
    four = stage.node("four", stage.world.internet, families=(4,))
    stage.all_up()
    stage.run(MEASURED)
    (eth,) = domain.dc.host.interfaces.values()
    eth.up.up = eth.down.up = False
    stage.run(405.0)
    eth.up.up = eth.down.up = True
    assert stage.first_answer(six, four, within=20.0) < 4.0
    relays, now = domain.dc.core.relays, domain.dc.host.now
    assert not relays.live(now), "they had been back already"
    stage.run(10.0)
    assert relays.live(domain.dc.host.now)
