"""Ports for the servers that tests start, and a network of its own for each test process."""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import subprocess

CLONE_NEWNET = 0x4000_0000
APART = 32  # one server takes its port and a few of the next ones
# Below the kernel's range of ephemeral ports: no outgoing connection is ever given one of these.
# Two processes begin at different ones, for those that share the host's network.
_RANGE = range(10_000, 32_000, APART)
_BASES = itertools.islice(itertools.cycle(_RANGE), os.getpid() % len(_RANGE), None)


def network_of_its_own() -> None:
    """Leave the host's network for one with only a loopback; without root nothing is changed.

    Test processes run side by side, and on a host that has services of its own: what one of
    them listens on or sends must not meet the other's. Threads started later come along.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and libc.unshare(CLONE_NEWNET) == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def free_port() -> int:
    """A port that was free a moment ago, for TCP and UDP, as are the 31 after it."""
    for base in itertools.islice(_BASES, 600):
        if all(_free(base + at) for at in range(APART)):
            return base
    raise AssertionError("no free ports")


def _free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind is socket.SOCK_STREAM:  # else a UDP port in use would look free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
