"""A link that works and loses more and more: it is left before it dies, and for no other reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ntmd.node.settings import NodeSettings
from tests.sim.link import Packet, Shape
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage
from tests.sim.test_silent_link import fall_silent, handovers
from tests.sim.test_soft_move import NEAR, two_links

STEP = 0.020  # a voice call's packets, seconds


def shaped(node: SimNode, interface: str = "eth0", **change: Any) -> None:
    """From now on the link is another one, both ways."""
    entry = node.host.interfaces[interface]
    for link in (entry.up, entry.down):
        link.shape = replace(link.shape, **change)


def talk(stage: Stage, laptop: SimNode, desk: SimNode, seconds: float, step: float = STEP) -> None:
    stage.stream(laptop, desk, int(seconds / step), step)
    stage.stream(desk, laptop, int(seconds / step), step)


def carries(laptop: SimNode, desk: SimNode) -> str:
    """The interface that the laptop sends on."""
    tunnel = laptop.core.tunnels.by_name(desk.name)
    return laptop.core.underlay.interface(tunnel.paths.primary.socket)


def arrived(node: SimNode, since: float, until: float) -> int:
    return sum(since <= at < until for at in node.inner.times("udp").values())


@pytest.mark.parametrize("desk_at", [PORT_RESTRICTED, SYMMETRIC], ids=["direct", "relayed"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_laptop_carried_out_of_range_has_left_before_the_link_dies(
    desk_at: NatKind, seed: int
) -> None:
    stage, laptop, desk = two_links(PORT_RESTRICTED, SYMMETRIC, desk_at, seed=seed)
    talk(stage, laptop, desk, 20.0)
    stage.run(2.0)
    for step in range(1, 13):
        shaped(laptop, loss=0.025 * step)
        stage.run(0.5)
    assert carries(laptop, desk) == "wlan0", stage.explain(laptop, desk)
    at = stage.world.clock.now
    fall_silent(laptop)
    stage.run(4.0)
    expected = 4.0 / STEP
    for node in (laptop, desk):
        assert arrived(node, at, at + 4.0) >= expected - 6, "nobody noticed the end of the link"
    told = handovers(laptop)[-1]
    assert str(told["cause"]).startswith("eth0 loses "), told
    assert "of 20" in str(told["cause"])


def test_it_comes_back_when_the_link_is_well_again_and_only_then() -> None:
    stage, laptop, desk = two_links()
    talk(stage, laptop, desk, 200.0)
    stage.run(2.0)
    shaped(laptop, loss=0.3)
    stage.run(60.0)
    assert carries(laptop, desk) == "wlan0"
    assert len(handovers(laptop)) == 1, "a link that still loses is not gone back to"
    shaped(laptop, loss=0.0)
    at = stage.world.clock.now
    stage.run(90.0)
    assert carries(laptop, desk) == "eth0"
    assert len(handovers(laptop)) == 2
    for node in (laptop, desk):
        assert arrived(node, at + 1, at + 89) >= 88 / STEP - 2, "going back costs nothing"


def test_two_links_that_lose_alike_are_not_changed_for_one_another() -> None:
    moves = []
    for seed in (1, 2, 3):
        stage, laptop, desk = two_links(seed=seed)
        talk(stage, laptop, desk, 120.0)
        stage.run(2.0)
        shaped(laptop, loss=0.15)
        shaped(laptop, "wlan0", loss=0.15)
        stage.run(110.0)
        moves.append(len(handovers(laptop)))
    assert sum(moves) <= 4, moves


def test_a_link_whose_answers_come_late_is_left_too() -> None:
    """The edge of a Wi-Fi's range: frames are repeated until they arrive."""
    stage, laptop, desk = two_links()
    talk(stage, laptop, desk, 20.0)
    stage.run(4.0)
    shaped(laptop, delay=0.5)
    stage.run(8.0)
    assert carries(laptop, desk) == "wlan0", stage.explain(laptop, desk)


