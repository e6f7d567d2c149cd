"""A link that costs by the byte: kept warm, used last, and never sent on twice."""

from __future__ import annotations

from collections import Counter

from ntmd.node.settings import NodeSettings
from ntmd.proto.frame import Kind
from ntmd.proto.timing import RESEND_TAIL
from tests.sim.link import Packet, Shape
from tests.sim.listen import listen
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.story import Stage
from tests.sim.test_silent_link import fall_silent, handovers
from tests.sim.test_soft_move import NEAR, OnLinks

STEP = 0.010
FAST = Shape(delay=0.005)


def on_the_road() -> tuple[Stage, SimNode, SimNode]:
    """A laptop whose system prefers wwan0, which is quicker besides, to wlan0; and a desk."""
    stage = Stage(keep_trace=False)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED), shape=NEAR, start=False)
    laptop.settings = NodeSettings(metered=("wwan0",))
    laptop.host.attach("wwan0", stage.world.home(PORT_RESTRICTED), FAST, metric=50)
    laptop.start()
    listen(laptop)
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED), shape=NEAR)
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(3.0)
    return stage, laptop, desk


def both_ways(stage: Stage, laptop: SimNode, desk: SimNode, seconds: float) -> None:
    stage.stream(laptop, desk, int(seconds / STEP), STEP)
    stage.stream(desk, laptop, int(seconds / STEP), STEP)
    stage.run(seconds)


def test_it_carries_only_while_nothing_else_does() -> None:
    stage, laptop, desk = on_the_road()
    links = OnLinks(laptop)
    both_ways(stage, laptop, desk, 30.0)
    taken = links.take()
    assert taken["wwan0"] == 0, "an unmetered link works"
    assert taken["eth0"] > 5000
    kept = {name: entry.up.packets for name, entry in laptop.host.interfaces.items()}
    stage.run(600.0)
    wwan = laptop.host.interfaces["wwan0"].up.packets - kept["wwan0"]
    assert 0 < wwan <= 2 * 600 / 20, "it is kept warm by keep-alives, and by little more"
    both_ways(stage, laptop, desk, 2.0)
    laptop.host.detach("eth0")
    both_ways(stage, laptop, desk, 5.0)
    assert desk.inner.times("udp")[stage.streamed(laptop) - 10]
    assert links.take()["wwan0"] > 800

    laptop.host.attach("eth0", stage.world.home(PORT_RESTRICTED), NEAR)
    both_ways(stage, laptop, desk, 5.0)
    links = OnLinks(laptop)
    both_ways(stage, laptop, desk, 5.0)
    assert links.take()["wwan0"] == 0, "it is left as soon as another link answers"


def test_nothing_leaves_twice_over_it_in_a_hard_move() -> None:
    """Rule N8. Elsewhere a hard mover sends on the relay leg and on direct ways at once."""
    stage, laptop, desk = on_the_road()
    both_ways(stage, laptop, desk, 2.0)
    left: Counter[bytes] = Counter()

    def note(packet: Packet) -> None:
        if packet.data[0] == Kind.DATA:
            left[packet.data[1:2] + packet.data[8:16]] += 1

    laptop.host.interfaces["wwan0"].up.script = note
    laptop.host.detach("eth0")
    both_ways(stage, laptop, desk, 3.0)
    again = [count for count in left.values() if count > 1]
    assert len(again) <= RESEND_TAIL
    assert max(left.values()) <= 2, "but for the resend of rule S14"
    assert len(desk.inner.times("udp")) >= 2 * 100 + 290


def test_a_silent_link_is_left_for_it() -> None:
    stage, laptop, desk = on_the_road()
    both_ways(stage, laptop, desk, 2.0)
    fall_silent(laptop)
    both_ways(stage, laptop, desk, 3.2)
    assert [entry["cause"] for entry in handovers(laptop)] == ["silent link eth0"]
    assert len(desk.inner.times("udp")) > 200 + 260, "the gap is below 0.4 s"
