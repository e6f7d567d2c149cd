"""What the plane tells the core: events, each limited in rate at its source, in a bounded queue."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ntmd.dataplane.table import Table, Tunnel
from ntmd.proto import timing
from ntmd.proto.plane import (
    CounterNearLimit,
    NoTunnelFor,
    PeerMoved,
    SlotSeen,
    TunnelActivity,
    UnknownIndex,
)
from ntmd.proto.types import Endpoint

QUIET_REPORT = 1.0  # the last report of a tunnel that fell silent comes this much later
MOVED_INTERVAL = 0.1  # per tunnel and source
UNKNOWN_PER_SECOND = 100
REMEMBERED = 1024  # addresses and sources whose last event is remembered


class Reports:
    """Collects events until somebody takes them."""

    def __init__(self, table: Table, drops: Counter[str]) -> None:
        self._drops = drops
        self._table = table
        self._events: list[Any] = []
        self._asked: dict[bytes, float] = {}
        self._moved: dict[tuple[int, int, Endpoint], float] = {}
        self._unknown_since = 0.0
        self._unknown = 0
        self._due: dict[int, float] = {}  # tunnel: when to report
        self._quiet: dict[int, int] = {}  # tunnel: packets at the last report
        self._silent: dict[int, float] = {}  # tunnel that fell silent: when that was reported

    def add(self, event: Any) -> None:
        """Queue an event, or count it away if nobody takes them."""
        if len(self._events) >= timing.PLANE_EVENTS:
            self._drops["event_queue_full"] += 1
        else:
            self._events.append(event)

    def take(self, now: float) -> list[Any]:
        """All events up to now, in order."""
        for number in [n for n, at in self._due.items() if at <= now]:
            self._report(number, now)
        events, self._events = self._events, []
        return events

    def waiting(self) -> bool:
        """Whether there is something to take at once."""
        return bool(self._events)

    def deadline(self) -> float | None:
        """When the next report is due."""
        return min(self._due.values(), default=None)

    # ------------------------------------------------------------------ events

    def no_tunnel(self, address: bytes, now: float) -> None:
        """A packet for ``address`` was parked."""
        if now - self._asked.get(address, -1e9) >= timing.NO_TUNNEL_INTERVAL:
            _remember(self._asked, address, now)
            self.add(NoTunnelFor(address))

    def moved(self, tunnel: Tunnel, socket: int, source: Endpoint, length: int, now: float) -> None:
        """The newest datagram of a tunnel came from an unknown source."""
        key = (tunnel.number, socket, source)
        if now - self._moved.get(key, -1e9) >= MOVED_INTERVAL:
            _remember(self._moved, key, now)
            self.add(PeerMoved(tunnel.number, socket, source, length))

    def unknown(self, socket: int, source: Endpoint, index: int, length: int, now: float) -> None:
        """A data datagram with an index nobody owns."""
        if now - self._unknown_since >= 1.0:
            self._unknown_since, self._unknown = now, 0
        self._unknown += 1
        if self._unknown <= UNKNOWN_PER_SECOND:
            self.add(UnknownIndex(socket, source, index, length))

    def seen(self, tunnel: Tunnel, session: int) -> None:
        """The first datagram of a session opened."""
        self.add(SlotSeen(tunnel.number, session))

    def near_limit(self, tunnel: Tunnel, session: int) -> None:
        """A send key is nearly used up."""
        self.add(CounterNearLimit(tunnel.number, session))

    # ------------------------------------------------------------------ activity

    def active(self, tunnel: Tunnel, now: float) -> None:
        """A tunnel's totals changed."""
        due = self._due.get(tunnel.number)
        if due is None:
            pause = now - self._silent.pop(tunnel.number, now)
            soon = pause >= timing.REST_AFTER - QUIET_REPORT  # its path may be gone by now
            self._due[tunnel.number] = now if soon else now + timing.ACTIVITY_INTERVAL
        elif due > now + timing.ACTIVITY_INTERVAL:
            self._due[tunnel.number] = now + timing.ACTIVITY_INTERVAL

    def forget(self, number: int) -> None:
        """A tunnel is gone."""
        self._due.pop(number, None)
        self._quiet.pop(number, None)
        self._silent.pop(number, None)

    def _report(self, number: int, now: float) -> None:
        tunnel = self._table.by_number[number]
        totals = tunnel.totals
        packets = totals.tx_packets + totals.rx_packets + totals.duplicated
        self.add(_activity(tunnel))
        totals.gap = totals.gap_at = 0.0
        if self._quiet.get(number) == packets:
            self.forget(number)
            self._silent[number] = now
        else:
            self._quiet[number] = packets
            self._due[number] = now + QUIET_REPORT


def _activity(tunnel: Tunnel) -> TunnelActivity:
    totals, newest = tunnel.totals, tunnel.newest
    return TunnelActivity(
        tunnel=tunnel.number,
        tx_packets=totals.tx_packets,
        tx_bytes=totals.tx_bytes,
        rx_packets=totals.rx_packets,
        rx_bytes=totals.rx_bytes,
        session=newest.number if newest else 0,
        greatest=newest.window.greatest if newest else 0,
        bitmap=newest.window.bitmap() if newest else 0,
        received=tuple(sorted(totals.received.items())),
        last_tx=totals.last_tx,
        last_rx=totals.last_rx,
        gap=totals.gap,
        gap_at=totals.gap_at,
        lost=totals.lost + sum(each.window.lost for each in tunnel.receive.values()),
        duplicated=totals.duplicated,
        send_counter=tunnel.send.counter if tunnel.send else 0,
    )


def _remember(table: dict[Any, float], key: Any, now: float) -> None:
    """Note the instant of a key; the one noted longest ago leaves when there are too many."""
    table.pop(key, None)
    if len(table) >= REMEMBERED:
        del table[next(iter(table))]
    table[key] = now
