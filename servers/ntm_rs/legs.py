"""The table of relay legs: which datagram may go where (rules C5 and C7).

A *leg* is one node's end of a granted pair. Its id stands in the index field of what that node
sends; the table checks that it came from a source of the node's session, and names the sources of
the other end and the delivery index that the other end chose. Nothing is opened or unsealed here.

Pure: times are boot-clock seconds handed in. Every refusal has a counter in :attr:`LegTable.drops`:
``truncated``, ``unknown_leg``, ``unknown_source``, ``bad_kind``, ``too_big``, ``mixed_run``,
``expired``, ``not_open``, ``over_rate``, ``unanswered_source``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from ntmd.proto import timing
from ntmd.proto.frame import HEADER_SIZE, Kind
from ntmd.proto.types import Endpoint

FORWARDED = frozenset(range(Kind.INITIATION, Kind.CONTROL + 1))
OLD_IDS = 8  # of a leg that its node may still know, at most
BURST_SECONDS = 0.25  # a leg may save up this much of its rate ...
BURST_FLOOR = 131_072  # ... and never less than two full batches
_SAME = [bytes((value,)) for value in range(256)]


class Way(NamedTuple):
    """Where a forwarded datagram leaves: own socket, endpoint, and the delivery index to write."""

    socket: int
    remote: Endpoint
    delivery: int


@dataclass(slots=True, eq=False)
class Source:
    """A (socket, endpoint) from which a node is heard. ``received`` and ``sent`` are bytes while it
    has not answered a challenge (``nonce``)."""

    socket: int
    remote: Endpoint
    path_id: int
    validated: bool = False
    received: int = 0
    sent: int = 0
    used: float = 0.0
    nonce: int = 0
    challenged: float = 0.0

    def may_send(self, size: int) -> bool:
        """Whether ``size`` more bytes keep within the amplification limit; counts them if so."""
        if self.validated:
            return True
        allowed = timing.AMPLIFICATION * self.received + timing.AMPLIFICATION_FLOOR
        if self.sent + size > allowed:
            return False
        self.sent += size
        return True


@dataclass(slots=True, eq=False)
class Holder:
    """A node as the table sees it: its sources, the primary one, its legs by grant id, and how many
    sessions it has."""

    key_hash: bytes
    sources: dict[tuple[int, Endpoint], Source] = field(default_factory=dict)
    primary: Source | None = None
    also: Source | None = None
    also_until: float = 0.0
    legs: dict[bytes, Leg] = field(default_factory=dict)
    sessions: int = 0

    def source(self, socket: int, remote: Endpoint, path_id: int, now: float) -> Source:
        """The source of that place, new (not validated) if need be; the oldest spare one leaves."""
        key = (socket, remote)
        known = self.sources.get(key)
        if known is None:
            if len(self.sources) >= timing.SESSION_SOURCES:
                self._evict()
            known = self.sources[key] = Source(socket, remote, path_id)
        known.path_id, known.used = path_id, now
        return known

    def _evict(self) -> None:
        spare = [entry for entry in self.sources.values() if entry is not self.primary]
        oldest = min(spare, key=lambda entry: (entry.validated, entry.used))
        del self.sources[(oldest.socket, oldest.remote)]
        if self.also is oldest:
            self.also = None


@dataclass(slots=True, eq=False)
class Leg:
    """One end of a pair; ``delivery`` is what its node chose, ``rate`` in bytes/s (0: any)."""

    id: int
    grant_id: bytes
    holder: Holder
    delivery: int
    expires: float
    rate: int
    open: bool = True
    other: Leg | None = None
    old: dict[int, float] = field(default_factory=dict)  # ids of before, and until when they hold
    closes: float | None = None  # end of the linger after the session's end
    tokens: float = BURST_FLOOR
    filled: float = 0.0
    held: list[tuple[float, bytes]] = field(default_factory=list)
    packets: int = 0
    bytes: int = 0
    counted: int = 0  # packets at the last sweep

    def spend(self, size: int, now: float) -> bool:
        """Take ``size`` bytes from the leg's rate; False if it has not that much left."""
        if self.rate == 0:
            return True
        burst = max(BURST_FLOOR, self.rate * BURST_SECONDS)
        self.tokens = min(burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < size:
            return False
        self.tokens -= size
        return True


class LegTable:
    """All legs of a relay, by id and by (grant, node)."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.packets = 0
        self.bytes = 0
        self.busy = 0  # legs that carried something between the last two sweeps
        self._by_id: dict[int, Leg] = {}
        self._pairs: dict[bytes, list[Leg]] = {}

    def __len__(self) -> int:
        return sum(len(pair) for pair in self._pairs.values())

    # -------------------------------------------------------------- forwarding

    def knows(self, index: int) -> bool:
        """Whether ``index`` is a leg id (an old one included)."""
        return index in self._by_id

    def forward(
        self, data: bytes | memoryview, segment: int, socket: int, source: Endpoint, now: float
    ) -> tuple[Way, ...]:
        """Where a run of datagrams of ``segment`` bytes (the last may be shorter) is to go.

        All of them must carry the same leg id. Empty: dropped (and counted) or held until the
        other end opens. The caller writes each way's index into every segment and sends it there.
        """
        count = (len(data) + segment - 1) // segment
        leg = self._by_id.get(int.from_bytes(data[4:8], "big"))
        if leg is None:
            return self._drop("unknown_leg", count)
        if segment > timing.DATAGRAM_MAX:
            return self._drop("too_big", count)
        fault = _fault(data, segment, count)
        if fault:
            return self._drop(fault, count)
        came = leg.holder.sources.get((socket, source))
        if came is None or not (came.validated or came is leg.holder.primary):
            return self._drop("unknown_source", count)
        if not came.validated:
            came.received += len(data)
        if now >= leg.expires:
            return self._drop("expired", count)
        if not leg.open:
            return self._drop("not_open", count)
        if not leg.spend(len(data), now):
            return self._drop("over_rate", count)
        other = leg.other
        if other is None or not other.open or other.holder.primary is None:
            self._hold(leg, data, segment, now)
            return ()
        ways = self._ways(other, len(data), count, now)
        if ways:
            leg.packets += count
            leg.bytes += len(data)
            self.packets += count
            self.bytes += len(data)
        return ways

    def _ways(self, to: Leg, size: int, count: int, now: float) -> tuple[Way, ...]:
        holder = to.holder
        primary = holder.primary
        assert primary is not None
        ways = []
        if primary.may_send(size):
            ways.append(Way(primary.socket, primary.remote, to.delivery))
        else:
            self.drops["unanswered_source"] += count
        if holder.also is not None and now < holder.also_until and holder.also is not primary:
            ways.append(Way(holder.also.socket, holder.also.remote, to.delivery))
        return tuple(ways)

    def _hold(self, leg: Leg, data: bytes | memoryview, segment: int, now: float) -> None:
        self._forget_held(leg, now)
        for start in range(0, len(data), segment):
            if len(leg.held) >= timing.LEG_QUEUE:
                self.drops["not_open"] += 1
                continue
            leg.held.append((now + timing.LEG_QUEUE_SECONDS, bytes(data[start : start + segment])))

    def _forget_held(self, leg: Leg, now: float) -> None:
        fresh = [entry for entry in leg.held if entry[0] > now]
        if len(fresh) < len(leg.held):
            self.drops["not_open"] += len(leg.held) - len(fresh)
            leg.held = fresh

    def release(self, leg: Leg, now: float) -> list[tuple[Way, bytes]]:
        """Datagrams held for ``leg``'s opening at either end, with their ways."""
        out: list[tuple[Way, bytes]] = []
        for sender, receiver in ((leg.other, leg), (leg, leg.other)):
            if sender is None or receiver is None or not receiver.open:
                continue
            if receiver.holder.primary is None:
                continue
            self._forget_held(sender, now)
            held, sender.held = sender.held, []
            for _, data in held:
                out.extend((way, data) for way in self._ways(receiver, len(data), 1, now))
        return out

    def _drop(self, why: str, count: int) -> tuple[Way, ...]:
        self.drops[why] += count
        return ()

    # -------------------------------------------------------------- the table

    def leg(self, grant_id: bytes, holder: Holder) -> Leg | None:
        """The leg of ``holder`` under a grant."""
        return holder.legs.get(grant_id)

    def add(self, leg: Leg) -> None:
        """A leg was opened; joins it to the other end if that is there."""
        pair = self._pairs.setdefault(leg.grant_id, [])
        for other in pair:
            leg.other, other.other = other, leg
        pair.append(leg)
        leg.holder.legs[leg.grant_id] = leg
        self._by_id[leg.id] = leg

    def rename(self, leg: Leg, fresh: int, now: float) -> list[int]:
        """Give ``leg`` a fresh id; old ones hold for a while. Returns ids that are free now.

        Several moves in a row leave several old ids: the node may know any of them, if an answer
        was lost.
        """
        surplus = list(leg.old)[: max(0, len(leg.old) - OLD_IDS + 1)]
        freed = self._forget_old(leg, surplus)
        leg.old[leg.id] = now + timing.OLD_LEG
        leg.id = fresh
        self._by_id[fresh] = leg
        return freed

    def remove(self, leg: Leg) -> list[int]:
        """Forget a leg; returns the ids that are free now."""
        freed = [leg.id, *self._forget_old(leg, list(leg.old))]
        self._by_id.pop(leg.id, None)
        leg.holder.legs.pop(leg.grant_id, None)
        pair = [other for other in self._pairs.get(leg.grant_id, []) if other is not leg]
        for other in pair:
            other.other = None
        if pair:
            self._pairs[leg.grant_id] = pair
        else:
            self._pairs.pop(leg.grant_id, None)
        return freed

    def suspend(self, holder: Holder, closes: float | None) -> None:
        """The node's session ended (or began anew): its legs wait to be opened again."""
        for leg in holder.legs.values():
            leg.open = False
            leg.closes = closes

    def sweep(self, now: float) -> list[int]:
        """Forget what has run out: legs, old ids, held datagrams. Returns ids that are free now."""
        freed: list[int] = []
        self.busy = 0
        for leg in [leg for pair in self._pairs.values() for leg in pair]:
            if now >= leg.expires or (leg.closes is not None and now >= leg.closes):
                freed += self.remove(leg)
                continue
            freed += self._forget_old(leg, [old for old, end in leg.old.items() if now >= end])
            if leg.held:
                self._forget_held(leg, now)
            self.busy += leg.packets != leg.counted
            leg.counted = leg.packets
        return freed

    def _forget_old(self, leg: Leg, ids: list[int]) -> list[int]:
        for old in ids:
            del leg.old[old]
            self._by_id.pop(old, None)
        return ids


def _fault(data: bytes | memoryview, segment: int, count: int) -> str:
    """What is wrong with a run of segments, or an empty string."""
    last = len(data) - (count - 1) * segment
    if last < HEADER_SIZE:
        return "truncated"
    if count == 1:
        return "" if data[0] in FORWARDED else "bad_kind"
    for byte in range(4, 8):
        if data[byte::segment] != _SAME[data[byte]] * count:
            return "mixed_run"
    return "" if FORWARDED.issuperset(bytes(data[0::segment])) else "bad_kind"
