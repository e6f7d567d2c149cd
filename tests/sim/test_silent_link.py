"""A link that is up and carries nothing: found by silence, and only then."""

from __future__ import annotations

from statistics import median

import pytest

from tests.sim.link import Shape
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC
from tests.sim.node import SimNode
from tests.sim.story import Stage
from tests.sim.test_soft_move import FAR, NEAR, check_all_arrived, two_links

STEP = 0.010
PHASES = [0.0, 0.013, 0.027, 0.041, 0.055, 0.069, 0.083, 0.097]  # against the reports' 100 ms


def fall_silent(node: SimNode, interface: str = "eth0") -> None:
    """From now on the link eats everything, both ways; nobody is told."""
    entry = node.host.interfaces[interface]
    for link in (entry.up, entry.down):
        link.script = lambda _: 0


def heal(node: SimNode, interface: str = "eth0") -> None:
    entry = node.host.interfaces[interface]
    for link in (entry.up, entry.down):
        link.script = None


def handovers(node: SimNode) -> list[dict[str, object]]:
    found: list[dict[str, object]] = node.ask("handovers")[-1].result["handovers"]
    return found


def gap(receiver: SimNode, since: float) -> float:
    return receiver.inner.longest_gap("udp", since) - STEP


def gaps(
    desk_at: object, second: object, there: bool, back: bool
) -> tuple[list[float], list[float]]:
    """Gaps at the desk and at the laptop when eth0 falls silent, at several phases."""
    at_desk, at_laptop = [], []
    for phase in PHASES:
        stage, laptop, desk = two_links(PORT_RESTRICTED, second, desk_at)  # type: ignore[arg-type]
        if there:
            stage.stream(laptop, desk, 500, STEP)
        if back:
            stage.stream(desk, laptop, 500, STEP)
        stage.run(1.0 + phase)
        at = stage.world.clock.now
        fall_silent(laptop)
        stage.run(3.0)
        at_desk.append(gap(desk, at - 0.1))
        at_laptop.append(gap(laptop, at - 0.1))
        cause = handovers(laptop)[-1]["cause"]
        assert cause == "silent link eth0", (cause, stage.explain(laptop, desk))
        assert (
            laptop.core.underlay.interface(
                laptop.core.tunnels.by_name(desk.name).paths.primary.socket
            )
            == "wlan0"
        )
        assert laptop.inner.copies("udp") == desk.inner.copies("udp") == 0
    return at_desk, at_laptop


PLACES = {"direct": PORT_RESTRICTED, "relayed": SYMMETRIC}


@pytest.mark.parametrize("second", PLACES)
@pytest.mark.parametrize("desk_at", PLACES)
def test_traffic_both_ways_is_back_in_less_than_half_a_second(desk_at: str, second: str) -> None:
    at_desk, at_laptop = gaps(PLACES[desk_at], PLACES[second], there=True, back=True)
    for found in (at_desk, at_laptop):
        assert median(found) <= 0.400, found
        assert max(found) <= 0.500, found


@pytest.mark.parametrize("second", PLACES)
@pytest.mark.parametrize("desk_at", PLACES)
def test_traffic_one_way_out_of_the_silent_link(desk_at: str, second: str) -> None:
    at_desk, _ = gaps(PLACES[desk_at], PLACES[second], there=True, back=False)
    assert median(at_desk) <= 0.500, at_desk
    assert max(at_desk) <= 0.800, at_desk


@pytest.mark.parametrize("second", PLACES)
@pytest.mark.parametrize("desk_at", PLACES)
@pytest.mark.parametrize(("step", "limit"), [(0.010, 0.6), (0.040, 0.7), (0.200, 1.6)])
def test_traffic_one_way_into_the_silent_link(
    step: float, limit: float, desk_at: str, second: str
) -> None:
    """The node on the silent link sends nothing: it has to notice what stays out."""
    for phase in PHASES[::3]:
        stage, laptop, desk = two_links(PORT_RESTRICTED, PLACES[second], PLACES[desk_at])
        stage.stream(desk, laptop, int(6.0 / step), step)
        stage.run(2.0 + phase)
        at = stage.world.clock.now
        fall_silent(laptop)
        stage.run(3.5)
        assert laptop.inner.longest_gap("udp", at - 2 * step, at + 3.4) - step <= limit
        assert max(laptop.inner.times("udp").values()) > at + 3.0


def test_when_the_link_answers_again_it_is_used_again_without_loss() -> None:
    stage, laptop, desk = two_links()
    stage.stream(laptop, desk, 300, STEP)
    stage.stream(desk, laptop, 300, STEP)
    stage.run(1.0)
    fall_silent(laptop)
    stage.run(4.0)
    lost = 300 - len(desk.inner.times("udp"))
    back = 300 - len(laptop.inner.times("udp"))
    heal(laptop)
    stage.stream(laptop, desk, 2000, STEP)
    stage.stream(desk, laptop, 2000, STEP)
    stage.run(25.0)
    assert [h["cause"] for h in handovers(laptop)] == [
        "silent link eth0",
        "link answers again eth0",
    ]
    assert len(desk.inner.times("udp")) == 2300 - lost
    assert len(laptop.inner.times("udp")) == 2300 - back


