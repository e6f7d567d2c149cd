"""The paper's order: CN is directed and ready before MN is told to start, whatever is lost."""

from __future__ import annotations

import pytest

from ntmd.proto import messages as m
from tests.sim.link import Shape
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.story import Stage


def check_order(stage: Stage, mn: SimNode, cn: SimNode, dcs: list[str]) -> None:
    """From the trace: request, direction to CN, CN's response, only then MN's direction."""
    lines = [line for line in stage.world.trace.lines if line.what == "heard"]

    def first(kind: type, where: str) -> int:
        for at, line in enumerate(lines):
            if isinstance(line.value, kind) and line.where == where and good(line.value):
                return at
        raise AssertionError(f"{where} never heard {kind.__name__}")

    asked = first(m.DirectionRequest, dcs[0])
    told = first(m.RouteDirectionToCaller, mn.name)
    answer = lines[told].value
    directed = first(m.RouteDirection, cn.name)
    ready = first(m.RouteDirectionResponse, dcs[-1])
    assert asked < directed < ready < told
    assert answer.route.start
    assert not lines[directed].value.route.start
    keys = [
        line.value.route.psk for line in lines[:told] if isinstance(line.value, m.RouteDirection)
    ]
    assert answer.route.psk in keys  # the very direction that CN had before


def stage_with(seed: int, shape: Shape) -> tuple[Stage, SimNode, SimNode]:
    stage = Stage(seed)
    stage.domain()
    mn = stage.node("mn", stage.world.home(PORT_RESTRICTED))
    cn = stage.node("cn", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    for node in (mn, cn):
        for link in (node.host.interfaces["eth0"].up, node.host.interfaces["eth0"].down):
            link.shape = shape
    return stage, mn, cn


def good(message: object) -> bool:
    """A reply that refuses nothing, or no reply."""
    return getattr(message, "status", m.Status.OK) == m.Status.OK


def directed_well(stage: Stage, mn: SimNode) -> bool:
    found = stage.world.trace.find("heard", mn.name, m.RouteDirectionToCaller)
    return any(good(line.value) for line in found)


def test_callee_is_ready_before_the_caller_is_told() -> None:
    stage, mn, cn = stage_with(1, Shape(delay=0.01))
    stage.first_answer(mn, cn)
    check_order(stage, mn, cn, ["dc.home.test"])


@pytest.mark.parametrize("seed", range(20))
def test_also_with_a_third_lost_a_tenth_doubled_and_a_fifth_reordered(seed: int) -> None:
    rough = Shape(delay=0.01, jitter=0.01, loss=0.33, duplicate=0.1, reorder=0.2)
    stage, mn, cn = stage_with(seed, rough)
    for _ in range(12):  # a user who asks again, as resolvers do
        mn.resolve(cn.name)
        stage.run(5.0)
        if directed_well(stage, mn):
            break
    assert directed_well(stage, mn), stage.explain(mn, cn)
    check_order(stage, mn, cn, ["dc.home.test"])


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_each_direction_to_the_callee_may_be_lost(lost: int) -> None:
    """The first copies from the coordinator to CN vanish: MN waits, and is told after all."""
    stage, mn, cn = stage_with(5, Shape(delay=0.01))
    down = cn.host.interfaces["eth0"].down
    left = [lost]

    def lose(_packet: object) -> int | None:
        if left[0]:
            left[0] -= 1
            return 0
        return None

    down.script = lose
    stage.first_answer(mn, cn)
    assert left == [0]
    check_order(stage, mn, cn, ["dc.home.test"])


def test_caller_is_told_nothing_while_the_callee_is_silent() -> None:
    stage, mn, cn = stage_with(6, Shape(delay=0.01))
    cn.host.interfaces["eth0"].down.up = False
    token = mn.resolve(cn.name)
    stage.run(8.0)
    told = [
        line.value
        for line in stage.world.trace.find("heard", mn.name, m.RouteDirectionToCaller)
        if line.value.status == m.Status.OK
    ]
    assert told == []
    assert mn.names[token].address is None
