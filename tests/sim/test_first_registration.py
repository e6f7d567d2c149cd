"""Nodes that register for the first time while somebody is late: the node, or its coordinator."""

from __future__ import annotations

import pytest

from tests.sim.story import Stage


@pytest.mark.parametrize("late", ["node", "coordinator"])
@pytest.mark.parametrize("seconds", [0.3, 3.0, 9.9, 10.2, 11.0, 30.0])
def test_a_process_that_stands_still_while_a_node_joins(late: str, seconds: float) -> None:
    """Stopped right after the first copy left, or just before it comes: up a second after."""
    stage = Stage(7)
    domain = stage.domain()
    stage.run(1.0)
    node = stage.node("laptop")
    stage.run(0.008)  # the first copy is under way
    (node if late == "node" else domain.dc).stand_still(seconds)
    stage.run(seconds)
    assert node.state != "up"
    stage.run(1.0)
    assert node.state == "up", stage.explain(node)
