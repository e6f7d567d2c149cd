"""A relay that restarts tells its idle nodes so; their coordinator is dead."""

from __future__ import annotations

from collections import Counter

import pytest

from ntm_rs.recall import AGAIN, MAGIC, PLACES_KEY, Place, pack, unpack_all
from ntmd.proto.frame import Kind
from ntmd.proto.timing import RS_RECALL_RATE
from ntmd.proto.types import Endpoint
from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.servers import SimServer
from tests.sim.story import Stage

KINDS: list[NatKind | str] = ["public v4", PORT_RESTRICTED, SYMMETRIC]


def idle_pair(kind: NatKind | str) -> tuple[Stage, SimServer, SimNode, SimNode]:
    """The laptop and an idle desk with IPv4 each, that have met; the coordinator is dead, and the
    laptop is about to lose IPv4, so that only the relay is left."""
    stage = Stage(3, keep_trace=False)
    domain = stage.domain()
    network, families = stage.place(kind)
    laptop = stage.node("laptop", stage.world.home(SYMMETRIC))
    desk = stage.node("desk", network, families=families)
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(200.0)
    domain.dc.crash()
    stage.run(90.0)
    return stage, domain.rs, laptop, desk


def to_ipv6(stage: Stage, laptop: SimNode) -> None:
    laptop.host.detach("eth0")
    laptop.host.attach("eth0", stage.world.home(None, v6=True))


@pytest.mark.parametrize("kind", KINDS, ids=["public", "NAT", "symmetric"])
def test_an_idle_node_is_reached_soon_after_a_restart(kind: NatKind | str) -> None:
    stage, relay, laptop, desk = idle_pair(kind)
    relay.restart()
    stage.run(1.0)
    to_ipv6(stage, laptop)
    stage.run(1.0)
    assert stage.fresh_answer(laptop, desk, within=30.0) <= 3.0


def test_a_relay_that_was_away_for_long() -> None:
    """A node calls it once in two minutes by then; it comes back when the relay does."""
    stage, relay, _, desk = idle_pair("public v4")
    relay.crash()
    stage.run(700.0)
    (uplink,) = desk.core.relays.uplinks()
    assert not uplink.up
    relay.start()
    stage.run(2.0)
    assert uplink.up


def test_a_second_restart_before_anybody_is_back() -> None:
    stage, relay, laptop, desk = idle_pair(SYMMETRIC)
    relay.restart()
    stage.run(0.01)
    relay.restart()
    to_ipv6(stage, laptop)
    stage.run(2.0)
    assert stage.fresh_answer(laptop, desk, within=30.0) <= 3.0


@pytest.mark.parametrize("lost", [1, 2])
def test_a_reset_that_is_lost_is_sent_again(lost: int) -> None:
    stage, relay, _, _ = idle_pair(PORT_RESTRICTED)
    seen = Counter[Endpoint]()

    def eat(packet: Packet) -> int | None:
        if packet.data[:1] != bytes((Kind.RESET,)):
            return None
        seen[packet.destination] += 1
        return 0 if seen[packet.destination] <= lost else None

    relay.host.interfaces["eth0"].up.script = eat
    relay.restart()
    stage.run(lost * AGAIN + 0.5)
    assert relay.core.status()["nodes"] == 2
    stage.run(10.0)
    assert set(seen.values()) == {lost + 1}, "who is back is told no more"


def test_many_nodes_are_told_one_after_the_other_the_latest_first() -> None:
    stage, relay, _, _ = idle_pair(PORT_RESTRICTED)
    relay.crash()
    lately = unpack_all(relay.store[PLACES_KEY])
    before = min(place.heard_ms for place in lately)
    gone = [
        Place(number.to_bytes(8, "big"), number, 1, Endpoint("203.0.113.9", 1 + number), before - 1)
        for number in range(1, 3_001)
    ]
    relay.store[PLACES_KEY] = MAGIC + b"".join(map(pack, [*gone, *lately]))
    relay.start()
    stage.run(0.5)
    assert relay.core.status()["nodes"] == 2
    for _ in range(10):
        before = relay.core.recall.sent
        stage.run(1.0)
        assert 0.9 * RS_RECALL_RATE <= relay.core.recall.sent - before <= 1.05 * RS_RECALL_RATE
