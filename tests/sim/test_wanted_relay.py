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
