"""The report: medians, paired ratios, and each goal with met or not met."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

Row = dict[str, Any]
OURS, BASE, RAW = "ntmd", "wireguard-go", "raw"
LOADS = {
    "tcp1_gbit_s": "TCP 1 flow, Gbit/s",
    "tcp4_gbit_s": "TCP 4 flows, Gbit/s",
    "tcp1_reverse_gbit_s": "TCP 1 flow back, Gbit/s",
    "tcp4_reverse_gbit_s": "TCP 4 flows back, Gbit/s",
    "udp64_pps": "UDP 64 B, packets/s at < 0.5 % loss",
    "udp1200_pps": "UDP 1,200 B, packets/s at < 0.5 % loss",
    "udp64_flood_pps": "UDP 64 B, packets/s arriving of a flood",
    "udp64_cpu_us": "CPU of both ends per such datagram of 64 B, us",
    "udp1200_flood_pps": "UDP 1,200 B, packets/s arriving of a flood",
    "udp1200_cpu_us": "CPU of both ends per such datagram of 1,200 B, us",
    "cpu_s_per_gb": "CPU of both ends, s/GB (TCP 1 flow)",
    "rss_mib": "RSS of one end under load, MiB",
    "ping_ms": "ping, ms",
}


@dataclass(frozen=True)
class Spread:
    """Median, least and most of the rounds."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.least)} to {short(self.most)})"


def short(value: float) -> str:
    """A number as wide as it is precise."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def of(rows: Sequence[Row], kind: str, key: str) -> dict[int, float]:
    """A figure by round."""
    return {row["round"]: row[key] for row in rows if row["kind"] == kind and key in row}


def paired(rows: Sequence[Row], key: str, base: str = BASE) -> Spread:
    """ntmd's figure divided by the other's of the same round."""
    own, other = of(rows, OURS, key), of(rows, base, key)
    return spread([own[n] / other[n] if other[n] else 0.0 for n in own if n in other])


def added(rows: Sequence[Row], kind: str) -> Spread:
    """Milliseconds of ping that the tunnel adds to the raw path of the same round."""
    own, raw = of(rows, kind, "ping_ms"), of(rows, RAW, "ping_ms")
    return spread([own[n] - raw[n] for n in own if n in raw])


def loads(rows: Sequence[Row], trusted: bool) -> list[str]:
    """The table of the speed rounds, as Markdown; no ratios of a build that is not ``trusted``."""
    lines = [
        "| median (range) | raw veth | wireguard-go | ntmd | ntmd / wireguard-go, paired |",
        "| --- | --- | --- | --- | --- |",
    ]
    for key, title in LOADS.items():
        cells = []
        for kind in (RAW, BASE, OURS):
            found = list(of(rows, kind, key).values())
            cells.append(str(spread(found)) if found else "-")
        cells.append(str(paired(rows, key)) if trusted else "-")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append(
        f"| added to a ping, ms | - | {added(rows, BASE)} | {added(rows, OURS)} | - |",
    )
    return lines


def verdict(figure: Spread, met: Callable[[float], bool]) -> str:
    """By the median; says so where a round of its own misses the goal."""
    if not met(figure.median):
        return "**not met**"
    steady = met(figure.least) and met(figure.most)
    return "met" if steady else "met by the median, **not in every round**"


def goals(
    speed: Sequence[Row], road: Sequence[Row], rest: Sequence[Row], trusted: bool
) -> list[tuple[str, str, Spread, str]]:
    """Each goal that this run measures: what, the goal, the figure, the verdict."""
    found: list[tuple[str, str, Spread, str]] = []

    def add(what: str, goal: str, figure: Spread, met: Callable[[float], bool]) -> None:
        found.append((what, goal, figure, verdict(figure, met)))

    def waiting(what: str, key: str, limit: float) -> None:
        figure = spread([row[key] for row in road])
        add(what, f"<= {limit:,.0f} ms", figure, lambda value: value <= limit)

    if trusted:
        ratio = paired(speed, "tcp1_gbit_s")
        add("TCP one flow / wireguard-go", ">= 1.2", ratio, lambda value: value >= 1.2)
        ratio = paired(speed, "udp64_pps")
        add("UDP 64 B packets/s / wireguard-go", ">= 1.5", ratio, lambda value: value >= 1.5)
    weight = spread(list(of(speed, OURS, "rss_mib").values()))
    add("RSS of a node under load (one tunnel), MiB", "<= 80", weight, lambda value: value <= 80)
    waiting("ntmd up, later start", "up_later_ms", 1500)
    waiting("first contact behind NATs, RTT 40 ms", "first_contact_ms", 260)
    waiting("direct path after the first packet", "direct_ms", 1000)
    waiting("hard move, mover sends 100/s: gap", "move_gap_ms", 100)
    waiting("hard move, mover silent: gap", "silent_move_gap_ms", 300)
    for what, key, goal, limit in REST:
        values = [row[key] for row in rest if key in row]
        within = operator.ge if goal.startswith("<=") else operator.le
        if values:
            add(what, goal, spread(values), partial(within, limit))
    return found


REST = (
    ("RSS of a node under load, ten tunnels, MiB", "rss_ten_mib", "<= 80", 80.0),
    ("first contact, two domains, DNS cold, RTT 40 ms", "two_domains_ms", "<= 580 ms", 580.0),
    ("hard move of an idle tunnel, then the peer pings", "idle_move_ms", "<= 300 ms", 300.0),
    ("idle node, one idle tunnel behind NATs: % of a core", "idle_cpu_percent", "<= 0.3", 0.3),
    ("the same: context switches a second", "idle_switches_per_s", "<= 2", 2.0),
    ("the same: then the peer's first ping", "idle_ping_ms", "<= 300 ms", 300.0),
    ("sealed datagrams of 1,400 B through one relay process, Gbit/s", "rs_gbit_s", ">= 1", 1.0),
    ("refreshes a second of one coordinator process", "dc_per_s", ">= 3,000", 3000.0),
)


def report(
    setup: dict[str, Any],
    speed: Sequence[Row],
    road: Sequence[Row],
    rest: Sequence[Row] = (),
    *,
    trusted: bool = True,
) -> str:
    """Everything a reader needs, as Markdown; ``trusted``: the build's integrity run is green."""
    lines = [f"- {key}: {value}" for key, value in setup.items()]
    lines += [
        "",
        *loads(speed, trusted),
        "",
        "| goal | wanted | median (range) | |",
        "| --- | --- | --- | --- |",
    ]
    for row in goals(speed, road, rest, trusted):
        lines.append(f"| {' | '.join(str(cell) for cell in row)} |")
    whole = spread([row["move_whole_gap_ms"] for row in road])
    silent = spread([row["silent_move_whole_gap_ms"] for row in road])
    lines += [
        "",
        "Gaps of a move count from the instant the new address is usable; with the time in which "
        f"there was no network at all they are {whole} ms and {silent} ms.",
    ]
    if not any("idle_cpu_percent" in row for row in rest):
        lines += ["", "Not measured by this run: the idle node over 300 s (--long)."]
    return "\n".join(lines)
