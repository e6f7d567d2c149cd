"""The interfaces of the machine in the shape that the ``netifaces`` package made familiar.

``interfaces()``, ``ifaddresses(name)`` and ``gateways()`` return what that package's functions
would, taken from netlink dumps; for diagnostics and scripts. The daemon uses
:mod:`ntmd.platform.linux.watch`, which knows flags, metrics and changes as well. These functions
block for a few milliseconds and must not be called from a running event loop.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from ntmd.platform.linux.rtnl import IPRoute
from ntmd.platform.linux.watch import default_gateways

AF_INET, AF_INET6, AF_LINK = int(socket.AF_INET), int(socket.AF_INET6), int(socket.AF_PACKET)
Addresses = dict[int, list[dict[str, str]]]


def interfaces() -> list[str]:
    """Names of all interfaces, in the order of their index."""
    with IPRoute() as netlink:
        links = sorted(netlink.link("dump"), key=lambda link: int(link["index"]))
        return [link.get_attr("IFLA_IFNAME") for link in links]


def ifaddresses(interface: str) -> Addresses:
    """Addresses of ``interface`` by family; ValueError if there is none of that name."""
    with IPRoute() as netlink:
        for link in netlink.link("dump"):
            if link.get_attr("IFLA_IFNAME") == interface:
                break
        else:
            raise ValueError("You must specify a valid interface name.")
        found: Addresses = {}
        hardware = link.get_attr("IFLA_ADDRESS")
        if hardware:
            entry = {"addr": hardware}
            if link.get_attr("IFLA_BROADCAST"):
                entry["broadcast"] = link.get_attr("IFLA_BROADCAST")
            found[AF_LINK] = [entry]
        for message in netlink.addr("dump"):
            if message["index"] == link["index"]:
                family, entry = _address(message, interface)
                found.setdefault(family, []).append(entry)
        return found


def _address(message: Any, interface: str) -> tuple[int, dict[str, str]]:
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    network = ipaddress.ip_network(f"{text}/{message['prefixlen']}", strict=False)
    if message["family"] == socket.AF_INET6:
        scope = f"%{interface}" if ipaddress.ip_address(text).is_link_local else ""
        return AF_INET6, {
            "addr": text + scope,
            "netmask": f"{network.netmask}/{message['prefixlen']}",
        }
    entry = {"addr": text, "netmask": str(network.netmask)}
    peer = message.get_attr("IFA_ADDRESS")
    if message.get_attr("IFA_BROADCAST"):
        entry["broadcast"] = message.get_attr("IFA_BROADCAST")
    elif peer and peer != text:
        entry["peer"] = peer
    return AF_INET, entry


def gateways() -> dict[Any, Any]:
    """Default gateways by family, and under ``default`` the best of each family."""
    with IPRoute() as netlink:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.link("dump")}
        routes = [
            *netlink.route("dump", family=socket.AF_INET),
            *netlink.route("dump", family=socket.AF_INET6),
        ]
    ways = [
        (metric, family, gateway, names.get(index, ""))
        for index, hops in default_gateways(routes).items()
        for metric, family, gateway in hops
        if gateway
    ]
    found: dict[Any, Any] = {"default": {}}
    for number, family in ((4, AF_INET), (6, AF_INET6)):
        mine = sorted(way for way in ways if way[1] == number)
        if mine:
            found["default"][family] = (mine[0][2], mine[0][3])
            found[family] = [(way[2], way[3], place == 0) for place, way in enumerate(mine)]
    return found
