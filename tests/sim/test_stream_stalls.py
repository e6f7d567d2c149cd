"""Streams across an outage: how long does each wait once there is a way again?

While the daemon stands still, packets pile up in the TUN; then the queue is sealed at once, before
or after the network's news are read, and both ends repeat what the other one missed.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.sim.inner_stream import InnerStream
from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage, data_only

QUEUE = 500  # packets that a TUN holds (txqueuelen)
ASLEEP = 5.0
PORTS = range(3001, 3005)


def asleep(stage: Stage, laptop: SimNode, hole: float, drained: float) -> float:
    """Stand still, move meanwhile; the TUN's queue is read ``drained`` seconds after the wake."""
    queue: list[bytes] = []
    into, laptop.inner._out = laptop.inner._out, queue.append
    laptop.host.suspend()
    laptop.host.detach("eth0")
    network, _ = stage.place(PORT_RESTRICTED)
    stage.run(ASLEEP)
    laptop.host.attach("wlan0", network, NODE_LINK)
    lose_data(stage, laptop, hole)
    laptop.host.resume()
    woke = stage.world.clock.now
    stage.run(drained)
    laptop.inner._out = into
    for packet in queue[:QUEUE]:
        into(packet)
    return woke


HOLES = (0.0, 0.05, 0.1, 0.15)  # data frames are lost on the new ways for so long after the wake
PATIENCE = 0.3  # seconds


def stage_of(kind: NatKind) -> tuple[Stage, SimNode, SimNode]:
    """Two nodes that talk both ways, as fast as a call and a half."""
    stage = Stage(1)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(kind))
    desk = stage.node("desk", stage.world.home(kind))
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(3.0)
    for node, other in ((laptop, desk), (desk, laptop)):
        stage.stream(node, other, 1000, 0.010)
    return stage, laptop, desk


def streams(laptop: SimNode, desk: SimNode) -> list[tuple[InnerStream, InnerStream]]:
    """Four: writer and reader; each end writes two."""
    found = []
    for port in PORTS:
        ends = (InnerStream(laptop, desk.address, port), InnerStream(desk, laptop.address, port))
        found.append(ends if port % 2 else ends[::-1])
    return found


def lose_data(stage: Stage, laptop: SimNode, seconds: float) -> None:
    """From now on nothing of the tunnels' data gets through, but everything else does."""
    until = stage.world.clock.now + seconds

    def tap(packet: Packet) -> bool | None:
        return False if data_only(packet) and stage.world.clock.now < until else None

    stage.world.internet.taps.append(tap)


@pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC], ids=["direct", "relay"])
@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("drained", [0.0, 0.02, 0.04])
@pytest.mark.parametrize("written", [0.01, 0.31])
def test_each_stream_goes_on_soon_after_the_wake_whatever_the_first_moment_eats(
    kind: NatKind, hole: float, drained: float, written: float
) -> None:
    stage, laptop, desk = stage_of(kind)
    pairs = streams(laptop, desk)
    stage.run(1.0)
    for writer, _ in pairs:
        stage.world.clock.after(written, partial(writer.write, bytes(1000)))
    woke = asleep(stage, laptop, hole, drained)
    stage.run(4.0)
    for _, reader in pairs:
        [(at, _)] = reader.words
        assert at - woke <= hole + PATIENCE
    assert laptop.inner.bad == desk.inner.bad == []
    assert laptop.inner.copies("udp") == desk.inner.copies("udp") == 0
