"""Back in a network where this node was before: it begins with what worked there."""

from __future__ import annotations

from dataclasses import replace

from ntmd.node.memory import PLACES_KEPT
from ntmd.proto.timing import KEEPALIVE_FIRST
from ntmd.proto.types import NatMapping
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage
from tests.sim.test_mtu import bulk, mtu_of
from tests.sim.test_udp_blocked import UdpEater
from tests.sim.world import Network

STEP = 0.010


def between_two(
    office_kind: NatKind = PORT_RESTRICTED, *, v6: bool = False
) -> tuple[Stage, SimNode, SimNode, Network, Network]:
    """A laptop at home, a desk elsewhere, and an office where the laptop has never been."""
    stage = Stage(keep_trace=False)
    stage.domain(tls=True)
    home = stage.world.home(PORT_RESTRICTED)
    office = stage.world.home(office_kind, v6=v6)
    laptop = stage.node("laptop", home)
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(3.0)
    return stage, laptop, desk, home, office


def gap_of_a_move(stage: Stage, laptop: SimNode, desk: SimNode, to: Network) -> float:
    """Seconds without an arrival at the desk when the laptop moves while it sends."""
    stage.stream(laptop, desk, 600, STEP)
    stage.run(1.0)
    at = stage.world.clock.now
    laptop.host.move("eth0", to, NODE_LINK)
    stage.run(6.0)
    return desk.inner.longest_gap("udp", at - 0.1) - STEP


def test_tls_at_once_where_udp_was_blocked_and_never_where_it_was_not() -> None:
    stage, laptop, desk, home, hotel = between_two()
    UdpEater(hotel)
    first = gap_of_a_move(stage, laptop, desk, hotel)
    opened: list[bool] = []
    home.taps.append(lambda packet: opened.append(True) if packet.tcp else None)
    gap_of_a_move(stage, laptop, desk, home)
    assert opened == [], "UDP is known to pass at home"
    again = gap_of_a_move(stage, laptop, desk, hotel)
    assert again <= first - 0.25, (first, again)

    laptop.crash()
    stage.run(1.0)
    born = stage.world.clock.now
    laptop.start()
    assert stage.world.run(2.0, lambda: laptop.state == "up")
    assert stage.world.clock.now - born < 0.2, "it outlives the process"


def test_udp_that_passes_by_now_is_used_and_remembered() -> None:
    stage, laptop, desk, home, hotel = between_two()
    eater = UdpEater(hotel)
    for network in (hotel, home):
        gap_of_a_move(stage, laptop, desk, network)
    eater.on = False
    gap_of_a_move(stage, laptop, desk, hotel)
    place = laptop.core.underlay.places.here()
    assert (place.udp, place.tls) == (1, 0)


def test_a_nat_s_lifetime_is_measured_once() -> None:
    stage, laptop, _, home, office = between_two(replace(PORT_RESTRICTED, preserve=False))
    intervals, packets = [], []
    for network in (office, home, office):
        laptop.host.move("eth0", network, NODE_LINK)
        stage.run(10.0)
        intervals.append(laptop.core.keepalive.interval)
        before = laptop.host.interfaces["eth0"].up.packets
        stage.run(1200.0)
        packets.append(laptop.host.interfaces["eth0"].up.packets - before)
    assert intervals[0] == KEEPALIVE_FIRST
    assert intervals[2] > 3 * KEEPALIVE_FIRST
    assert packets[2] <= 0.75 * packets[0], packets


def test_a_router_that_was_restarted_once_is_not_held_against_its_network_for_ever() -> None:
    stage, laptop, _, home, office = between_two(replace(PORT_RESTRICTED, preserve=False))
    laptop.host.move("eth0", office, NODE_LINK)
    stage.run(30.0)
    assert office.gateway is not None
    office.gateway.rebind()
    stage.run(120.0)
    assert laptop.core.underlay.places.here().lapsed == KEEPALIVE_FIRST * 1000
    for network in (home, office, home, office):
        laptop.host.move("eth0", network, NODE_LINK)
        stage.run(600.0)
    assert laptop.core.keepalive.interval > KEEPALIVE_FIRST


def test_the_nat_s_kind_is_told_with_the_first_registration() -> None:
    stage, laptop, _, home, office = between_two(SYMMETRIC)
    kinds = {}
    for visit in range(2):
        laptop.host.move("eth0", office, NODE_LINK)
        stage.run(0.2)
        kinds[visit] = laptop.core.registration.nat.view().mapping
        stage.run(5.0)
        laptop.host.move("eth0", home, NODE_LINK)
        stage.run(5.0)
    mappings = list(NatMapping)
    assert mappings[kinds[0]] is not NatMapping.ADDRESS_AND_PORT_DEPENDENT
    assert mappings[kinds[1]] is NatMapping.ADDRESS_AND_PORT_DEPENDENT


def test_the_size_of_a_narrow_network_is_known_after_a_round_trip() -> None:
    stage, laptop, desk, home, office = between_two()
    took, probes = [], []
    for network in (office, home, office):
        laptop.host.move("eth0", network, NODE_LINK)
        entry = laptop.host.interfaces["eth0"]
        if network is office:
            for link in (entry.up, entry.down):
                link.shape = replace(link.shape, mtu=1400)
        stage.run(3.0)
        begun, dropped = stage.world.clock.now, entry.up.drops["too_big"]
        bulk(stage, laptop, desk, 3.0)
        wanted = 1400 if network is office else 1500
        assert stage.world.run(3.0, lambda w=wanted: mtu_of(stage, laptop, desk) == w)  # type: ignore[misc]
        if network is office:
            took.append(stage.world.clock.now - begun)
        stage.run(4.0)
        probes.append(entry.up.drops["too_big"] - dropped)
    assert took[1] <= took[0] - 0.15, took
    assert probes[2] < probes[0], probes


def test_a_family_that_leads_nowhere_is_not_tried_first_again() -> None:
    """The office's IPv4 is a dead end; IPv6 works."""
    stage, laptop, desk, home, office = between_two(v6=True)
    office.taps.append(lambda packet: False if packet.source.family == 4 else None)
    gaps = []
    for _ in range(2):
        gaps.append(gap_of_a_move(stage, laptop, desk, office))
        gap_of_a_move(stage, laptop, desk, home)
    assert gaps[1] <= gaps[0] - 0.015, gaps


def test_what_is_kept_is_bounded() -> None:
    stage, laptop, _, _, _ = between_two()
    memory = laptop.core.common.memory
    for number in range(100):
        memory.keep_place(f"10.9.{number}.1 10.9.{number}.0/24", (1, 0, 1, 1, 60_000, 0, 1500))
    laptop.ask("status")  # whatever comes in has the wishes carried out
    laptop.crash()
    stage.run(1.0)
    laptop.start()
    stage.run(3.0)
    places = laptop.core.common.memory.places
    assert len(places) == PLACES_KEPT
    assert "10.9.99.1 10.9.99.0/24" in places
    assert len(laptop.store["networks"]) < 3000
