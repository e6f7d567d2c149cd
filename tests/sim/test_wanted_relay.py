"""A relay that was away for long is called before its time by both ends that need it."""

from __future__ import annotations

import pytest

from tests.sim.nat import SYMMETRIC
from tests.sim.story import Stage


@pytest.mark.parametrize("away", [700.0, 730.0, 760.0])
def test_a_relay_that_is_back_is_called_soon_by_whoever_needs_it(away: float) -> None:
    """On its own a node would call it once in two minutes; and these two started anew meanwhile, so
    that they have no session with it which it could reset."""
    stage = Stage(4, keep_trace=False)
    relay = stage.domain().rs
    laptop, desk = (stage.node(name, stage.world.home(SYMMETRIC)) for name in ("laptop", "desk"))
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(5.0)
    relay.crash()
    for node in (laptop, desk):
        node.restart()
    stage.run(away)
    relay.start()
    stage.run(1.0)
    assert not any(each.up for each in laptop.core.relays.uplinks())
    assert stage.fresh_answer(laptop, desk, within=60.0) <= 8.0


@pytest.mark.parametrize("away", [300.0, 330.0, 360.0])
def test_a_node_that_no_relay_answers_any_more_calls_those_that_were_away(away: float) -> None:
    """It has nothing to say, and nobody to ask: the coordinator is away. Whoever has something to
    say to it can only meet it at a relay."""
    stage = Stage(4, keep_trace=False)
    domain = stage.domain()
    second = stage.relay("rs2")
    laptop, desk = (stage.node(name, stage.world.home(SYMMETRIC)) for name in ("laptop", "desk"))
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(5.0)
    second.crash()
    desk.restart()  # no session that the relay could reset
    stage.run(away)
    stage.first_answer(laptop, desk)
    second.start()
    domain.dc.crash()
    domain.rs.crash()
    relays = desk.core.relays.by_name
    noticed = lambda: not relays["rs.home.test"].uplink.up  # noqa: E731
    assert stage.world.run(130.0, noticed), "with a keep-alive at the latest"
    assert stage.world.run(3.0, lambda: relays["rs2.home.test"].uplink.up)
    assert stage.fresh_answer(laptop, desk, within=20.0) <= 8.0
