"""The measurement of the own NAT, disturbed while it runs."""

from __future__ import annotations

import pytest

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
