"""The underlay as it is, whole, after each change.

A raw route-netlink socket says *that* something changed; what it says is thrown away, and the state
is dumped again (under 2 ms for a laptop). So a lost message (ENOBUFS) costs nothing: an error of
the monitor is one more reason to look. There is no debounce: a change is acted upon at once, and
only what is already waiting when the dump begins is covered by the same dump.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

from ntmd.node.inputs import NetworkChanged, UnderlayAddress, UnderlayInterface
from ntmd.platform.linux.netlink import dump
from ntmd.platform.linux.rtnl import AsyncIPRoute, NetlinkDumpInterrupted, NetlinkError
from ntmd.runtime.clock import boot_clock
from ntmd.runtime.journal import journal

# linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, _ROUTE, RTMGRP_IPV6_IFADDR, _ROUTE
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
MONITOR_BUFFER = 1 << 20
SO_RCVBUFFORCE = 33
IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 0x1, 0x8, 0x40
F_TENTATIVE, F_DADFAILED, F_DEPRECATED = 0x40, 0x08, 0x20
TABLE_LOCAL = 255
SCOPE_UNIVERSE, SCOPE_SITE = 0, 200
UNICAST = 1
NO_METRIC = 1 << 32
ATTEMPTS = 5

log = journal(__name__)


class Monitor:
    """A socket that becomes readable when links, addresses or routes change."""

    def __init__(self) -> None:
        self.lost = 0
        self._socket = _open_monitor()

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Throw away what waits; True if there was anything, or anything was lost."""
        changed = False
        while True:
            try:
                self._socket.recv(1 << 16)
            except (BlockingIOError, InterruptedError):
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1  # the dump that follows makes good for it
            changed = True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _open_monitor() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    monitor = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        monitor.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, MONITOR_BUFFER)
    except OSError:
        monitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MONITOR_BUFFER)
    monitor.bind((0, GROUPS))
    return monitor


async def watch(changed: Callable[[NetworkChanged], None], own: Iterable[str]) -> None:
    """Call ``changed`` now and whenever the underlay differs; ends only by cancellation.

    ``own`` are interface names that are never underlay (the TUN).
    """
    loop = asyncio.get_running_loop()
    monitor = Monitor()
    woken = asyncio.Event()
    loop.add_reader(monitor.fileno(), woken.set)
    excluded = frozenset(own)
    last: tuple[UnderlayInterface, ...] | None = None
    try:
        async with AsyncIPRoute() as netlink:
            while True:
                at = boot_clock()
                woken.clear()
                monitor.drain()
                state = await snapshot(netlink, excluded)
                if state != last:
                    last = state
                    changed(NetworkChanged(state, at))
                gc.collect(1)  # a dump is cycles of objects: taken away young, they leave no holes
                await woken.wait()
    finally:
        loop.remove_reader(monitor.fileno())
        monitor.close()


async def snapshot(netlink: Any, excluded: frozenset[str]) -> tuple[UnderlayInterface, ...]:
    """The underlay now; a dump that the kernel calls inconsistent is taken again."""
    for attempt in range(ATTEMPTS):
        try:
            links = await dump(netlink.link("dump"))
            addresses = await dump(netlink.addr("dump"))
            routes = [
                *await dump(netlink.route("dump", family=socket.AF_INET)),
                *await dump(netlink.route("dump", family=socket.AF_INET6)),
            ]
        except (NetlinkDumpInterrupted, NetlinkError) as error:
            if attempt == ATTEMPTS - 1:
                raise
            log.debug("a dump of the underlay was interrupted", error=error)
        else:
            return underlay(links, addresses, routes, excluded)
    raise AssertionError("unreachable: the loop returns or raises")


def underlay(
    links: list[Any], addresses: list[Any], routes: list[Any], excluded: frozenset[str]
) -> tuple[UnderlayInterface, ...]:
    """Interfaces that may carry tunnels, best first, from the messages of the dumps."""
    gateways = default_gateways(routes)
    found = []
    for link in links:
        name, index = link.get_attr("IFLA_IFNAME"), link["index"]
        if name in excluded or not _carries(link, index in gateways):
            continue
        usable = tuple(_addresses(addresses, index))
        if not usable:
            continue
        ways = gateways.get(index, [])
        families = {family: gateway for _, family, gateway in reversed(ways)}
        metric = ways[0][0] if ways else 0
        found.append(
            (
                metric if ways else NO_METRIC,
                UnderlayInterface(
                    name=name,
                    index=index,
                    mtu=link.get_attr("IFLA_MTU") or 1500,
                    carrier=bool(link["flags"] & IFF_RUNNING),
                    addresses=usable,
                    gateways=tuple(sorted(families.items())),
                    metric=metric,
                ),
            )
        )
    found.sort(key=lambda item: (item[0], item[1].index))
    return tuple(interface for _, interface in found)


def _carries(link: Any, has_default: bool) -> bool:
    flags = link["flags"]
    if not flags & IFF_UP or flags & IFF_LOOPBACK or link.get_attr("IFLA_CARRIER") == 0:
        return False
    if link.get_attr("IFLA_OPERSTATE") in ("DOWN", "LOWERLAYERDOWN", "NOTPRESENT"):
        return False
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    # another program's tunnel is underlay only if it is a way to everywhere
    return kind != "tun" or has_default


def _addresses(messages: list[Any], index: int) -> Iterable[UnderlayAddress]:
    found = []
    for message in messages:
        if message["index"] != index or message["scope"] not in (SCOPE_UNIVERSE, SCOPE_SITE):
            continue
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if text is None or flags & F_DADFAILED:
            continue
        found.append(
            UnderlayAddress(
                address=text,
                prefix_length=message["prefixlen"],
                deprecated=bool(flags & F_DEPRECATED),
                tentative=bool(flags & F_TENTATIVE),
            )
        )
    found.sort(key=lambda item: (item.deprecated, ipaddress.ip_address(item.address).version))
    return found


def default_gateways(routes: list[Any]) -> dict[int, list[tuple[int, int, str]]]:
    """Default routes by interface index: (metric, family 4 or 6, gateway or ""), best first."""
    found: dict[int, list[tuple[int, int, str]]] = {}
    for route in routes:
        table = route.get_attr("RTA_TABLE") or route["table"]
        if route["dst_len"] or route["type"] != UNICAST or table == TABLE_LOCAL:
            continue
        family = 4 if route["family"] == socket.AF_INET else 6
        metric = route.get_attr("RTA_PRIORITY") or 0
        for index, gateway in _next_hops(route):
            found.setdefault(index, []).append((metric, family, gateway))
    for ways in found.values():
        ways.sort()
    return found


def _next_hops(route: Any) -> Iterable[tuple[int, str]]:
    index = route.get_attr("RTA_OIF")
    if index:
        yield index, _gateway(route)
    for hop in route.get_attr("RTA_MULTIPATH") or ():
        yield hop["oif"], _gateway(hop)


def _gateway(hop: Any) -> str:
    via = hop.get_attr("RTA_VIA")
    return hop.get_attr("RTA_GATEWAY") or (via.get("addr", "") if via else "")
