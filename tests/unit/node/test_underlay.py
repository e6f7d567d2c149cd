"""Own sockets follow the underlay: one per interface, family and address."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any, cast

from ntmd.node.common import Common
from ntmd.node.inputs import NetworkChanged, UnderlayAddress, UnderlayInterface
from ntmd.node.settings import NodeSettings
from ntmd.node.timers import Timers
from ntmd.node.underlay import Underlay
from ntmd.proto.plane import CloseSocket, OpenSocket, SocketFailed, SocketOpened
from ntmd.proto.types import Endpoint


class Stand:
    """An underlay with its wishes, whose sockets open at once unless told otherwise."""

    def __init__(self) -> None:
        self.wishes: list[Any] = []
        self.timers = Timers()
        common = SimpleNamespace(
            settings=NodeSettings(metered=("wwan0",)),
            virtual_network=lambda: ipaddress.IPv6Network("fd12:3456:789a::/48"),
            emit=self.wishes.append,
            tell=lambda *_, **__: None,
            timers=self.timers,
        )
        self.underlay = Underlay(cast(Common, common))

    def change(self, *interfaces: UnderlayInterface, now: float = 1.0) -> Any:
        change = self.underlay.change(NetworkChanged(interfaces, now), now)
        for wish in self.take():
            if isinstance(wish, OpenSocket):
                self.underlay.opened(SocketOpened(wish.socket, Endpoint(wish.address, 4330)))
        return change

    def wait(self) -> None:
        """No route comes."""
        for number in list(self.underlay.sockets):
            self.underlay.without_route(number)

    def take(self) -> list[Any]:
        taken, self.wishes[:] = list(self.wishes), []
        return taken

    def addresses(self) -> list[str]:
        return [s.network.address for s in self.underlay.usable()]


def interface(name: str, *addresses: UnderlayAddress | str, **more: Any) -> UnderlayInterface:
    listed = tuple(
        a if isinstance(a, UnderlayAddress) else UnderlayAddress(a, 24) for a in addresses
    )
    fields: dict[str, Any] = {
        "index": sum(name.encode()),
        "mtu": 1500,
        "carrier": True,
        "gateways": ((4, "10.0.0.1"), (6, "fe80::1")),
    }
    fields.update(more)
    return UnderlayInterface(name=name, addresses=listed, **fields)


def test_one_socket_per_family_and_interface_best_first() -> None:
    stand = Stand()
    stand.change(interface("eth0", "10.0.0.2", "2001:db8::2"), interface("wlan0", "10.1.0.2"))
    assert stand.addresses() == ["10.0.0.2", "2001:db8::2", "10.1.0.2"]
    assert [w.socket for w in stand.underlay.ways((Endpoint("198.51.100.1", 1),))] == [1, 3]


def test_a_metered_link_comes_after_what_works_and_before_what_leads_nowhere() -> None:
    stand = Stand()
    stand.change(
        interface("wwan0", "10.0.0.2"),
        interface("usb0", "10.2.0.2", gateways=()),
        interface("wlan0", UnderlayAddress("10.1.0.2", 24, deprecated=True)),
    )
    stand.wait()
    assert stand.addresses() == ["10.1.0.2", "10.0.0.2", "10.2.0.2"]
    stand.underlay.set_silent(stand.underlay.usable()[0].number, True)
    assert stand.addresses() == ["10.0.0.2", "10.2.0.2", "10.1.0.2"]


def test_what_carries_no_tunnel_gets_no_socket() -> None:
    stand = Stand()
    stand.change(
        interface("ntm0", "10.9.0.1"),
        interface("eth1", "10.8.0.1", carrier=False),
        interface(
            "eth0",
            "fe80::5",
            "127.0.0.1",
            "fd12:3456:789a::7",
            UnderlayAddress("2001:db8::9", 64, tentative=True),
        ),
    )
    assert stand.addresses() == []


def test_a_lasting_address_is_preferred_to_a_deprecated_one_and_then_kept() -> None:
    stand = Stand()
    old = UnderlayAddress("2001:db8::1", 64, deprecated=True)
    fresh = UnderlayAddress("2001:db8::2", 64)
    stand.change(interface("eth0", old, fresh))
    assert stand.addresses() == ["2001:db8::2"]
    stand.change(interface("eth0", UnderlayAddress("2001:db8::3", 64), fresh))
    assert stand.addresses() == ["2001:db8::2"], "a socket stays while its address does"


def test_a_new_address_or_gateway_is_a_new_socket_a_gateway_that_appears_is_not() -> None:
    stand = Stand()
    stand.change(interface("eth0", "10.0.0.2", gateways=()))
    stand.wait()
    change = stand.change(interface("eth0", "10.0.0.2"))
    assert [s.number for s in change.routed] == [1]
    assert (change.gone, change.ready) == ((), ())
    change = stand.change(interface("eth0", "10.0.0.2", gateways=()))
    assert (change.gone, change.routed) == ((), ())
    assert [s.number for s in change.demoted] == [1], "a link without a route is a makeshift"
    change = stand.change(interface("eth0", "10.0.0.2", gateways=((4, "10.0.0.99"),)))
    assert [s.number for s in change.gone] == [1]
    assert [s.number for s in stand.underlay.usable()] == [2]
    stand.change(interface("eth0", "10.0.0.3", gateways=((4, "10.0.0.99"),)))
    assert [s.number for s in stand.underlay.usable()] == [3]


def test_beside_a_deprecated_address_in_use_a_fresh_one_is_opened_and_preferred() -> None:
    stand = Stand()
    stand.change(interface("eth0", "2001:db8::1"))
    old = UnderlayAddress("2001:db8::1", 64, deprecated=True)
    change = stand.change(interface("eth0", old, "2001:db8::2"))
    assert change.gone == ()
    assert [s.number for s in change.demoted] == [1]
    assert stand.addresses() == ["2001:db8::2", "2001:db8::1"]


def test_a_link_is_ready_with_its_route() -> None:
    stand = Stand()
    stand.change(interface("eth0", "10.0.0.2", gateways=()))
    assert not stand.underlay.is_open(1)
    assert stand.underlay.ways((Endpoint("10.0.0.9", 1),)) == []
    change = stand.change(interface("eth0", "10.0.0.2"))
    assert [s.number for s in change.ready] == [1]
    assert change.routed == ()
    assert stand.underlay.is_open(1)
    assert stand.underlay.without_route(1) is None
    assert stand.change(interface("eth0", "10.0.0.2")).ready == ()


def test_a_route_without_a_gateway_is_a_route() -> None:
    """A modem's or another point-to-point link."""
    stand = Stand()
    stand.change(
        interface("lan0", "10.5.0.2", gateways=()),
        interface("ppp0", "10.0.0.2", gateways=((4, ""),)),
    )
    stand.wait()
    assert stand.addresses() == ["10.0.0.2", "10.5.0.2"]


