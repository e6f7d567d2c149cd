"""kill -9 and start again: streams inside do not wait for their next repetition."""

from __future__ import annotations

import pytest

from tests.sim.inner_stream import InnerStream
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage, met_behind

STARTING = 0.8  # seconds that a process takes to start
DOWN = [STARTING, 1.3, 2.9]  # before, right after, and long after a stream's third repetition


def pair(kind: NatKind) -> tuple[Stage, SimNode, SimNode, InnerStream, InnerStream]:
    """A laptop and a desk with a stream between them."""
    stage, laptop, desk = met_behind(kind)
    here, there = InnerStream(laptop, desk.address), InnerStream(desk, laptop.address)
    for end in (here, there):
        end.write(b"before")
    stage.run(15.0)
    assert len(here.words) == len(there.words) == 1
    return stage, laptop, desk, here, there


@pytest.mark.parametrize("down", DOWN)
@pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC], ids=["direct", "relayed"])
@pytest.mark.parametrize("writers", ["laptop", "desk", "both"])
def test_words_of_both_ends_arrive_soon_after_the_start(
    writers: str, kind: NatKind, down: float
) -> None:
    stage, laptop, desk, here, there = pair(kind)
    stage.stream(desk, laptop, 10, 0.02)
    stage.run(0.5)
    laptop.crash()
    stage.run(0.05)
    if writers != "desk":
        here.write(b"from the laptop")
    if writers != "laptop":
        there.write(b"from the desk")
    stage.run(down)
    laptop.start()
    begun = stage.world.clock.now
    stage.run(8.0)
    wanted = {"laptop": [there], "desk": [here], "both": [here, there]}[writers]
    took = [end.words[-1][0] - begun for end in wanted if len(end.words) == 2]
    assert len(took) == len(wanted)
    assert max(took) <= 0.5, took
    for end in (here, there):
        assert [word for _, word in end.words].count(b"from the desk") <= 1
    assert laptop.inner.copies("udp") == 0, "datagrams are never sealed a second time"
