"""Table, outbound, inbound and reports wired together: what every Python plane drives.

Pure: descriptors, the clock and the process around it belong to the caller.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ntmd.dataplane.egress import Egress, Send
from ntmd.dataplane.errors import Reply
from ntmd.dataplane.inbound import Inbound, Up
from ntmd.dataplane.outbound import Outbound
from ntmd.dataplane.packets import VNET_SIZE
from ntmd.dataplane.parking import Parking
from ntmd.dataplane.reports import Reports
from ntmd.dataplane.runs import Runs, Write
from ntmd.dataplane.table import Table
from ntmd.dataplane.window import DEFAULT_SIZE
from ntmd.proto.plane import (
    CloseSocket,
    InstallTunnel,
    ParkStreams,
    ReleaseParked,
    RemoveTunnel,
    Resend,
    SwitchPath,
)


class Switchboard:
    """The whole plane but its descriptors."""

    def __init__(
        self,
        drops: Counter[str],
        *,
        send: Send,
        write: Write,
        reply: Reply,
        up: Up,
        vnet: bool,
        join: tuple[int, ...],
        window: int = DEFAULT_SIZE,
    ) -> None:
        self.table = Table(window)
        self.reports = Reports(self.table, drops)
        self.parking = Parking(drops)
        self.egress = Egress(self.table, drops, send)
        self.outbound = Outbound(
            self.table,
            self.parking,
            self.reports,
            drops,
            self.egress,
            send,
            reply,
            0 if vnet else VNET_SIZE,
        )
        self.runs = Runs(write, drops, vnet=vnet, join=join)
        self.inbound = Inbound(self.table, self.runs, self.reports, drops, up, reply)
        self._erase_at: float | None = None

    def set_own_address(self, address: bytes) -> None:
        """The own virtual address (16 bytes)."""
        self.table.set_own_address(address)
        self._changed()

    def apply(self, command: Any, now: float) -> None:
        """Carry out a command of the core, between two packets."""
        self.outbound.flush(now)
        self.runs.close()
        match command:
            case InstallTunnel(entry=entry):
                self.table.install(entry, now)
                self._changed()
                self.outbound.release(self.parking.release(entry.peer_address), now)
            case SwitchPath():
                tunnel = self.table.by_number.get(command.tunnel)
                before = tunnel.told if tunnel is not None else 0
                self.table.switch(command)
                self.inbound.settle()
                if tunnel is not None:
                    if tunnel.told < before:
                        self.outbound.narrowed(tunnel, now)
                    self.outbound.release(self.parking.release(tunnel.peer), now)
            case RemoveTunnel(tunnel=number):
                self.table.remove(number)
                self.reports.forget(number)
                self.outbound.recent.forget(number)
                self._changed()
            case Resend():
                self.outbound.resend(command, now)
            case ParkStreams(tunnel=number):
                self.outbound.park_streams(number, now)
            case CloseSocket(socket=number):
                self.table.socket_gone(number)
                self.inbound.settle()
            case ReleaseParked(address=address, unreachable=unreachable):
                raw = self.parking.release(address)
                self.outbound.refuse(raw, unreachable, now)

    def expire(self, now: float) -> None:
        """Erase old keys, drop packets that waited too long."""
        if self._erase_at is not None and self._erase_at <= now:
            self.table.expire(now)
            self.outbound.recent.expire(now)
            self._changed()
        self.parking.expire(now)

    def deadline(self) -> float | None:
        """When something is to be told or erased."""
        instants = (self.reports.deadline(), self.parking.deadline(), self._erase_at)
        return min((each for each in instants if each is not None), default=None)

    def gauges(self) -> dict[str, int]:
        """What is held at the moment."""
        return {
            "tunnels": len(self.table.by_number),
            "indexes": len(self.table.by_index),
            "parked": len(self.parking),
            "resend_bytes": self.outbound.recent.size,
            "resent": self.outbound.resent,
            "fragments": self.outbound.fragments,
        }

    def _changed(self) -> None:
        self.outbound.settle()
        self.inbound.settle()
        self._erase_at = self.table.deadline()
