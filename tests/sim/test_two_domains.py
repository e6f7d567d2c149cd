"""Two domains under one platform: the coordinators find each other by DNS and exchange."""

from __future__ import annotations

from dataclasses import replace

from ntmd.proto.types import Endpoint
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.town import Town


def two_domains() -> tuple[Town, SimNode, SimNode]:
    town = Town(11)
    town.domain("home.test")
    town.domain("lab.test")
    town.run(1)
    laptop = town.node("laptop", town.behind(PORT_RESTRICTED))
    desk = town.node("desk", town.behind(PORT_RESTRICTED), domain="lab.test")
    town.up(laptop, desk)
    return town, laptop, desk


def test_a_call_crosses_domains() -> None:
    town, laptop, desk = two_domains()
    address, took = town.resolve(laptop, "desk.lab.test")
    assert address == desk.address
    assert took <= 7 * 0.04 + 0.3
    laptop.inner.ping(desk.address, 1)
    assert town.run(1, lambda: 1 in laptop.inner.times("echo"))
    town.run(3)
    assert town.path_kind(laptop, "desk.lab.test") == "direct"


def test_without_dns_and_directory_the_answer_is_an_honest_failure() -> None:
    town, laptop, _ = two_domains()
    town.dns_works = False
    address, took = town.resolve(laptop, "desk.lab.test")
    assert address is None
    assert took < 5


def test_the_account_servers_directory_helps_when_dns_is_silent() -> None:
    town, laptop, desk = two_domains()
    town.dns_works = False
    town.directory()
    address, _ = town.resolve(laptop, "desk.lab.test")
    assert address == desk.address


def test_poisoned_dns_leads_nowhere() -> None:
    town, laptop, _ = two_domains()
    (target,) = town.dns_entries["lab.test"]
    (own,) = town.dns_entries["home.test"]
    mallory = town.world.host("mallory")
    attached = mallory.attach("eth0", town.world.internet, town.shape)
    lie = Endpoint(attached.addresses[4], 4330)
    town.dns_entries["lab.test"] = (replace(target, endpoints=(lie,)),)
    address, _ = town.resolve(laptop, "desk.lab.test")
    assert address is None
    # towards a coordinator of another domain, with that one's true key
    town.dns_entries["lab.test"] = (replace(own, name=target.name),)
    address, _ = town.resolve(laptop, "other.lab.test")
    assert address is None
