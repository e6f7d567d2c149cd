"""Packets that wait for a tunnel: bounded per address, in all, and in time."""

from __future__ import annotations

from collections import Counter, deque

from ntmd.proto import timing


class Parking:
    """Raw packets (as read from the TUN, with its header) by destination."""

    def __init__(self, drops: Counter[str]) -> None:
        self._lots: dict[bytes, deque[tuple[float, bytes]]] = {}
        self._bytes = 0
        self._drops = drops

    def park(self, address: bytes, raw: bytes, now: float) -> None:
        """Keep a packet; the oldest for the same address leaves when there are too many."""
        lot = self._lots.setdefault(address, deque())
        if len(lot) >= timing.PARKED_PACKETS:
            self._bytes -= len(lot.popleft()[1])
            self._drops["parked_full"] += 1
        if self._bytes + len(raw) > timing.PARKED_BYTES:
            self._drops["parked_full"] += 1
        else:
            lot.append((now, raw))
            self._bytes += len(raw)
        if not lot:
            del self._lots[address]

    def release(self, address: bytes) -> list[bytes]:
        """All packets parked for ``address``, oldest first."""
        lot = self._lots.pop(address, None)
        if lot is None:
            return []
        self._bytes -= sum(len(raw) for _, raw in lot)
        return [raw for _, raw in lot]

    def expire(self, now: float) -> None:
        """Drop what waited too long."""
        for address, lot in list(self._lots.items()):
            while lot and lot[0][0] + timing.PARKED_SECONDS <= now:
                self._bytes -= len(lot.popleft()[1])
                self._drops["parked_expired"] += 1
            if not lot:
                del self._lots[address]

    def deadline(self) -> float | None:
        """When the oldest packet has waited too long."""
        oldest = min((lot[0][0] for lot in self._lots.values()), default=None)
        return None if oldest is None else oldest + timing.PARKED_SECONDS

    def __len__(self) -> int:
        return sum(len(lot) for lot in self._lots.values())