@pytest.mark.parametrize("flow", ["there", "back", "both"])
@pytest.mark.parametrize(("loss", "seed"), [(0.05, 7), (0.20, 7), (0.20, 2), (0.20, 4)])
def test_a_merely_lossy_link_is_not_taken_for_a_silent_one(
    loss: float, seed: int, flow: str
) -> None:
    bad = Shape(delay=NEAR.delay, loss=loss)
    stage, laptop, desk = two_links(shapes=(bad, FAR), seed=seed)
    for _ in range(6):
        if flow != "back":
            stage.stream(laptop, desk, 500, 0.020)
        if flow != "there":
            stage.stream(desk, laptop, 500, 0.020)
        stage.run(10.0)
    assert laptop.core.common.counters["link_silent"] == 0
    causes = [str(each["cause"]) for each in handovers(laptop)]
    left = [cause for cause in causes if cause.startswith("eth0 loses ")]
    assert len(left) <= 1, "what loses much is left, once, and for that reason"
    assert all(cause == "eth0 is well again" for cause in causes if cause not in left), causes


def test_an_idle_node_finds_it_by_its_keep_alive() -> None:
    stage, laptop, desk = two_links()
    stage.run(400.0)
    fall_silent(laptop)
    stage.run(110.0)
    assert laptop.core.common.counters["link_silent"] == 1
    assert stage.first_answer(desk, laptop) <= 0.300


def test_the_coordinators_link_falls_silent_while_the_tunnel_goes_over_the_other_one() -> None:
    """Data stays out, and all links are asked: what the coordinator's own does not answer counts.
    A coordinator that looks for the node there cannot direct anybody to it."""
    stage, laptop, desk = two_links(SYMMETRIC)
    stage.domains["home.test"].rs.crash()
    stage.stream(laptop, desk, 300, STEP)
    stage.stream(desk, laptop, 300, STEP)
    stage.run(5.0)
    underlay, tunnel = laptop.core.underlay, laptop.core.tunnels.by_name(desk.name)
    coordinator = laptop.core.registration.uplink
    assert underlay.interface(tunnel.paths.primary.socket) == "wlan0"
    assert underlay.interface(coordinator.path.socket) == "eth0"
    assert laptop.core.common.counters["link_silent"] == 0  # the relay died, not the link
    stage.stream(desk, laptop, 300, STEP)
    stage.run(2.0)
    fall_silent(laptop)
    stage.run(4.0)
    assert underlay.interface(coordinator.path.socket) == "wlan0"


@pytest.mark.parametrize("shapes", [(NEAR, FAR), (FAR, NEAR)])
@pytest.mark.parametrize("dead", [0, 1])
def test_a_relay_that_died_says_nothing_of_the_link(dead: int, shapes: tuple[Shape, Shape]) -> None:
    stage = Stage(keep_trace=False)
    relays = [stage.domain().rs, stage.relay("rs2")]
    laptop = stage.node("laptop", stage.place(PORT_RESTRICTED)[0], shape=shapes[0])
    laptop.host.attach("wlan0", stage.place(PORT_RESTRICTED)[0], shapes[1], metric=600)
    stage.all_up()
    stage.run(200.0)
    relays[dead].crash()
    stage.run(300.0)
    assert laptop.core.common.counters["link_silent"] == 0


def test_both_links_well_and_one_way_flows_are_never_doubted() -> None:
    stage, laptop, desk = two_links()
    stage.stream(laptop, desk, 3000, 0.020)
    stage.run(62.0)
    check_all_arrived(stage, (laptop, desk))
    for node in (laptop, desk):
        assert node.core.common.counters["path_doubted"] == 0
    assert desk.plane.drops.get("in_duplicate", 0) == 0


def test_a_server_that_was_silent_on_the_better_link_is_spoken_to_there_again() -> None:
    """A firewall ate what went to the coordinator only, for a while; the other link may cost."""
    stage, laptop, _ = two_links(PORT_RESTRICTED, PORT_RESTRICTED, PORT_RESTRICTED)
    dc = stage.domains["home.test"].dc.host.interfaces["eth0"].addresses.values()
    up = laptop.host.interfaces["eth0"].up
    underlay = laptop.core.underlay

    def links() -> set[str]:
        return {underlay.interface(each.path.socket) for each in laptop.core.shift.uplinks()}

    up.script = lambda packet: 0 if packet.destination.host in dc else None
    stage.run(60.0)
    assert links() == {"eth0", "wlan0"}
    up.script = None
    assert stage.world.run(120.0, lambda: links() == {"eth0"})
