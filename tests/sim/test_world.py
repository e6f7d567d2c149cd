"""The simulator's own ground: NATs by RFC 4787, links, the clock, the trace."""

from __future__ import annotations

from functools import partial

import pytest

from ntmd.node.inputs import NetworkChanged
from ntmd.proto.types import Endpoint, NatFiltering, NatMapping
from tests.sim.link import Shape
from tests.sim.machine import Host, Socket
from tests.sim.nat import (
    ADDRESS_RESTRICTED,
    ADDRESS_SYMMETRIC,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    NatKind,
)
from tests.sim.world import Network, World


class Talker:
    """A host with one socket that remembers what came."""

    def __init__(self, host: Host, network: Network, port: int = 5000, family: int = 4) -> None:
        self.host = host
        host.attach("eth0", network, route_after=0.0)
        self.got: list[tuple[bytes, Endpoint]] = []
        self.socket = host.bind(Socket(family, port, self._receive, interface="eth0"))

    @property
    def at(self) -> Endpoint:
        return self.host.local(self.socket)

    def _receive(self, data: bytes, source: Endpoint) -> None:
        self.got.append((data, source))

    def say(self, data: bytes, to: Endpoint) -> None:
        assert self.host.send(self.socket, data, to) == 0


def prober(world: World, name: str) -> Talker:
    return Talker(world.host(name), world.internet)


def mapped(world: World, inside: Talker, server: Talker) -> Endpoint:
    server.got.clear()
    inside.say(b"who am I", server.at)
    world.run(1)
    return server.got[0][1]


MAPPINGS = [
    (FULL_CONE, True, True),
    (ADDRESS_RESTRICTED, True, True),
    (PORT_RESTRICTED, True, True),
    (ADDRESS_SYMMETRIC, False, True),
    (SYMMETRIC, False, False),
]


@pytest.mark.parametrize(("kind", "over_addresses", "over_ports"), MAPPINGS)
def test_mapping_is_what_an_independent_prober_measures(
    kind: NatKind, over_addresses: bool, over_ports: bool
) -> None:
    world = World(3)
    one, two = prober(world, "one"), prober(world, "two")
    second_port = Talker.__new__(Talker)
    second_port.host, second_port.got = one.host, []
    second_port.socket = one.host.bind(Socket(4, 5001, second_port._receive, interface="eth0"))
    inside = Talker(world.host("inside"), world.home(kind))
    first = mapped(world, inside, one)
    assert (mapped(world, inside, two) == first) is over_addresses
    assert (mapped(world, inside, second_port) == first) is over_ports


@pytest.mark.parametrize(
    ("kind", "from_stranger", "from_other_port"),
    [
        (FULL_CONE, True, True),
        (ADDRESS_RESTRICTED, False, True),
        (PORT_RESTRICTED, False, False),
        (ADDRESS_SYMMETRIC, False, True),
        (SYMMETRIC, False, False),
    ],
)
def test_filtering(kind: NatKind, from_stranger: bool, from_other_port: bool) -> None:
    world = World(3)
    known, stranger = prober(world, "known"), prober(world, "stranger")
    inside = Talker(world.host("inside"), world.home(kind))
    outside = mapped(world, inside, known)
    stranger.say(b"stranger", outside)
    other = known.host.bind(Socket(4, 5001, lambda *_: None, interface="eth0"))
    known.host.send(other, b"other port", outside)
    known.say(b"answer", outside)
    world.run(1)
    heard = [data for data, _ in inside.got]
    assert (b"stranger" in heard) is from_stranger
    assert (b"other port" in heard) is from_other_port
    assert b"answer" in heard


def test_a_mapping_expires_and_a_rebinding_gives_another_port() -> None:
    world = World(4)
    server = prober(world, "server")
    home = world.home(NatKind(expiry=30.0))
    inside = Talker(world.host("inside"), home)
    first = mapped(world, inside, server)
    world.run(20)
    assert mapped(world, inside, server) == first
    world.run(31)
    server.say(b"too late", first)
    world.run(1)
    assert inside.got == []
    second = mapped(world, inside, server)
    assert home.gateway is not None
    home.gateway.rebind()
    third = mapped(world, inside, server)
    assert third != second
    home.gateway.rebind(new_address=True)
    assert mapped(world, inside, server).host != third.host


