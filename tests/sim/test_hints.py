"""What anybody may forge, or a full link causes, raises doubt within a budget and moves nothing."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest

from ntmd.proto.frame import Kind
from ntmd.proto.io import SendFailed
from ntmd.proto.timing import DOUBT_BYTES, DOUBT_RECOVERY, DOUBT_SECONDS
from tests.sim.link import Packet, Shape
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.story import Stage
from tests.sim.test_silent_link import handovers
from tests.sim.test_soft_move import two_links

RATE = 1000  # forged errors a second
MEGABIT = 125_000.0  # bytes a second
TUNNELS = 20


class Copies:
    """Data frames of a node that left twice, over all its links: how many bytes, and when."""

    def __init__(self, stage: Stage, node: SimNode) -> None:
        self.bytes = 0
        self.at: list[float] = []
        self._seen: set[bytes] = set()
        self._stage = stage
        for entry in node.host.interfaces.values():
            entry.up.script = self._note

    def _note(self, packet: Packet) -> None:
        if packet.data[0] != Kind.DATA:
            return
        name = packet.data[:4] + packet.data[8:48]  # slot, counter, ciphertext: not the index
        if name in self._seen:
            self.bytes += len(packet.data)
            self.at.append(self._stage.world.clock.now)
        self._seen.add(name)


@pytest.mark.parametrize("code", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_a_thousand_forged_unreachables_a_second_move_nothing(code: int) -> None:
    """Rule N5, for half a minute, about the very path that carries, while data flows both ways."""
    stage, laptop, desk = two_links()
    copies = Copies(stage, laptop)
    primary = laptop.core.tunnels.by_name(desk.name).paths.primary
    seconds = 30
    for number in range(seconds * RATE):
        stage.world.clock.after(number / RATE, lambda: laptop.post(SendFailed(primary, code)))
    stage.stream(laptop, desk, seconds * 100, 0.01)
    stage.stream(desk, laptop, seconds * 100, 0.01)
    stage.run(seconds + 1.0)
    assert laptop.core.tunnels.by_name(desk.name).paths.primary == primary
    assert handovers(laptop) == handovers(desk) == []
    counters = laptop.core.common.counters
    assert counters["send_failed"] == seconds * RATE
    assert 1 <= counters["path_doubted"] <= seconds / 5 + 1
    assert 0 < copies.bytes <= DOUBT_BYTES / 10
    assert len(desk.inner.times("udp")) == len(laptop.inner.times("udp")) == seconds * 100
    assert desk.inner.copies("udp") == laptop.inner.copies("udp") == 0


def test_twenty_tunnels_in_doubt_on_one_megabit() -> None:
    """Rule N8: the doubts of all tunnels share one budget of copies.

    The flows fill two thirds of the link. Every half second another peer falls silent, so that some
    tunnels are in doubt for twelve seconds in a row, each for two seconds.
    """
    stage = Stage(keep_trace=False)
    stage.domain()
    narrow = Shape(delay=0.010, rate=MEGABIT)
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED), shape=narrow)
    peers = [stage.node(f"peer{n}", stage.world.home(PORT_RESTRICTED)) for n in range(TUNNELS)]
    stage.all_up()
    for peer in peers:
        stage.first_answer(laptop, peer)
    stage.run(5.0)
    copies = Copies(stage, laptop)
    for peer in peers:
        stage.stream(laptop, peer, 25 * 15, 1 / 15)
    stage.run(2.0)
    began = stage.world.clock.now
    for peer in peers[1:]:
        peer.host.interfaces["eth0"].down.script = lambda _: 0
        stage.run(0.5)
    stage.run(12.0)
    assert laptop.core.common.counters["path_doubted"] >= TUNNELS - 1
    spent = sum(after - before for before, after in pairwise(copies.at) if after - before < 0.1)
    lasted = copies.at[-1] - began
    assert DOUBT_SECONDS / 2 <= spent <= DOUBT_SECONDS * (1 + lasted / DOUBT_RECOVERY), lasted
    assert copies.bytes <= DOUBT_BYTES
    came = [at for at in peers[0].inner.times("udp").values() if at > began]
    assert len(came) >= 0.93 * 21.5 * 15, "the one peer that hears is not starved by the doubts"
