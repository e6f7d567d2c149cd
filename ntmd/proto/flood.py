"""What keeps a called end alive under a flood of initiations (rule C11).

Order: known index, mac1, copies of what was answered already, and under load mac2 (a cookie), then
a bucket per source; only then Diffie-Hellman. Everything here has a fixed bound.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from ntmd.proto import noise, timing
from ntmd.proto.context import Random
from ntmd.proto.crypto import sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.noise import MAC
from ntmd.proto.types import Arrival

SOURCES = 4096  # buckets kept at once; the least recently used leaves
SOURCE_RATE = 20.0  # initiations per second and source under load
SOURCE_BURST = 20.0
LOAD_PERIOD = 1.0  # load is measured over this, seconds


def digest(initiation: bytes) -> bytes:
    """What identical copies of an initiation have in common: all but index and macs."""
    return sha256(initiation[:4] + initiation[8 : -2 * MAC])


@dataclass(slots=True)
class Answered:
    """A response, its index zero, for the copies of the initiation that it answers."""

    response: bytes
    until: float
    copies: int = 1


class Copies:
    """Responses to recent initiations: a copy costs no Diffie-Hellman."""

    def __init__(self) -> None:
        self._answered: OrderedDict[bytes, Answered] = OrderedDict()

    def find(self, key: bytes, now: float) -> bytes | None:
        """The response for a copy; ProtocolError when too many copies came."""
        self._expire(now)
        found = self._answered.get(key)
        if found is None:
            return None
        if found.copies >= timing.INITIATION_COPIES:
            raise ProtocolError("too_many_copies")
        found.copies += 1
        return found.response

    def keep(self, key: bytes, response: bytes, now: float) -> None:
        """Remember a response."""
        self._answered[key] = Answered(response, now + timing.INITIATION_COPY_WINDOW)
        while len(self._answered) > timing.HALF_OPEN_TOTAL:
            self._answered.popitem(last=False)

    def _expire(self, now: float) -> None:
        while self._answered:
            oldest = next(iter(self._answered.values()))
            if oldest.until > now:
                return
            self._answered.popitem(last=False)


class Cookies:
    """Stateless cookies; a secret is good for 120 s and one period more."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._secrets: tuple[bytes, bytes] = (b"", b"")
        self._until = -1e9

    def make(self, arrival: Arrival, now: float) -> bytes:
        """The cookie of a source and delivery index."""
        if now >= self._until:
            fresh = self._random(32)
            recent = now < self._until + timing.COOKIE_SECRET_LIFETIME
            self._secrets = (fresh, self._secrets[0] if recent else b"")
            self._until = now + timing.COOKIE_SECRET_LIFETIME
        return noise.make_cookie(self._secrets[0], arrival.source.pack(), arrival.index)

    def valid(self, datagram: bytes, arrival: Arrival) -> bool:
        """Whether mac2 of an initiation shows that its sender reads what we send to its source."""
        source = arrival.source.pack()
        return any(
            secret and noise.check_mac2(noise.make_cookie(secret, source, arrival.index), datagram)
            for secret in self._secrets
        )


class Gate:
    """Load, buckets per source, and half-open handshakes."""

    def __init__(self) -> None:
        self._period = 0
        self._count = self._before = 0
        self._buckets: OrderedDict[tuple[str, int], tuple[float, float]] = OrderedDict()
        self._half_open: dict[bytes, list[int]] = {}
        self._opened: dict[int, tuple[float, bytes]] = {}  # by serial, oldest first
        self._serial = 0

    def arrived(self, now: float) -> None:
        """One initiation that would cost Diffie-Hellman."""
        period = int(now / LOAD_PERIOD)
        if period != self._period:
            self._before = self._count if period == self._period + 1 else 0
            self._period, self._count = period, 0
        self._count += 1

    def loaded(self) -> bool:
        """Whether cookies are asked for."""
        return max(self._count, self._before) > timing.INITIATIONS_UNDER_LOAD

    def take(self, arrival: Arrival, now: float) -> bool:
        """One from the bucket of a source: IPv4 /32, IPv6 /64, or the relay leg."""
        host = arrival.source.host
        if arrival.source.family == 6:
            host = str(int(ipaddress.IPv6Address(host)) >> 64)
        key = (host, arrival.index)
        tokens, at = self._buckets.pop(key, (SOURCE_BURST, now))
        tokens = min(SOURCE_BURST, tokens + (now - at) * SOURCE_RATE)
        allowed = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > SOURCES:
            self._buckets.popitem(last=False)
        return allowed

    def has_room(self, now: float) -> bool:
        """Whether one more half-open handshake is allowed at all."""
        while self._opened:
            serial = next(iter(self._opened))
            until, key = self._opened[serial]
            if until > now:
                break
            self._settle(serial, key)
        return len(self._opened) < timing.HALF_OPEN_TOTAL

    def open(self, key: bytes, now: float) -> None:
        """Count a half-open handshake of a static key; of too many the oldest is counted no more.

        Its session goes too: :meth:`ntmd.proto.lifecycle.Lifecycle.ready`.
        """
        serials = self._half_open.get(key)
        if serials and len(serials) >= timing.HALF_OPEN_PER_KEY:
            self._settle(serials[0], key)
        self._serial += 1
        self._half_open.setdefault(key, []).append(self._serial)
        self._opened[self._serial] = (now + timing.HANDSHAKE_LIFETIME, key)

    def confirmed(self, key: bytes) -> None:
        """A handshake of a key is no longer half open."""
        serials = self._half_open.get(key)
        if serials:
            self._settle(serials[0], key)

    def _settle(self, serial: int, key: bytes) -> None:
        del self._opened[serial]
        serials = self._half_open[key]
        serials.remove(serial)
        if not serials:
            del self._half_open[key]
