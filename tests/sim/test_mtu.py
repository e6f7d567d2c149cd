"""Paths that carry less than their links: found, watched, and never a black hole (rule S5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ntmd.proto.timing import MTU_RAISE, TUN_MTU
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage
from tests.sim.test_move import pair

LARGE = 1340  # payload of a packet of 1,388 bytes: nearly what the TUN takes


def narrow(node: SimNode, mtu: int) -> None:
    """Something on the way carries less from now on, and tells nobody."""
    for link in (node.host.interfaces["eth0"].up, node.host.interfaces["eth0"].down):
        link.shape = replace(link.shape, mtu=mtu)


def narrow_pair(kind: NatKind | str, mtu: int) -> tuple[Stage, SimNode, SimNode]:
    """Laptop and desk; the way to the laptop is narrow from the beginning, its link is not."""
    stage = Stage(1)
    stage.domain()
    nodes = []
    for label in ("laptop", "desk"):
        network, families = stage.place(kind)
        nodes.append(stage.node(label, network, families=families, shape=NODE_LINK))
    narrow(nodes[0], mtu)
    stage.all_up()
    return stage, nodes[0], nodes[1]


def mtu_of(stage: Stage, node: SimNode, peer: SimNode) -> int:
    """``path.mtu`` of ``ntmd status``."""
    for entry in stage.status(node)["peers"]:
        if entry["name"] == peer.name:
            return int(entry["path"]["mtu"])
    raise AssertionError("no such peer")


def bulk(
    stage: Stage,
    sender: SimNode,
    to: SimNode,
    seconds: float,
    first: int = 0,
    size: int = LARGE,
) -> None:
    """A packet of nearly the TUN's size every 5 ms."""
    for number in range(int(seconds * 200)):
        stage.world.clock.after(
            number * 0.005,
            lambda n=first + number: sender.inner.udp(to.address, n, size),  # type: ignore[misc]
        )


@pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC], ids=["direct", "relay"])
@pytest.mark.parametrize("mtu", [1500, 1492, 1400, 1280])
def test_the_size_of_a_path_is_found_and_nothing_is_lost_meanwhile(kind: NatKind, mtu: int) -> None:
    stage, laptop, desk = narrow_pair(kind, mtu)
    bulk(stage, laptop, desk, 3.0)
    stage.run(4.0)
    assert len(desk.inner.times("udp")) == 600
    assert desk.inner.bad == []
    assert mtu_of(stage, laptop, desk) == mtu
    assert stage.path_kind(laptop, desk) == ("direct" if kind is PORT_RESTRICTED else "relay")


@pytest.mark.parametrize("chatty", [False, True], ids=["one way", "answers on"])
def test_bulk_goes_on_when_a_path_becomes_narrow_and_nobody_says_so(chatty: bool) -> None:
    stage, laptop, desk = pair()
    bulk(stage, laptop, desk, 8.0)
    if chatty:  # small packets pass both ways, so nothing falls silent
        for number in range(400):
            stage.world.clock.after(
                number * 0.02,
                lambda n=number: desk.inner.ping(laptop.address, 1000 + n),  # type: ignore[misc]
            )
    stage.run(3.0)
    assert mtu_of(stage, laptop, desk) == 1500
    narrow(laptop, 1280)
    at = stage.world.clock.now
    stage.run(6.0)
    assert desk.inner.longest_gap("udp", at - 0.1) <= 1.5
    assert mtu_of(stage, laptop, desk) == 1280
    assert laptop.inner.bad == desk.inner.bad == []


def test_silence_after_little_data_finds_it_at_once() -> None:
    """A few large packets and nothing after them, as from an inner TCP that waits for its timer."""
    stage, laptop, desk = pair(PORT_RESTRICTED, PORT_RESTRICTED)
    stage.first_answer(laptop, desk)
    bulk(stage, desk, laptop, 1.0)
    stage.run(4)
    assert mtu_of(stage, desk, laptop) == 1500
    narrow(laptop, 1400)
    for number in range(10):
        desk.inner.udp(laptop.address, 1000 + number, LARGE)
        stage.run(0.05)
    stage.run(0.5)
    assert mtu_of(stage, desk, laptop) == 1400
    desk.inner.udp(laptop.address, 2000, LARGE)
    stage.run(0.1)
    assert 2000 in laptop.inner.times("udp")


def test_loss_is_not_taken_for_a_narrow_path() -> None:
    stage, laptop, desk = pair(shape=replace(NODE_LINK, loss=0.05))
    bulk(stage, laptop, desk, 30.0)
    stage.run(31.0)
    assert mtu_of(stage, laptop, desk) == 1500
    assert len(desk.inner.times("udp")) > 6000 * 0.85


def test_a_path_that_became_wider_is_used_in_full_after_a_while() -> None:
    stage, laptop, desk = pair()
    narrow(laptop, 1400)
    bulk(stage, laptop, desk, 2.0)
    stage.run(3.0)
    assert mtu_of(stage, laptop, desk) == 1400
    narrow(laptop, 1500)
    stage.run(MTU_RAISE)
    bulk(stage, laptop, desk, 2.0, 1000)
    stage.run(3.0)
    assert mtu_of(stage, laptop, desk) == 1500


def test_an_idle_tunnel_asks_for_nothing() -> None:
    stage, laptop, desk = pair()
    bulk(stage, laptop, desk, 1.0)
    stage.run(5.0)
    before = laptop.sent_to.total()
    stage.run(10.0)
    assert laptop.sent_to.total() - before < 1200


@pytest.mark.parametrize("mtu", [1500, 1492, 1480])
def test_full_packets_cross_usual_access_lines_unfragmented(mtu: int) -> None:
    """Over IPv6, which takes most: PPPoE and 464XLAT (rule N2)."""
    stage, laptop, desk = narrow_pair("v6 open", mtu)
    bulk(stage, laptop, desk, 1.0, size=TUN_MTU - 48)
    stage.run(1.0)
    before = laptop.plane.gauges["fragments"]
    bulk(stage, laptop, desk, 3.0, first=200, size=TUN_MTU - 48)
    stage.run(4.0)
    assert laptop.plane.gauges["fragments"] == before
    assert len(desk.inner.times("udp")) == 800
    assert mtu_of(stage, laptop, desk) == mtu
