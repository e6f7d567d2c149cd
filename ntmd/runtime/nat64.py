"""The NAT64 of the network that the machine is in, asked of the system's resolver (RFC 7050).

For a process that has no way to IPv4 and may wait: the first join over HTTPS. A running node asks
resolvers by itself, for each network (:mod:`ntmd.platform.linux.scout`).
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading

from ntmd.proto import nat64

PATIENCE = 3.0  # for the system's resolver, seconds: a dead one would take 10 and more


def find_nat64() -> nat64.Prefix | None:
    """The prefix that stands for IPv4 here; None if there is none or nobody answers in time."""
    answers: queue.SimpleQueue[tuple[bytes, ...]] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_look_up()), daemon=True).start()
    try:
        return nat64.discover(answers.get(timeout=PATIENCE))
    except queue.Empty:
        return None


def _look_up() -> tuple[bytes, ...]:
    try:
        found = socket.getaddrinfo(nat64.NAME, None, socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(ipaddress.IPv6Address(each[4][0]).packed for each in found)


def is_ipv4(host: str) -> bool:
    """Whether ``host`` is an IPv4 address; a name is none: a resolver translates that by itself."""
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False
