"""The plane one packet at a time: the very code of the fast plane, without descriptors.

Pure; used by the simulator and by property tests. Commands and events are those of
:mod:`ntmd.proto.plane`; what leaves is returned as ``(datagram, path)``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ntmd.dataplane.inbound import Inbound
from ntmd.dataplane.packets import VNET_SIZE
from ntmd.dataplane.switchboard import Switchboard
from ntmd.dataplane.window import DEFAULT_SIZE
from ntmd.proto.io import DatagramReceived
from ntmd.proto.plane import PlanePath, PlaneStats
from ntmd.proto.types import Endpoint, Path

__all__ = ["SimplePlane"]


class SimplePlane:
    """A data plane driven by calls. ``now`` is the boot clock in seconds, never going back."""

    def __init__(self, own_address: bytes | None = None, window: int = DEFAULT_SIZE) -> None:
        self.drops: Counter[str] = Counter()
        self._sent: list[tuple[bytes, Path]] = []
        self._inner: list[bytes] = []
        self._replies: list[bytes] = []
        self._board = Switchboard(
            self.drops,
            send=self._send,
            write=lambda parts: self._inner.append(b"".join(parts)),
            reply=self._replies.append,
            up=self._up,
            window=window,
            vnet=False,
            join=(),
        )
        if own_address is not None:
            self.set_own_address(own_address)

    def set_own_address(self, address: bytes) -> None:
        """The own virtual address (16 bytes)."""
        self._board.set_own_address(address)

    def apply(self, command: Any, now: float) -> list[tuple[bytes, Path]]:
        """A command about tunnels, or CloseSocket; returns the datagrams that leave with it."""
        self._board.apply(command, now)
        return self._take_sent()

    def outbound_packet(self, packet: bytes, now: float) -> list[tuple[bytes, Path]]:
        """A packet from the TUN: its datagrams, one for each path; empty if parked or refused."""
        outbound = self._board.outbound
        if len(packet) > len(outbound.buffer) - VNET_SIZE:
            self.drops["out_bad_length"] += 1
            return []
        self._board.expire(now)
        outbound.buffer[: VNET_SIZE + len(packet)] = bytes(VNET_SIZE) + packet
        outbound.packet(VNET_SIZE + len(packet), now)
        outbound.flush(now)
        return self._take_sent()

    def inbound_datagram(
        self, datagram: bytes, socket: int, source: Endpoint, now: float
    ) -> bytes | None:
        """A datagram: the inner packet in it, or None. Other kinds come up as events."""
        self._board.expire(now)
        if not datagram:
            self.drops["in_malformed"] += 1
            return None
        inbound: Inbound = self._board.inbound
        size = len(datagram)
        arrival = (socket, source.host, source.port)
        inbound.datagrams(memoryview(datagram), size, size, arrival, now)
        self._board.runs.close()
        return self._inner.pop() if self._inner else None

    def take_replies(self) -> list[bytes]:
        """ICMPv6 errors for the local senders, to be written to the own TUN."""
        replies = self._replies[:]
        self._replies.clear()
        return replies

    def take_events(self, now: float) -> list[Any]:
        """Events up to now, in order."""
        self._board.expire(now)
        return self._board.reports.take(now)

    def deadline(self) -> float | None:
        """When to call :meth:`take_events` at the latest; in the past while events wait."""
        if self._board.reports.waiting():
            return 0.0
        return self._board.deadline()

    def stats(self) -> PlaneStats:
        """Drop counters and gauges."""
        return PlaneStats(dict(self.drops), self._board.gauges())

    def _send(self, run: memoryview, size: int, path: PlanePath) -> None:
        for at in range(0, len(run), size):
            self._sent.append((bytes(run[at : at + size]), path.path))

    def _up(self, data: bytes, socket: int, source: Endpoint) -> None:
        self._board.reports.add(DatagramReceived(data, socket, source))

    def _take_sent(self) -> list[tuple[bytes, Path]]:
        sent, self._sent = self._sent, []
        return sent
