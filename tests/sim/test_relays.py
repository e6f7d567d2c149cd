"""Relays of a domain: which one a pair gets, and what happens when one leaves."""

from __future__ import annotations

import pytest

from ntmd.proto.io import UserAsked
from tests.sim.link import Packet, Shape
from tests.sim.nat import SYMMETRIC
from tests.sim.node import SimNode
from tests.sim.servers import SimServer
from tests.sim.story import Stage


def pair(stage: Stage) -> tuple[SimNode, SimNode]:
    """Two nodes that can meet over a relay only."""
    laptop, desk = (stage.node(name, stage.world.home(SYMMETRIC)) for name in ("laptop", "desk"))
    stage.all_up()
    return laptop, desk


def drain(relay: SimServer, *, on: bool = True) -> None:
    """``ntm-server drain``."""
    relay.post(UserAsked(1, "drain", {"on": on}))


def relay_of(stage: Stage, node: SimNode, peer: SimNode) -> str:
    """The relay that the node sends to its peer by."""
    for entry in stage.status(node)["peers"]:
        if entry["name"] == peer.name:
            return str(entry["path"]["relay"])
    return "none"


def lost(stage: Stage, sender: SimNode, receiver: SimNode) -> int:
    """How many numbered packets have not arrived."""
    return stage.streamed(sender) - len(receiver.inner.times("udp", sender.address))


def test_a_peer_that_is_dropped_gives_its_leg_back() -> None:
    stage = Stage(2)
    relay = stage.domain().rs
    laptop, desk = pair(stage)
    stage.first_answer(laptop, desk)
    stage.run(2.0)
    assert len(relay.core.table) == 2
    tunnels = laptop.core.tunnels
    tunnels.drop(tunnels.all()[0], laptop.host.now)
    laptop.post(laptop.host.network_state())
    stage.run(1.0)
    assert len(relay.core.table) == 1


def test_legs_of_a_draining_relay_move_without_loss() -> None:
    stage = Stage(2)
    domain = stage.domain()
    relays = {"rs.home.test": domain.rs, "rs2.home.test": stage.relay("rs2")}
    laptop, desk = pair(stage)
    stage.first_answer(laptop, desk)
    before = relay_of(stage, laptop, desk)
    leaving, staying = relays.pop(before), next(iter(relays.values()))
    for sender, receiver in ((laptop, desk), (desk, laptop)):
        stage.stream(sender, receiver, 600)
    stage.run(1.0)
    drain(leaving)
    stage.run(3.0)
    assert {relay_of(stage, *ends) for ends in ((laptop, desk), (desk, laptop))} == set(relays)
    forwarded = leaving.core.table.packets
    stage.run(1.0)
    assert leaving.core.table.packets == forwarded
    assert leaving.answers[0].result["draining"]
    leaving.crash()
    stage.run(3.0)
    assert lost(stage, laptop, desk) == lost(stage, desk, laptop) == 0
    assert staying.core.table.packets > 800
    assert not staying.core.table.drops.get("not_open")


def test_a_relay_that_joined_later_takes_over() -> None:
    """Nobody has a leg elsewhere when the only relay drains: the coordinator is asked."""
    stage = Stage(3)
    leaving = stage.domain().rs
    laptop, desk = pair(stage)
    stage.first_answer(laptop, desk)
    staying = stage.relay("rs2")
    for sender, receiver in ((laptop, desk), (desk, laptop)):
        stage.stream(sender, receiver, 900)
    stage.run(1.0)
    drain(leaving)
    stage.run(5.0)
    assert relay_of(stage, laptop, desk) == relay_of(stage, desk, laptop) == "rs2.home.test"
    leaving.crash()
    stage.run(4.0)
    assert lost(stage, laptop, desk) == lost(stage, desk, laptop) == 0
    assert staying.core.table.packets > 500


