"""Packets; never decides.

The life of a packet. A program's packet comes out of the TUN, with luck as a super-packet of 64 KiB
of one flow. :mod:`~ntmd.dataplane.outbound` finds the tunnel by its destination, cuts it into
packets, seals each into a datagram, and sends the datagrams side by side in one system call, on one
path or two (:mod:`~ntmd.dataplane.egress`); the last of each flow are kept for a while, to be sent
once more after an outage (:mod:`~ntmd.dataplane.recent`). At the other end
:mod:`~ntmd.dataplane.inbound` finds the tunnel by the index in the datagram, the key by its slot,
asks the window, opens it, and :mod:`~ntmd.dataplane.runs` refuses what must not pass and joins the
rest into super-packets for the TUN. Without a tunnel or a path a packet is parked and the core is
told (:class:`~ntmd.proto.plane.NoTunnelFor`); whatever is not data goes to the core unopened.

:mod:`~ntmd.dataplane.simple` drives that code packet by packet (simulator, property tests),
:mod:`~ntmd.dataplane.reference` around descriptors, in a process of its own
(:mod:`~ntmd.dataplane.child`) that the daemon speaks to through :mod:`~ntmd.dataplane.remote`.
"""

from __future__ import annotations

from typing import Any, Protocol

from ntmd.proto.plane import PlaneStats


class DataPlane(Protocol):
    """The seam: commands of :mod:`ntmd.proto.plane` and ``SendDatagram`` down, events up."""

    name: str

    def start(self, tun: int, vnet_header: int, own_address: bytes | None, mark: int) -> None:
        """Take the TUN's descriptor (0 or 10 bytes of header before each packet) and run."""

    def set_own_address(self, address: bytes) -> None:
        """The own virtual address (16 bytes)."""

    def send(self, command: Any) -> None:
        """Carry out a command; never blocks."""

    def stats(self) -> PlaneStats:
        """Drop counters and gauges."""

    def close(self) -> None:
        """Erase the keys, close the sockets, let go of the TUN."""
