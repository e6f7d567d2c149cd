"""A whole network falls silent: not every tunnel is called anew at the same instant."""

from __future__ import annotations

from collections import Counter

from ntmd.proto.frame import Kind
from ntmd.proto.timing import RESCUE_PACE, RESCUES_AT_ONCE
from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.story import Stage
from tests.sim.test_silent_link import heal

PEERS = 40


def test_many_silent_tunnels_are_called_one_by_one_and_all_come_back() -> None:
    stage = Stage(keep_trace=False)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    peers = [stage.node(f"peer{number}") for number in range(PEERS)]
    stage.all_up()
    for peer in peers:
        stage.first_answer(laptop, peer)
    stage.run(3.0)
    for peer in peers:
        stage.stream(laptop, peer, 400, 0.05)
    stage.run(1.0)
    calls: Counter[int] = Counter()  # first copies, by the tenth of a second
    known: set[bytes] = set()

    def eat(packet: Packet) -> int:
        first = packet.data[8:16]  # the sender's index: another one for each handshake
        if packet.data[0] == Kind.INITIATION and first not in known:
            known.add(first)
            calls[int(stage.world.clock.now * 10)] += 1
        return 0

    entry = laptop.host.interfaces["eth0"]
    entry.up.script, entry.down.script = eat, lambda _: 0
    stage.run(6.0)
    servers = 4  # coordinator and relay are called at once, and again
    assert max(calls.values()) <= RESCUES_AT_ONCE + 0.1 / RESCUE_PACE + servers, calls
    assert sum(calls.values()) >= PEERS, "each of them is called"
    heal(laptop)
    back = stage.world.clock.now
    stage.run(6.0)
    for peer in peers:
        assert max(peer.inner.times("udp").values()) > back, peer.name
