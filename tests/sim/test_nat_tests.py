"""The measurement of the own NAT, disturbed while it runs."""

from __future__ import annotations

import pytest

from ntmd.proto.timing import KEEPALIVE_MAX
from ntmd.proto.types import NatFiltering, NatMapping
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.story import Stage


@pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC], ids=lambda kind: str(kind.name))
@pytest.mark.parametrize("at", [number / 10 for number in range(2, 24)])
def test_a_mapping_lost_meanwhile_changes_nothing_of_what_is_found(
    kind: NatKind, at: float
) -> None:
    """Two destinations see two sources then, though the NAT does not map by destination; and what
    was sent to in the first run lets answers in during the second."""
    stage = Stage(2)
    stage.domain()
    home = stage.world.home(kind)
    node = stage.node("laptop", home)
    stage.run(at)
    assert home.gateway is not None
    home.gateway.rebind(new_address=True)
    stage.run(10.0)
    (facts,) = node.core.registration.nat.facts.values()
    expected = NatMapping.ENDPOINT_INDEPENDENT
    if kind is SYMMETRIC:
        expected = NatMapping.ADDRESS_AND_PORT_DEPENDENT
    assert facts.mapping is expected
    assert facts.filtering is NatFiltering.ADDRESS_AND_PORT_DEPENDENT


@pytest.mark.parametrize("away", [1.0, 60.0])
def test_what_an_earlier_life_opened_is_not_taken_for_no_filter(away: float) -> None:
    """Its flows through the firewall to all of the coordinator's endpoints still stand."""
    stage = Stage(2)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(None, v6=True), families=(6,))
    stage.all_up()
    stage.run(10.0)
    laptop.crash()
    stage.run(away)
    laptop.start()
    stage.run(10.0)
    for _ in range(6):
        stage.run(250.0)
        stranger = stage.node(f"stranger{stage.world.clock.now:.0f}")
        stage.run(2.0)
        assert stage.fresh_answer(stranger, laptop) < 0.5
    (facts,) = laptop.core.registration.nat.facts.values()
    assert facts.filtering is NatFiltering.ADDRESS_AND_PORT_DEPENDENT


def test_a_node_without_filter_is_left_in_peace_longest() -> None:
    stage = Stage(2)
    stage.domain()
    desk = stage.node("desk")
    stage.all_up()
    stage.run(3600.0)
    assert desk.core.keepalive.interval == KEEPALIVE_MAX
    facts = desk.core.registration.nat.facts.values()
    assert [each.filtering for each in facts] == [NatFiltering.NONE] * 2
