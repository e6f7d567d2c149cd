"""First contact: two nodes that never met, in every pair of networks, by name, from cold."""

from __future__ import annotations

import itertools

import pytest

from tests.sim.nat import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
)
from tests.sim.node import SimNode
from tests.sim.town import Town

PLACES = {
    "public": None,
    "full cone": FULL_CONE,
    "address restricted": ADDRESS_RESTRICTED,
    "port restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
    "v6 only": None,
}
NAT_RTT = 0.040  # node to node: two access links of 10 ms each way


def place(town: Town, name: str, where: str) -> SimNode:
    """A node in one of the places; all but the v6-only one have IPv4 alone."""
    if where == "public":
        return town.node(name, families=(4,))
    if where == "v6 only":
        return town.node(name, town.behind(None, v6=True))
    return town.node(name, town.behind(PLACES[where]))


def may_be_direct(one: str, other: str) -> bool:
    """What RFC 4787 allows without port prediction."""
    pair = {one, other}
    if "v6 only" in pair:
        return one == other
    if "symmetric" in pair:
        # a changing mapping is followed only where the other side does not filter by port
        return bool(pair & {"public", "full cone", "address restricted"})
    return True


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.product(PLACES, PLACES)), ids=lambda where: where
)
def test_first_contact(one: str, other: str) -> None:
    town = Town(7)
    town.domain("home.test")
    town.run(1)
    laptop, desk = place(town, "laptop", one), place(town, "desk", other)
    town.up(laptop, desk)
    address, took = town.resolve(laptop, "desk.home.test")
    assert address == desk.address
    assert took <= 4 * NAT_RTT + 0.1
    began = town.world.clock.now
    laptop.inner.ping(desk.address, 1)
    assert town.run(1, lambda: 1 in laptop.inner.times("echo"))
    assert town.world.clock.now - began <= 0.1
    town.run(3)
    kind = town.path_kind(laptop, "desk.home.test")
    assert kind == ("direct" if may_be_direct(one, other) else "relay")
    desk.inner.ping(laptop.address, 2)
    assert town.run(1, lambda: 2 in desk.inner.times("echo"))
    assert not laptop.inner.bad
    assert not desk.inner.bad


def test_a_name_nobody_has_is_an_honest_no() -> None:
    town = Town(7)
    town.domain("home.test")
    town.run(1)
    laptop = town.node("laptop", town.behind(PORT_RESTRICTED))
    town.up(laptop)
    address, took = town.resolve(laptop, "nobody.home.test")
    assert address is None
    assert took < 1
    (answer,) = laptop.names.values()
    assert not answer.exists


def test_first_packet_without_a_name_opens_the_tunnel_too() -> None:
    town = Town(7)
    town.domain("home.test")
    town.run(1)
    laptop = town.node("laptop", town.behind(PORT_RESTRICTED))
    desk = town.node("desk", town.behind(SYMMETRIC))
    town.up(laptop, desk)
    laptop.inner.ping(desk.address, 1)
    assert town.run(2, lambda: 1 in laptop.inner.times("echo"))
