"""Two domains whose nodes have met before: one coordinator down changes nothing for them."""

from __future__ import annotations

import pytest

from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage


def met(kind: NatKind) -> tuple[Stage, SimNode, SimNode]:
    """laptop.home.test and desk.lab.test behind NATs, after their first conversation."""
    stage = Stage(11)
    for domain in ("home.test", "lab.test"):
        stage.domain(domain)
    stage.directory()
    laptop = stage.node("laptop", stage.world.home(kind))
    desk = stage.node("desk", stage.world.home(kind), domain="lab.test")
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(30.0)
    return stage, laptop, desk


def answer(stage: Stage, caller: SimNode, called: SimNode) -> float:
    """Seconds until a fresh ping is answered, pinging twenty times a second for 4 s at most."""
    begun, base = stage.world.clock.now, 10_000 + len(caller.inner.sent)

    def answered() -> bool:
        return max(caller.inner.times("echo", called.address), default=0) >= base

    for number in range(80):
        caller.inner.ping(called.address, base + number)
        if stage.world.run(0.05, answered):
            break
    assert answered(), stage.explain(caller, called)
    return stage.world.clock.now - begun


@pytest.mark.parametrize("idle", [140.0, 3600.0])
def test_a_foreign_relay_hears_of_the_new_mapping_first(idle: float) -> None:
    """Only the home relay is kept alive; the other one last saw a mapping that has lapsed."""
    stage, laptop, desk = met(SYMMETRIC)
    for caller, called in ((laptop, desk), (desk, laptop)):
        stage.run(idle)
        assert answer(stage, caller, called) < 0.3


@pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC], ids=lambda kind: str(kind.name))
@pytest.mark.parametrize("down", ["home.test", "lab.test"])
@pytest.mark.parametrize("killed", ["nobody", "laptop", "desk"])
def test_they_reach_each_other_while_one_coordinator_is_down(
    kind: NatKind, down: str, killed: str
) -> None:
    """After an idle hour, and after kill -9 and restart of either end, from either end."""
    stage, laptop, desk = met(kind)
    stage.domains[down].dc.crash()
    stage.run(3600.0)
    if killed != "nobody":
        stage.nodes[killed].restart()
        stage.run(5.0)
    caller, called = (desk, laptop) if killed == "laptop" else (laptop, desk)
    assert answer(stage, caller, called) < 0.3
    stage.run(200.0)
    assert answer(stage, called, caller) < 0.3
    stage.domains[down].dc.start()
    stage.run(200.0)
    assert {laptop.state, desk.state} == {"up"}