@pytest.mark.parametrize("turns", [True, False])
def test_hairpin(turns: bool) -> None:
    world = World(5)
    server = prober(world, "server")
    home = world.home(NatKind(filtering=NatFiltering.ENDPOINT_INDEPENDENT, hairpin=turns))
    one, two = Talker(world.host("one"), home), Talker(world.host("two"), home)
    outside = mapped(world, two, server)
    one.say(b"round the corner", outside)
    world.run(1)
    assert [data for data, _ in two.got] == ([b"round the corner"] if turns else [])
    if turns:
        assert two.got[0][1].host == outside.host  # the external source, REQ-9


def test_cascade_of_nats_translates_twice() -> None:
    world = World(6)
    server = prober(world, "server")
    provider = world.home(SYMMETRIC)
    inside = Talker(world.host("inside"), world.home(PORT_RESTRICTED, outside=provider))
    source = mapped(world, inside, server)
    server.say(b"back", source)
    world.run(1)
    assert inside.got == [(b"back", server.at)]
    assert source.host.startswith("198.1")


def test_v6_firewall_lets_answers_in_only() -> None:
    world = World(7)
    server = Talker(world.host("server"), world.internet, family=6)
    stranger = Talker(world.host("stranger"), world.internet, family=6)
    inside = Talker(world.host("inside"), world.home(None, v6=True), family=6)
    stranger.say(b"hello?", inside.at)
    world.run(1)
    assert mapped(world, inside, server) == inside.at
    server.say(b"answer", inside.at)
    stranger.say(b"hello?", inside.at)
    world.run(1)
    assert inside.got == [(b"answer", server.at)]


def test_families_do_not_mix() -> None:
    world = World(8)
    six = Talker(world.host("six"), world.internet, family=6)
    assert six.host.send(six.socket, b"x", Endpoint("198.18.0.9", 1)) != 0


def test_link_loses_duplicates_reorders_and_counts() -> None:
    world = World(9)
    one, two = prober(world, "one"), prober(world, "two")
    up = one.host.interfaces["eth0"].up
    up.shape = Shape(delay=0.01, jitter=0.005, loss=0.1, duplicate=0.1, reorder=0.1)
    for number in range(1000):
        data = number.to_bytes(2, "big")
        world.clock.after(number * 0.001, partial(one.say, data, two.at))
    world.run(3)
    order = [int.from_bytes(data, "big") for data, _ in two.got]
    assert 850 <= len(set(order)) <= 950
    assert len(order) > len(set(order)) + 50
    assert order != sorted(order)
    assert up.drops["loss"] == 1000 - len(set(order))
    assert up.packets == len(order)


def test_mtu_of_the_link_and_of_the_way() -> None:
    world = World(10)
    one, two = prober(world, "one"), prober(world, "two")
    two.host.interfaces["eth0"].down.shape = Shape(mtu=1280)
    one.say(bytes(1252), two.at)
    one.say(bytes(1253), two.at)
    world.run(1)
    assert [len(data) for data, _ in two.got] == [1252]
    assert one.host.send(one.socket, bytes(1473), two.at) != 0


def test_moving_host_gets_fresh_addresses_and_loses_what_was_on_its_way() -> None:
    world = World(11)
    one, two = prober(world, "one"), prober(world, "two")
    old = one.at
    two.say(b"late", old)
    changes: list[NetworkChanged] = []
    one.host.on_change = changes.append
    one.host.move("eth0", world.internet)
    world.run(1)
    assert one.got == []
    assert one.at.host != old.host
    assert changes[-1].interfaces[0].addresses[0].address == one.at.host
    one.say(b"here", two.at)
    world.run(1)
    assert two.got == [(b"here", one.at)]


def test_same_seed_same_trace() -> None:
    def story(seed: int) -> str:
        world = World(seed)
        one, two = prober(world, "one"), prober(world, "two")
        one.host.interfaces["eth0"].up.shape = Shape(jitter=0.01, loss=0.2)
        for number in range(50):
            one.say(bytes([number]), two.at)
        world.run(1)
        return world.trace.digest()

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_mapping_words_cover_rfc_4787() -> None:
    kinds = {kind.mapping for kind, _, _ in MAPPINGS}
    assert kinds == {
        NatMapping.ENDPOINT_INDEPENDENT,
        NatMapping.ADDRESS_DEPENDENT,
        NatMapping.ADDRESS_AND_PORT_DEPENDENT,
    }
