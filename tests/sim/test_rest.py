"""The first word after a pause: nobody knows whether the way that carried still does.

NATs forget and rebind without an event. So the first datagrams leave on the relay leg too, and the
way is asked at once.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage, met_behind

RTT = 0.048  # over the relay
FORGETFUL = replace(PORT_RESTRICTED, expiry=30.0)
KEEPALIVE = 20.0  # seconds; the first interval


def pair(kind: NatKind) -> tuple[Stage, SimNode, SimNode]:
    """A laptop and a desk behind such NATs that have met, and talk no more."""
    stage, laptop, desk = met_behind(kind)
    stage.run(3.0)
    return stage, laptop, desk


def rebind(node: SimNode) -> None:
    """The node's NAT gets another address and forgets all mappings."""
    gateway = node.host.interfaces["eth0"].network.gateway
    assert gateway is not None
    gateway.rebind(new_address=True)


@pytest.mark.parametrize("kind", [FORGETFUL, replace(SYMMETRIC, expiry=30.0)], ids=["cone", "sym"])
@pytest.mark.parametrize("idle", [65.0, 3 * 3600.0])
def test_first_answer_after_a_pause_that_the_nats_did_not_survive(
    kind: NatKind, idle: float
) -> None:
    stage, laptop, desk = pair(kind)
    stage.run(idle)
    assert stage.fresh_answer(desk, laptop) <= 1.5 * RTT + 0.150
    stage.run(3.0)
    if kind is FORGETFUL:
        assert stage.path_kind(desk, laptop) == stage.path_kind(laptop, desk) == "direct"


@pytest.mark.parametrize("idle", [12.0, 40.0, 100.0, 300.0])
@pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC], ids=["cone", "sym"])
def test_a_node_whose_nat_rebound_unnoticed_speaks(kind: NatKind, idle: float) -> None:
    stage, laptop, desk = pair(kind)
    stage.run(idle)
    rebind(laptop)
    stage.run(0.5)
    assert stage.fresh_answer(laptop, desk) <= 0.300


@pytest.mark.parametrize("idle", [12.0, 100.0])
def test_a_node_whose_nat_rebound_unnoticed_is_reached_once_its_keep_alive_told(
    idle: float,
) -> None:
    """Nothing reaches it sooner: its NAT drops whatever comes before it has sent anything."""
    stage, laptop, desk = pair(PORT_RESTRICTED)
    stage.run(idle)
    rebind(laptop)
    begun = stage.world.clock.now
    stage.fresh_answer(desk, laptop, 60.0)
    told = [line.at for line in stage.world.trace.find("send", laptop.host.name) if line.at > begun]
    assert stage.world.clock.now - told[0] <= 0.300


def test_a_pause_costs_copies_for_one_round_trip_and_a_question_each_way() -> None:
    stage, laptop, desk = pair(PORT_RESTRICTED)
    for _ in range(3):
        stage.run(15.0)
        sent = laptop.sent_bytes + desk.sent_bytes
        assert stage.fresh_answer(laptop, desk) <= 0.045
        stage.run(1.0)
        assert laptop.sent_bytes + desk.sent_bytes - sent <= 2500
    assert laptop.core.common.counters["path_doubted"] == 0
    assert laptop.inner.copies("echo") == desk.inner.copies("asked") == 0