def test_the_only_relay_may_drain_and_stay() -> None:
    stage = Stage(4)
    relay = stage.domain().rs
    laptop, desk = pair(stage)
    stage.first_answer(laptop, desk)
    stage.stream(laptop, desk, 800)
    drain(relay)
    stage.run(4.0)
    late = stage.node("late", stage.world.home(SYMMETRIC))
    stage.run(2.0)
    stage.first_answer(late, desk)  # better a relay that leaves than none
    drain(relay, on=False)
    stage.run(6.0)
    assert not relay.core.status()["draining"]
    assert lost(stage, laptop, desk) == 0
    assert relay_of(stage, laptop, desk) == "rs.home.test"


def test_who_comes_while_a_relay_drains_gets_the_other_one() -> None:
    stage = Stage(5)
    leaving = stage.domain().rs
    staying = stage.relay("rs2")
    laptop, desk = pair(stage)
    drain(leaving)
    stage.run(1.0)
    late = stage.node("late", stage.world.home(SYMMETRIC))
    stage.run(2.0)
    before = leaving.core.table.packets
    stage.first_answer(late, desk)
    stage.first_answer(laptop, desk)
    assert leaving.core.table.packets == before
    assert staying.core.table.packets > 0
    homes = {entry["home_relay"] for entry in nodes_at(stage)}
    assert homes == {"rs2.home.test"}


def nodes_at(stage: Stage) -> list[dict[str, str]]:
    """What the coordinator knows of its nodes."""
    dc = stage.domains["home.test"].dc
    dc.post(UserAsked(9, "nodes", {}))
    result = dc.answers[-1].result
    assert isinstance(result, list)
    return result


def test_a_pair_meets_at_the_relay_that_is_nearest_to_both() -> None:
    stage = Stage(6)
    stage.domain()
    stage.relay("far", shape=Shape(delay=0.080))
    stage.relay("middle", shape=Shape(delay=0.030))
    laptop, desk = pair(stage)
    stage.first_answer(laptop, desk)
    stage.run(3.0)
    assert relay_of(stage, laptop, desk) == relay_of(stage, desk, laptop) == "rs.home.test"


def test_the_second_relay_carries_when_the_first_is_killed() -> None:
    stage = Stage(7)
    domain = stage.domain()
    relays = {"rs.home.test": domain.rs, "rs2.home.test": stage.relay("rs2")}
    laptop, desk = pair(stage)
    stage.first_answer(laptop, desk)
    stage.stream(laptop, desk, 1000)
    stage.run(2.0)
    domain.dc.crash()  # nobody to ask
    relays.pop(relay_of(stage, laptop, desk)).crash()
    stage.run(9.0)
    arrived = desk.inner.times("udp", laptop.address)
    assert max(arrived) == 999
    assert desk.inner.longest_gap("udp") < 0.4


@pytest.mark.parametrize("delay", [0.02, 0.2, 0.4, 0.8, 1.2])
def test_the_way_there_dies_while_the_way_back_carries_on(delay: float) -> None:
    """Data of the peer proves nothing of the own way to it, however long a round trip is."""
    stage = Stage(7)
    relays = {"rs.home.test": stage.domain().rs, "rs2.home.test": stage.relay("rs2")}
    laptop = stage.node("laptop", stage.world.home(SYMMETRIC), shape=Shape(delay=delay))
    desk = stage.node("desk", stage.world.home(SYMMETRIC))
    stage.all_up()
    stage.first_answer(laptop, desk, within=15.0)
    stage.stream(laptop, desk, 3000)
    stage.stream(desk, laptop, 3000)
    stage.run(5.0)
    dead = set(relays[relay_of(stage, laptop, desk)].host.interfaces["eth0"].addresses.values())

    def fate(packet: Packet) -> int | None:
        return 0 if packet.destination.host in dead else None

    laptop.host.interfaces["eth0"].up.script = fate
    stage.run(25.0 + 4 * delay)
    assert max(desk.inner.times("udp", laptop.address), default=0) == 2999
    assert desk.inner.longest_gap("udp") < 1.0 + 8 * delay
