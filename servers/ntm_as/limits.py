"""Attempts per source and per account: token buckets, bounded in number."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

KEYS = 10_000  # buckets kept; the least recently used leaves


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` attempts at once, one more each ``seconds``."""

    burst: int
    seconds: float


LOGIN_SOURCE = Rate(10, 6.0)
LOGIN_ACCOUNT = Rate(5, 30.0)
JOIN_SOURCE = Rate(20, 3.0)
OPEN_SOURCE = Rate(200, 0.05)  # exchanges begun, whatever comes of them


class Limiter:
    """Counts attempts. A success is given back, so that only failures use a bucket up."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[Rate, str], tuple[float, float]] = OrderedDict()

    def take(self, rate: Rate, key: str, now: float) -> float:
        """Take one attempt: 0 if there was one, otherwise seconds until there is."""
        tokens = self._tokens(rate, key, now)
        if tokens < 1:
            self._put(rate, key, tokens, now)
            return (1 - tokens) * rate.seconds
        self._put(rate, key, tokens - 1, now)
        return 0.0

    def give_back(self, rate: Rate, key: str, now: float) -> None:
        """Undo a :meth:`take`."""
        self._put(rate, key, min(self._tokens(rate, key, now) + 1, rate.burst), now)

    def _tokens(self, rate: Rate, key: str, now: float) -> float:
        tokens, since = self._buckets.get((rate, key), (float(rate.burst), now))
        return min(tokens + (now - since) / rate.seconds, rate.burst)

    def _put(self, rate: Rate, key: str, tokens: float, now: float) -> None:
        self._buckets[rate, key] = (tokens, now)
        self._buckets.move_to_end((rate, key))
        if len(self._buckets) > KEYS:
            self._buckets.popitem(last=False)


def source_key(address: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed)
