"""What an idle node costs where some of its links let no UDP pass (rules S6, S12)."""

from __future__ import annotations

from dataclasses import replace

from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage
from tests.sim.test_udp_blocked import UdpEater

WHILE = 600.0  # seconds that are looked at
SHORT = replace(PORT_RESTRICTED, expiry=40.0, preserve=False)  # keep-alives every 20 s


def two_links(kind: NatKind, *, passes: bool) -> tuple[Stage, SimNode, UdpEater]:
    """A laptop whose preferred link lets no UDP pass, and whether the other one does; both speak
    both families. Its tunnel is idle. Also the firewall of the preferred one."""
    stage = Stage(7, keep_trace=False)
    stage.domain(tls=True)
    stage.relay("rs2", tls=True)
    home, hotel = stage.world.home(kind, v6=True), stage.world.home(PORT_RESTRICTED, v6=True)
    eater = UdpEater(hotel)
    if not passes:
        UdpEater(home)
    laptop = stage.node("laptop", home, families=(4, 6))
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    stage.first_answer(laptop, desk)
    laptop.host.attach("wlan0", hotel, NODE_LINK, metric=50, families=(4, 6))
    stage.run(260.0)
    return stage, laptop, eater


def cost(stage: Stage, node: SimNode) -> tuple[int, int]:
    """Bytes, both ways and with IP headers, and turns of ``node`` while nothing happens."""
    links = [link for i in node.host.interfaces.values() for link in (i.up, i.down)]
    size, turns = sum(link.bytes for link in links), node.turns
    stage.run(WHILE)
    return sum(link.bytes for link in links) - size, node.turns - turns


def test_two_links_without_udp_are_asked_sparingly() -> None:
    """Three servers over TLS; UDP is tried on two links in two families for each."""
    stage, laptop, _ = two_links(PORT_RESTRICTED, passes=False)
    size, turns = cost(stage, laptop)
    assert 0 < size <= 16_500
    assert 0 < turns <= 60


def test_a_spare_link_without_udp_costs_little() -> None:
    """Two thirds are the keep-alives of the link in use, every 20 s; the other is asked every
    minute."""
    stage, laptop, _ = two_links(SHORT, passes=True)
    size, turns = cost(stage, laptop)
    assert 0 < size <= 27_000
    assert 0 < turns <= 180


def test_a_preferred_link_that_lets_udp_pass_at_last_is_gone_to() -> None:
    """It never answered before; it is asked once a minute, or with the next keep-alive."""
    stage, laptop, eater = two_links(SHORT, passes=True)
    stage.run(WHILE)
    eater.on = False

    def moved() -> bool:
        path = laptop.core.shift.server().path
        return laptop.core.underlay.interface(path.socket) == "wlan0"

    assert not moved()
    assert stage.world.run(60.0 + 20.0 + 1.0, moved)


def test_udp_on_both_links_is_noticed_within_a_minute() -> None:
    stage, laptop, eater = two_links(PORT_RESTRICTED, passes=False)
    stage.run(WHILE)
    eater.on = False
    assert stage.world.run(61.0, lambda: not laptop.core.shift.server().race.carries)


def test_the_first_server_that_is_heard_over_udp_has_the_others_tried_at_once() -> None:
    """The one copy towards each relay is lost; that towards the coordinator is not."""
    stage, laptop, eater = two_links(PORT_RESTRICTED, passes=False)
    stage.run(WHILE)
    dc = stage.domains["home.test"].dc.host.interfaces["eth0"].addresses.values()
    down = laptop.host.interfaces["wlan0"].down
    down.script = lambda packet: None if packet.tcp or packet.source.host in dc else 0
    eater.on = False

    def over_tls() -> int:
        return sum(uplink.race.carries for uplink in laptop.core.shift.uplinks())

    assert over_tls() == 3
    assert stage.world.run(61.0, lambda: over_tls() == 2)
    down.script = None
    assert stage.world.run(1.0, lambda: over_tls() == 0)


def test_no_connection_is_opened_where_a_preferred_link_needed_one_and_another_carries() -> None:
    """What counts is the network of the way that was asked, not of the best link."""
    stage = Stage(7, keep_trace=False)
    stage.domain(tls=True)
    hotel = stage.world.home(PORT_RESTRICTED)
    UdpEater(hotel)
    laptop = stage.node("laptop", hotel)
    stage.all_up()
    assert laptop.core.shift.server().race.carries
    laptop.host.attach("wlan0", stage.world.home(SHORT), NODE_LINK, metric=600)
    stage.run(260.0)
    assert not laptop.core.shift.server().race.carries
    streams = laptop.core.underlay.streams
    opened: list[object] = []
    streams.open = lambda *args: opened.append(args) or 0  # type: ignore[method-assign,func-returns-value]
    stage.run(WHILE)
    assert not opened


def test_one_server_that_needs_tls_makes_no_other_open_connections() -> None:
    """A firewall eats UDP towards the coordinator only, after the relays were heard over UDP."""
    stage = Stage(7, keep_trace=False)
    domain = stage.domain(tls=True)
    laptop = stage.node("laptop", stage.world.home(SHORT))
    stage.all_up()
    there = domain.dc.host.interfaces["eth0"].addresses.values()
    elsewhere: list[Packet] = []

    def fate(packet: Packet) -> int | None:
        if packet.destination.host in there:
            return None if packet.tcp else 0
        if packet.tcp:
            elsewhere.append(packet)
        return None

    laptop.host.interfaces["eth0"].up.script = fate
    stage.run(260.0)
    carried = [uplink.race.carries for uplink in laptop.core.shift.uplinks()]
    assert carried.count(True) == 1
    elsewhere.clear()
    stage.run(WHILE)
    assert not elsewhere
