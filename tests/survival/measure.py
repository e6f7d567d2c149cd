"""Figures from times of arrival: longest hole, datagrams lost, quality of a call. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Span = tuple[float, float]

# ITU-T G.107 (06/2015): with all parameters at their defaults R is 93.2.
R_DEFAULT = 93.2
# ITU-T G.113 (11/2007) appendix I: G.711 with packet loss concealment (its appendix I).
IE_G711, BPL_G711 = 0.0, 25.1
PLAYOUT = 0.060  # seconds of jitter buffer: what comes later is not heard
PACKET = 0.020  # seconds of speech in one packet


def overlap(span: Span, others: Iterable[Span]) -> float:
    """Seconds of ``span`` that lie in ``others`` (which do not overlap each other)."""
    return sum(max(0.0, min(span[1], b) - max(span[0], a)) for a, b in others)


def longest_hole(
    times: Sequence[float], start: float, end: float, interval: float, offline: Sequence[Span] = ()
) -> float:
    """Longest silence that reaches into [start, end], less one interval, in seconds.

    Time without any usable link (``offline``) does not count: a hole is timed from the instant the
    new address is usable. What never came back counts up to ``end``.
    """
    inside = sorted(at for at in times if at <= end)
    before = [at for at in inside if at <= start]
    points = [before[-1] if before else start, *(at for at in inside if at > start), end]
    holes = (b - a - overlap((a, b), offline) for a, b in pairwise(points))
    return max(0.0, max(holes) - interval)


@dataclass(frozen=True)
class Flow:
    """What became of numbered datagrams. Times in seconds, gap in milliseconds."""

    sent: int
    lost: int
    lost_online: int  # sent while a link was usable, and lost
    duplicated: int
    reordered: int  # arrived after one with a greater number
    gap_ms: float
    back: bool  # still arriving at the end


def flow(
    sent: Sequence[float],
    received: Sequence[tuple[int, float]],
    start: float,
    end: float,
    interval: float,
    offline: Sequence[Span] = (),
    settle: float = 1.0,
) -> Flow:
    """Judge a flow: ``sent`` by number, ``received`` as (number, time) in order of arrival.

    Only what was sent before ``end - settle`` is asked for; the rest may still be on its way.
    """
    first: dict[int, float] = {}
    reordered, greatest = 0, -1
    for number, at in received:
        if number not in first:
            first[number] = at
            reordered += number < greatest
            greatest = max(greatest, number)
    asked = [n for n, at in enumerate(sent) if at < end - settle]
    lost = [n for n in asked if n not in first]
    online = [n for n in lost if not any(a <= sent[n] <= b for a, b in offline)]
    times = list(first.values())
    return Flow(
        sent=len(asked),
        lost=len(lost),
        lost_online=len(online),
        duplicated=len(received) - len(first),
        reordered=reordered,
        gap_ms=round(longest_hole(times, start, end, interval, offline) * 1000, 1),
        back=bool(times) and max(times) > end - settle,
    )


def mos(
    sent: Sequence[float], received: Sequence[tuple[int, float]], start: float, end: float
) -> float:
    """Mean opinion score (1 to 4.5) of a G.711 call in [start, end], by the E-model."""
    arrived: dict[int, float] = {}
    for number, at in received:
        arrived.setdefault(number, at)
    asked = [n for n, at in enumerate(sent) if start <= at <= end]
    delays = [arrived[n] - sent[n] for n in asked if n in arrived]
    if not asked or not delays:
        return 1.0
    latest = min(delays) + PLAYOUT
    heard = [n in arrived and arrived[n] - sent[n] <= latest for n in asked]
    return round(score(rating(latest + PACKET, heard)), 2)


def rating(delay: float, heard: Sequence[bool]) -> float:
    """R of ITU-T G.107 for a one-way ``delay`` in seconds and the packets that were heard."""
    missing = heard.count(False) / len(heard)
    bursts = sum(not now and before for before, now in pairwise([True, *heard]))
    mean = heard.count(False) / bursts if bursts else 1.0
    burst_ratio = max(1.0, mean * (1 - missing))  # G.107 7.3: 1 for losses at random
    percent = missing * 100
    equipment = IE_G711 + (95 - IE_G711) * percent / (percent / burst_ratio + BPL_G711)
    return R_DEFAULT - delay_impairment(delay) - equipment


def delay_impairment(delay: float) -> float:
    """Idd of ITU-T G.107 (7-27): nothing up to 100 ms."""
    if delay <= 0.1:
        return 0.0
    x = math.log2(delay / 0.1)
    return 25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)


def score(r: float) -> float:
    """Mean opinion score of a rating (ITU-T G.107, annex B)."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed; 0.5: the median."""
    if share == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
