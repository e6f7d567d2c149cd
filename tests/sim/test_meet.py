"""Both ends move at once: where they meet again when servers are gone too."""

from __future__ import annotations

import pytest

from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage
from tests.sim.test_move import STEP, gap, move

PLACES: dict[str, NatKind | str] = {
    "public": "public v4",
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
}


def talking(at: NatKind | str, *, second_relay: bool) -> tuple[Stage, SimNode, SimNode]:
    """Two nodes in like places, packets flowing both ways."""
    stage = Stage(1, keep_trace=False)
    stage.domain()
    if second_relay:
        stage.relay("rs2")
    nodes = []
    for label in ("laptop", "desk"):
        network, families = stage.place(at)
        nodes.append(stage.node(label, network, families=families))
    stage.all_up()
    stage.first_answer(nodes[0], nodes[1])
    stage.run(2.0)
    stage.stream(nodes[0], nodes[1], 1500, STEP)
    stage.stream(nodes[1], nodes[0], 1500, STEP)
    stage.run(1.0)
    return stage, nodes[0], nodes[1]


@pytest.mark.parametrize("at", PLACES)
def test_the_relay_is_dead_too_and_they_meet_at_the_second_one(at: str) -> None:
    """No coordinator either."""
    stage, laptop, desk = talking(PLACES[at], second_relay=True)
    domain = stage.domains["home.test"]
    assert laptop.core.relays.home_name == "rs.home.test"
    domain.rs.crash()
    domain.dc.crash()
    when = move(stage, laptop, PORT_RESTRICTED)
    move(stage, desk, PORT_RESTRICTED)
    stage.run(12.0)
    assert max(gap(desk, when - 0.1), gap(laptop, when - 0.1)) <= 0.100
    assert stage.path_kind(laptop, desk) == stage.path_kind(desk, laptop) == "direct"


@pytest.mark.parametrize("at", PLACES)
def test_there_is_no_relay_at_all_and_the_coordinator_brings_them_together(at: str) -> None:
    stage, laptop, desk = talking(PLACES[at], second_relay=False)
    stage.domains["home.test"].rs.crash()
    when = move(stage, laptop, PORT_RESTRICTED)
    move(stage, desk, PORT_RESTRICTED)
    stage.run(12.0)
    assert max(gap(desk, when - 0.1), gap(laptop, when - 0.1)) <= 0.300


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("at", PLACES)
def test_relay_and_coordinator_restart_while_nodes_move(at: str, both: bool) -> None:
    """Nobody has told them anything new when the Move comes: the relay knows no leg."""
    stage, laptop, desk = talking(PLACES[at], second_relay=False)
    domain = stage.domains["home.test"]
    domain.rs.restart()
    domain.dc.restart()
    when = move(stage, laptop, PORT_RESTRICTED)
    if both:
        move(stage, desk, PORT_RESTRICTED)
    stage.run(12.0)
    assert max(gap(desk, when - 0.1), gap(laptop, when - 0.1)) <= 0.300
