"""A pair that had to be relayed goes direct as soon as a network where that is possible comes."""

from __future__ import annotations

import pytest

from tests.sim.nat import FULL_CONE, PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage
from tests.sim.test_move import move

DESK = "desk.home.test"
MEASURED = 5.0  # by then both NATs have been measured, and the coordinator knows, seconds
LATE = 0.4  # from the new network to the instant at which its NAT64 is found, seconds
PATIENCE = 3.0  # from the new network to a direct path in both directions, seconds


def relayed(laptop_at: NatKind | str, desk_at: NatKind | str) -> tuple[Stage, SimNode, SimNode]:
    """Two nodes whose coordinator knew, when they met, that no direct way can be expected."""
    stage = Stage(3)
    stage.domain()
    nodes = []
    for label, at in (("laptop", laptop_at), ("desk", desk_at)):
        network, families = stage.place(at)
        nodes.append(stage.node(label, network, families=families))
    stage.all_up()
    stage.run(MEASURED)
    stage.first_answer(nodes[0], nodes[1])
    stage.run(2.0)
    assert stage.path_kind(nodes[0], nodes[1]) == "relay"
    assert nodes[0].core.tunnels.all()[0].relay_only
    return stage, nodes[0], nodes[1]


@pytest.mark.parametrize("mover", [0, 1])
@pytest.mark.parametrize("kind", ["public v4", FULL_CONE, PORT_RESTRICTED])
def test_away_from_a_symmetric_nat(mover: int, kind: NatKind | str) -> None:
    stage, one, two = relayed(SYMMETRIC, SYMMETRIC)
    move(stage, (one, two)[mover], kind)
    stage.run(PATIENCE)
    expected = "relay" if kind is PORT_RESTRICTED else "direct"
    assert (stage.path_kind(one, two), stage.path_kind(two, one)) == (expected, expected)


@pytest.mark.parametrize("asked", [at / 50 for at in range(40)])
def test_a_nat64_that_is_found_late(asked: float) -> None:
    """Into a network of IPv6 alone, while the desk has IPv4 alone: until the NAT64 is found, the
    coordinator sees no way but the relay, and says so if it is asked then."""
    stage = Stage(3)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    stage.run(MEASURED)
    stage.first_answer(laptop, desk)
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
