"""The operating system, behind one seam of eight methods.

What the daemon needs of a system is little: a TUN, addresses and routes on it, the whole state of
the underlay whenever that changes, and its names in the resolver. :class:`Platform` says so; it is
implemented for Linux in :mod:`ntmd.platform.linux`. An implementation reports failures as
``Complaint`` (they have a cause and a next step) and never decides anything about tunnels.

**The TUN never blinks**: once it is configured, its name, address, MTU, routes and resolver stay as
they are over moves, sleep, reconnects, and even over the death of the daemon, so that nothing meant
for a tunnel leaves another way. Only :meth:`Platform.give_back` removes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ntmd.node.inputs import NetworkChanged


@dataclass(frozen=True, slots=True)
class Tun:
    """An open TUN. ``vnet_header`` is the size in bytes of the header before each packet (0: none);
    ``offload`` whether the kernel hands over and takes super-packets; ``taken_over`` whether the
    device was there already, left by a run that was killed."""

    descriptor: int
    name: str
    index: int
    vnet_header: int
    offload: bool
    taken_over: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """What the TUN has to look like: addresses and the platform's prefix as text, MTU in bytes."""

    address: str
    dns_address: str
    prefix: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Names:
    """How names of the platform reach us: ``mode`` is file or off, ``note`` says why it is off."""

    mode: str
    upstreams: tuple[str, ...] = ()
    note: str = ""


class Platform(Protocol):
    """One operating system. Methods with ``async`` may take a few milliseconds."""

    async def open_tun(self, interface: str) -> Tun:
        """Make the TUN, or take over the one that a killed run of this node left."""

    async def configure(self, device: Device) -> None:
        """Give the TUN its addresses, routes and MTU, and bring it up; idempotent."""

    def intercept_names(self, mode: str, stub: str, domains: tuple[str, ...]) -> Names:
        """Let the system ask ``stub`` first; repeated after each change of the underlay."""

    async def watch(self, changed: Callable[[NetworkChanged], None]) -> None:
        """Call ``changed`` with the whole underlay now and after each change, until closed."""

    async def watch_sleep(self, woke: Callable[[], None]) -> None:
        """Call ``woke`` at the instant the machine may have woken up; the clocks tell the rest."""

    def protect(self, descriptor: int) -> None:
        """Keep what this socket sends out of every tunnel."""

    async def give_back(self) -> None:
        """Remove all that belongs to this node: TUN, routes, resolver settings; idempotent."""

    async def close(self) -> None:
        """Stop watching; leave the TUN and the rest as they are."""
