"""Packets that wait for a way: bounded per address, in all, and in time; fair to each inner flow.

When there are too many, the oldest packet of the flow that has most leaves. Of a TCP flow the
newest packet stays much longer than others: after an outage it is what wakes the stream up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ntmd.dataplane.packets import IP_HEADER, TCP, VNET_SIZE
from ntmd.proto import timing

PORTS = VNET_SIZE + IP_HEADER
PROTOCOL = VNET_SIZE + 6


@dataclass(slots=True)
class _Flow:
    stream: bool
    size: int = 0  # bytes
    packets: deque[tuple[float, bytes]] = field(default_factory=deque)

    def due(self) -> float:
        """When the oldest has waited long enough."""
        last = self.stream and len(self.packets) == 1
        wait = timing.PARKED_STREAM_SECONDS if last else timing.PARKED_SECONDS
        return self.packets[0][0] + wait


@dataclass(slots=True)
class _Lot:
    flows: dict[bytes, _Flow] = field(default_factory=dict)
    size: int = 0  # bytes
    count: int = 0


class Parking:
    """Raw packets (as read from the TUN, with its header) by destination and flow."""

    def __init__(self, drops: Counter[str]) -> None:
        self._lots: dict[bytes, _Lot] = {}
        self._bytes = 0
        self._drops = drops

    def park(self, address: bytes, raw: bytes, now: float) -> None:
        """Keep a packet; older ones leave if there are too many."""
        lot = self._lots.pop(address, None) or _Lot()
        self._lots[address] = lot  # the one parked at last is the last
        name = raw[PROTOCOL : PROTOCOL + 1] + raw[PORTS : PORTS + 4]
        flow = lot.flows.pop(name, None) or _Flow(raw[PROTOCOL : PROTOCOL + 1] == bytes((TCP,)))
        lot.flows[name] = flow
        flow.packets.append((now, raw))
        for each in (flow, lot):
            each.size += len(raw)
        lot.count += 1
        self._bytes += len(raw)
        while lot.count > timing.PARKED_PACKETS:
            self._evict(address, lot, lambda each: len(each.packets))
        while lot.size > timing.PARKED_PER_ADDRESS:
            self._evict(address, lot, lambda each: each.size)
        while self._bytes > timing.PARKED_BYTES:
            oldest = next(iter(self._lots))
            self._evict(oldest, self._lots[oldest], lambda each: each.size)

    def _evict(self, address: bytes, lot: _Lot, weight: Callable[[_Flow], int]) -> None:
        self._drops["parked_full"] += 1
        self._remove(address, lot, max(lot.flows, key=lambda name: weight(lot.flows[name])))

    def _remove(self, address: bytes, lot: _Lot, name: bytes) -> None:
        """The oldest packet of a flow leaves."""
        flow = lot.flows[name]
        size = len(flow.packets.popleft()[1])
        flow.size -= size
        lot.size -= size
        lot.count -= 1
        self._bytes -= size
        if not flow.packets:
            del lot.flows[name]
        if not lot.flows:
            del self._lots[address]

    def release(self, address: bytes) -> list[bytes]:
        """All packets parked for ``address``, oldest first."""
        lot = self._lots.pop(address, None)
        if lot is None:
            return []
        self._bytes -= lot.size
        packets = [each for flow in lot.flows.values() for each in flow.packets]
        return [raw for _, raw in sorted(packets, key=lambda each: each[0])]

    def expire(self, now: float) -> None:
        """Drop what waited too long."""
        for address, lot in list(self._lots.items()):
            for name, flow in list(lot.flows.items()):
                while flow.packets and flow.due() <= now:
                    self._drops["parked_expired"] += 1
                    self._remove(address, lot, name)

    def deadline(self) -> float | None:
        """When the next packet has waited too long."""
        return min(
            (f.due() for lot in self._lots.values() for f in lot.flows.values()), default=None
        )

    def __len__(self) -> int:
        return sum(lot.count for lot in self._lots.values())