def test_a_metered_link_is_not_taken_for_loss() -> None:
    stage = Stage(keep_trace=False)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED), shape=NEAR, start=False)
    laptop.settings = NodeSettings(metered=("wwan0",))
    laptop.host.attach("wwan0", stage.world.home(PORT_RESTRICTED), Shape(delay=0.005), metric=50)
    laptop.start()
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED), shape=NEAR)
    stage.all_up()
    stage.first_answer(laptop, desk)
    talk(stage, laptop, desk, 40.0)
    stage.run(3.0)
    shaped(laptop, loss=0.3)
    before = laptop.host.interfaces["wwan0"].up.packets
    stage.run(30.0)
    assert carries(laptop, desk) == "eth0"
    assert laptop.host.interfaces["wwan0"].up.packets - before <= 60, "nor in trials"


def test_loss_that_a_busy_flow_makes_itself_is_no_reason() -> None:
    """A link full of its own traffic drops: another one would, too, and is the second choice."""
    stage, laptop, desk = two_links()
    rate = 100_000.0  # bytes a second
    shaped(laptop, rate=rate)
    stage.stream(laptop, desk, 12_000, 0.0008)
    stage.run(9.0)
    assert laptop.host.interfaces["eth0"].up.drops["full"] > 100, "the link was full"
    assert not [each for each in handovers(laptop) if "loses" in str(each["cause"])]
    assert not laptop.core.common.counters["link_lossy"]


@pytest.mark.parametrize("delay", [NEAR.delay, 0.1], ids=["near", "far away"])
def test_a_busy_laptop_leaves_a_link_that_fades_too(delay: float) -> None:
    """What is lost here is not the flow's own doing: there is no queue."""
    stage, laptop, desk = two_links(shapes=(Shape(delay=delay), Shape(delay=delay)))
    talk(stage, laptop, desk, 12.0)
    stage.stream(laptop, desk, 12_000, 0.001)
    stage.run(2.0)
    for step in range(1, 13):
        shaped(laptop, loss=0.025 * step)
        stage.run(0.5)
    assert carries(laptop, desk) == "wlan0", stage.explain(laptop, desk)
    assert str(handovers(laptop)[-1]["cause"]).startswith("eth0 loses ")


def test_a_direct_way_that_loses_gives_way_to_the_relay() -> None:
    """One link only: what is lost is lost between here and the peer."""
    stage = Stage(2, keep_trace=False)
    stage.domain()
    nodes = [stage.node(name, stage.world.home(PORT_RESTRICTED), shape=NEAR) for name in "ab"]
    stage.all_up()
    laptop, desk = nodes
    stage.first_answer(laptop, desk)
    stage.run(3.0)
    assert stage.path_kind(laptop, desk) == "direct"
    dice = stage.world.clock.stream("between")
    theirs = desk.host.interfaces["eth0"]
    relay = stage.domains["home.test"].rs.host.interfaces["eth0"].addresses.values()
    ends = set(relay)

    def between(packet: Packet) -> int | None:
        near = packet.source.host in ends or packet.destination.host in ends
        return None if near or dice.random() >= 0.3 else 0

    theirs.up.script = theirs.down.script = between
    talk(stage, laptop, desk, 20.0)
    stage.run(12.0)
    assert stage.path_kind(laptop, desk) == stage.path_kind(desk, laptop) == "relay"
    at = stage.world.clock.now
    stage.run(6.0)
    for node in nodes:
        assert arrived(node, at, at + 6.0) >= 6.0 / STEP - 3


def test_of_links_that_are_gone_nothing_is_kept() -> None:
    """A socket's number never comes again: what is counted by it must go with it."""
    stage, laptop, desk = two_links()
    talk(stage, laptop, desk, 120.0)
    for _ in range(3):
        shaped(laptop, loss=0.3)
        stage.run(8.0)
        assert carries(laptop, desk) == "wlan0"
        laptop.host.detach("eth0")
        laptop.host.attach("eth0", stage.world.home(PORT_RESTRICTED), NEAR)
        stage.run(8.0)
        assert carries(laptop, desk) == "eth0"
    assert laptop.core.common.counters["link_lossy"] == 3
    assert len(laptop.core.steering.fading._falls) == 1, "the last one only"
