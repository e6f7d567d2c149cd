"""Addresses, routes and marks of the TUN, over netlink (pyroute2).

Everything made here carries a mark by which a later run knows it as ours: the interface's alias
names the node, routes have the protocol number :data:`PROTOCOL`. Nothing else is ever removed.
Only dumps, ``replace`` and ``del`` requests are used: pyroute2 leaks on ``get``.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from ntmd.platform import Device
from ntmd.platform.linux.rtnl import AsyncIPRoute, NetlinkError
from ntmd.runtime.complaints import Complaint, Exit

PROTOCOL = 78  # rtm_protocol of our routes
METRIC = 1024  # of the route into the TUN, plus its index
METRIC_UNREACHABLE = 1 << 30  # of the route that catches what the TUN no longer takes, plus index
UNREACHABLE = 7  # RTN_UNREACHABLE (rtnetlink(7))
NODAD = 0x02  # IFA_F_NODAD
FOREVER = 0xFFFF_FFFF
ADDR_GEN_NONE = 1  # IN6_ADDR_GEN_MODE_NONE: no link-local address, hence no router solicitation
ALIAS = "ntmd "
GSO_MAX = (
    60_800  # bytes: 45 packets of 1,420; sealed they just fit the 65,487 of one UDP_SEGMENT send
)
IPV6_CONF = Path("/proc/sys/net/ipv6/conf")


async def dump(request: Any) -> list[Any]:
    """All messages of a dump request."""
    return [message async for message in await request]


async def configure(index: int, device: Device, identity: str) -> None:
    """Bring the TUN ``index`` up with exactly the addresses and routes of ``device``.

    What is right already is left alone, so a TUN that was taken over does not blink.
    """
    async with AsyncIPRoute() as netlink:
        try:
            await _configure(netlink, index, device, identity)
        except NetlinkError as error:
            raise netlink_complaint(error) from error


async def _configure(netlink: Any, index: int, device: Device, identity: str) -> None:
    _allow_ipv6(socket.if_indextoname(index))
    if not await _is_up(netlink, index):  # it can be changed later, but then an address is there
        generation = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_NONE)]}
        await netlink.link("set", index=index, IFLA_AF_SPEC={"attrs": [("AF_INET6", generation)]})
    await netlink.link("set", index=index, mtu=device.mtu, ifalias=ALIAS + identity, state="up")
    await _limit_super_packets(netlink, index)
    wanted = {device.address: FOREVER, device.dns_address: 0}
    for message in await dump(netlink.addr("dump", family=socket.AF_INET6, index=index)):
        text = message.get_attr("IFA_ADDRESS")
        if message["index"] == index and text not in wanted:
            await netlink.addr("del", index=index, address=text, prefixlen=message["prefixlen"])
    for text, preferred in wanted.items():
        await netlink.addr(
            "replace",
            index=index,
            address=text,
            prefixlen=128,
            flags=NODAD,
            preferred=preferred,  # 0 (deprecated): the resolver's address is never a source
            valid=FOREVER,
        )
    await netlink.route(
        "replace",
        dst=device.prefix,
        oif=index,
        prefsrc=device.address,
        priority=METRIC + index,
        proto=PROTOCOL,
        family=socket.AF_INET6,
    )
    await _catch(netlink, device.prefix, METRIC_UNREACHABLE + index)


async def _limit_super_packets(netlink: Any, index: int) -> None:
    """A super-packet is to fit one send; a kernel that cannot be told so is only slower."""
    try:
        await netlink.link("set", index=index, gso_max_size=GSO_MAX)
    except NetlinkError as error:
        if error.code not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


async def _is_up(netlink: Any, index: int) -> bool:
    for message in await dump(netlink.link("dump")):
        if message["index"] == index:
            return bool(message["flags"] & 1)
    return False


async def _catch(netlink: Any, prefix: str, metric: int) -> None:
    """The unreachable route behind the TUN's."""
    try:
        await netlink.route(
            "add",
            dst=prefix,
            priority=metric,
            proto=PROTOCOL,
            type="unreachable",
            family=socket.AF_INET6,
        )
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


async def aliases() -> dict[str, str]:
    """Alias of every TUN of ours in this network namespace: interface name to identity."""
    async with AsyncIPRoute() as netlink:
        found = {}
        for message in await dump(netlink.link("dump")):
            alias = message.get_attr("IFLA_IFALIAS") or ""
            if alias.startswith(ALIAS):
                found[message.get_attr("IFLA_IFNAME")] = alias.removeprefix(ALIAS)
        return found


async def mark(index: int, identity: str) -> None:
    """Say on the interface that it belongs to the node ``identity``."""
    async with AsyncIPRoute() as netlink:
        try:
            await netlink.link("set", index=index, ifalias=ALIAS + identity)
        except NetlinkError as error:
            raise netlink_complaint(error) from error


async def remove_routes(prefix: str, index: int) -> None:
    """Remove our routes for ``prefix`` that belonged to the TUN with this (former) index."""
    network = ipaddress.IPv6Network(prefix)
    metrics = (METRIC + index, METRIC_UNREACHABLE + index)
    async with AsyncIPRoute() as netlink:
        async for route in _our_routes(netlink, lambda metric: metric in metrics):
            if route.get_attr("RTA_DST") != str(network.network_address):
                continue
            kind = {"type": "unreachable"} if route["type"] == UNREACHABLE else {}
            try:
                await netlink.route(
                    "del",
                    dst=prefix,
                    priority=route.get_attr("RTA_PRIORITY"),
                    proto=PROTOCOL,
                    family=socket.AF_INET6,
                    **kind,
                )
            except NetlinkError as error:
                if error.code not in (errno.ESRCH, errno.ENOENT):
                    raise netlink_complaint(error) from error


async def _our_routes(netlink: Any, wanted: Callable[[int], bool]) -> AsyncIterator[Any]:
    for route in await dump(netlink.route("dump", family=socket.AF_INET6)):
        if route["proto"] == PROTOCOL and wanted(route.get_attr("RTA_PRIORITY") or 0):
            yield route


def _allow_ipv6(interface: str) -> None:
    """Containers often come with IPv6 switched off on new interfaces."""
    switch = IPV6_CONF / interface / "disable_ipv6"
    try:
        if switch.read_text().strip() == "1":
            switch.write_text("0\n")
    except OSError as error:
        raise Complaint(
            f"IPv6 is switched off on {interface} and cannot be switched on ({error.strerror}).",
            "Tunnels carry IPv6, so they would carry nothing.",
            "Boot without ipv6.disable=1; in a container pass "
            "--sysctl net.ipv6.conf.all.disable_ipv6=0.",
        ) from error


def netlink_complaint(error: NetlinkError) -> Complaint:
    """Why the kernel refused to configure the TUN."""
    if error.code in (errno.EPERM, errno.EACCES):
        return Complaint(
            "no permission to configure the TUN.",
            "ntmd needs the capability CAP_NET_ADMIN for its interface and routes.",
            "Run it with sudo; in a container add --cap-add NET_ADMIN.",
            Exit.NO_PERMISSION,
        )
    return Complaint(
        f"the kernel refused to configure the TUN: {error}.",
        "Its addresses or routes are not complete.",
        "Look for other programs that manage this interface, then run `ntmd up` again.",
    )
