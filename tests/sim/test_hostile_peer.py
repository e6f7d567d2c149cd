"""A peer that lies or floods: what it says of the way to itself costs nobody else anything."""

from __future__ import annotations

from typing import Any

from ntmd.node.tunnels import Tunnel
from ntmd.proto.messages import Probe, Seen, SeenCounters
from tests.sim.node import SimNode
from tests.sim.test_fading import carries, talk
from tests.sim.test_silent_link import handovers
from tests.sim.test_soft_move import two_links

FAR_AHEAD = 2**60  # a counter that was never sent
SECONDS = 3.0


def tunnels(laptop: SimNode, desk: SimNode) -> tuple[Tunnel, Tunnel]:
    return laptop.core.tunnels.by_name(desk.name), desk.core.tunnels.by_name(laptop.name)


def test_a_peer_that_claims_to_receive_next_to_nothing_moves_no_link() -> None:
    """The claim begins trials; what they show is what counts."""
    stage, laptop, desk = two_links()
    mine, its = tunnels(laptop, desk)
    talk(stage, laptop, desk, SECONDS)
    stage.run(0.5)
    slot = its.seen()
    assert slot is not None
    for number in range(1, int(SECONDS / 0.05)):
        told = SeenCounters(slot.slot, FAR_AHEAD + 1000 * number, 0, ((1, number),))
        desk.core.common.engine.tell(its.handle, Seen(told), desk.core.common.now)
        stage.run(0.05)
    counters = laptop.core.common.counters
    assert laptop.core.steering.doubts.loss(mine) > 0.8, "the claim did not arrive"
    assert not counters["link_lossy"]
    assert not counters["path_lossy"]
    assert carries(laptop, desk) == "eth0"
    assert not handovers(laptop)
    assert desk.inner.longest_gap("udp") <= 0.1


def test_a_flood_of_questions_on_another_way_is_answered_and_has_ours_asked_a_few_times() -> None:
    """Each question beside the way in use is a reason to ask there, but not each anew."""
    stage, laptop, desk = two_links()
    mine, its = tunnels(laptop, desk)
    relay = desk.core.steering.relay_way(its)
    assert relay is not None
    asked: list[str] = []
    start = laptop.core.prober.start

    def counted(*args: Any, purpose: str = "probe", **kwargs: Any) -> None:
        asked.append(purpose)
        start(*args, purpose=purpose, **kwargs)

    laptop.core.prober.start = counted  # type: ignore[method-assign]
    talk(stage, laptop, desk, SECONDS)
    for number in range(int(SECONDS / 0.001)):
        probe = Probe(0x10_0000 + number)
        desk.core.common.engine.tell(its.handle, probe, desk.core.common.now, path=relay)
        stage.run(0.001)
    assert asked.count("check") <= SECONDS / mine.paths.silence(0.2) + 2
    assert len(asked) <= 50
    assert not laptop.core.common.counters["path_doubted"]
    assert desk.inner.longest_gap("udp") <= 0.1
