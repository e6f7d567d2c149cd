"""A NAT forgets its mappings under a busy flow, between restricted NATs: when does each end notice?

Each node looks at its flows ten times a second, at instants of its own; what one end finds out must
not keep the other one from finding out too.
"""

from __future__ import annotations

import pytest

from ntmd.node.path import RTT_UNKNOWN
from ntmd.proto.frame import Kind
from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage
from tests.sim.world import Router

STEP = 0.02  # seconds between the datagrams of a call
PHASES = [number * 0.01 for number in range(11)]  # of the looks, against the event; seconds


def call(phase: float) -> tuple[Stage, SimNode, SimNode]:
    """Laptop and desk, both sending on their direct way for a while."""
    stage = Stage(2)
    stage.domain()
    laptop, desk = (
        stage.node(name, stage.world.home(PORT_RESTRICTED), shape=NODE_LINK)
        for name in ("laptop", "desk")
    )
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(2)
    assert stage.path_kind(laptop, desk) == "direct"
    stage.stream(laptop, desk, 400, STEP)
    stage.run(0.007)
    stage.stream(desk, laptop, 400, STEP)
    stage.run(3 + phase)
    return stage, laptop, desk


def gateway(node: SimNode) -> Router:
    """The NAT box that the node is behind."""
    found = node.host.interfaces["eth0"].network.gateway
    assert found is not None
    return found


@pytest.mark.parametrize("phase", PHASES)
def test_a_question_over_the_relay_does_not_hide_that_the_direct_way_is_silent(
    phase: float,
) -> None:
    """Both directions are gone; the laptop's questions come over the relay first."""
    stage, laptop, desk = call(phase)
    gateway(laptop).rebind(new_address=True)
    stage.run(3)
    for node in (laptop, desk):
        assert node.inner.longest_gap("udp") <= 0.4


@pytest.mark.parametrize("phase", PHASES)
def test_what_only_the_receiver_can_notice_the_sender_finds_by_its_questions(phase: float) -> None:
    """The desk's datagrams vanish on the direct way, the laptop's go on arriving there."""
    stage, laptop, desk = call(phase)
    ends = [gateway(node).nat for node in (desk, laptop)]
    source, gone = (nat.address for nat in ends if nat is not None)

    def tap(packet: Packet) -> bool | None:
        here = packet.source.host == source and packet.destination.host == gone
        return False if here else None

    stage.world.internet.taps.append(tap)
    stage.run(3)
    assert desk.inner.longest_gap("udp") <= 0.1
    assert laptop.inner.longest_gap("udp") <= 0.6


@pytest.mark.parametrize("early", [0.001, 0.01, 0.1])
def test_a_stray_from_another_port_just_before_does_not_hide_the_silence(early: float) -> None:
    """A NAT that forgets while datagrams are under way may give one of them another source port: a
    switch to there is begun, and nothing answers, neither there nor on the way before. The silence
    is noticed ``early`` seconds before the switch is given up."""
    stage, laptop, desk = call(0.0)
    eth = laptop.host.interfaces["eth0"]
    inside, here = eth.network, eth.addresses[4]
    tunnel, doubts = laptop.core.tunnels.by_name(desk.name), laptop.core.steering.doubts
    strays: list[Packet] = []

    def tap(packet: Packet) -> bool | None:
        if strays or packet.data[0] != Kind.DATA.value or packet.destination.host != here:
            return None
        at = packet.source
        strays.append(packet._replace(source=at._replace(port=at.port + 1)))
        inside.forward(strays[0])
        gateway(laptop).rebind(new_address=True)
        return False

    inside.taps.append(tap)
    while len(tunnel.paths.sending) < 2:
        stage.run(0.001)
    stage.run(3 * RTT_UNKNOWN - early)
    doubts.doubt(tunnel, laptop.core.common.now)
    stage.run(3)
    for node in (laptop, desk):
        assert node.inner.longest_gap("udp") <= 0.4


@pytest.mark.parametrize("phase", PHASES)
def test_the_direct_way_is_back_as_soon_as_a_server_shows_the_new_mapping(phase: float) -> None:
    """Own doubt, the new address for the peer (over the relay, for the direct way is dead), and the
    peer's challenge to it, at once: not at the next look a second later."""
    stage, laptop, desk = call(phase)
    box = gateway(laptop).nat
    assert box is not None
    gateway(laptop).rebind(new_address=True)
    stage.run(0.4)
    primary = desk.core.tunnels.by_name(laptop.name).paths.primary
    assert primary is not None
    assert primary.remote.host == box.address