def test_a_link_without_gateway_is_used_last() -> None:
    stand = Stand()
    stand.change(interface("lan0", "10.5.0.2", gateways=()), interface("eth0", "10.0.0.2"))
    assert stand.addresses() == ["10.0.0.2"], "a route may come yet"
    stand.wait()
    assert stand.addresses() == ["10.0.0.2", "10.5.0.2"]


def test_sockets_of_what_is_gone_are_closed_and_still_named() -> None:
    stand = Stand()
    stand.change(interface("eth0", "10.0.0.2"))
    stand.underlay.change(NetworkChanged((), 2.0), 2.0)
    assert stand.take() == [CloseSocket(1)]
    assert stand.underlay.interface(1) == "eth0"
    assert not stand.underlay.is_open(1)


def test_a_socket_that_fails_is_tried_again_while_its_network_is_there() -> None:
    stand = Stand()
    stand.underlay.change(NetworkChanged((interface("eth0", "10.0.0.2"),), 1.0), 1.0)
    stand.take()
    assert stand.underlay.failed(SocketFailed(1, 99, "no such address"), 1.0) is not None
    assert stand.take() == [CloseSocket(1)]
    stand.timers.run(2.0)
    [again] = stand.take()
    assert isinstance(again, OpenSocket)
    assert again.socket == 2
    assert stand.underlay.failed(SocketFailed(1, 99, "late"), 2.0) is None
