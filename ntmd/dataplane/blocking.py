"""Blocking an interface for the own sockets alone: what ``ntmd rehearse`` asks for.

What arrives is dropped by a socket filter in the kernel, what would leave is dropped by the plane;
nothing else on the host is touched. Both end by themselves: the plane watches the time, and a
socket filter dies with its socket, so that nobody has to be alive to undo it.

Sources: Linux ``socket(7)`` (``SO_ATTACH_FILTER``), ``Documentation/networking/filter.rst``.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterable
from typing import Protocol

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
_DROP_ALL = array.array("B", struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes


class Blockable(Protocol):
    """An own socket. While it is ``blocked`` nobody sends on it."""

    interface: str
    blocked: bool
    socket: socket.socket


class Blocks:
    """Which interfaces are blocked, and until when (boot-clock seconds)."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def block(
        self, interface: str, seconds: float, sockets: Iterable[Blockable], now: float
    ) -> None:
        """Block ``interface`` for so long from now on; no time or less unblocks it."""
        if seconds > 0:
            self._until[interface] = now + seconds
        else:
            self._until.pop(interface, None)
        for each in sockets:
            self.settle(each)

    def settle(self, each: Blockable) -> None:
        """Bring a socket, perhaps a new one, into line with what is blocked."""
        wanted = each.interface in self._until
        if wanted is each.blocked:
            return
        each.blocked = wanted
        if wanted:
            where, size = _DROP_ALL.buffer_info()
            program = struct.pack("HxxxxxxP", size // 8, where)
            each.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        else:
            each.socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def expire(self, sockets: Iterable[Blockable], now: float) -> None:
        """Unblock what has been blocked for its time."""
        over = [name for name, until in self._until.items() if until <= now]
        for name in over:
            del self._until[name]
        if over:
            for each in sockets:
                self.settle(each)

    def deadline(self) -> float | None:
        """When the next block ends."""
        return min(self._until.values(), default=None)
