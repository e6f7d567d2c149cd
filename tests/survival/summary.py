"""Lines of the result file, folded into one cell for each product and scenario. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.survival.measure import quantile

Row = dict[str, Any]
NEVER = math.inf


@dataclass(frozen=True)
class Cell:
    """What became of one product in one scenario. Milliseconds; never back is infinite."""

    rows: tuple[Row, ...]

    @property
    def count(self) -> int:
        """Repetitions."""
        return len(self.rows)

    @property
    def whole(self) -> int:
        """Repetitions in which every program survived."""
        return sum(all(each["survived"] for each in row["programs"].values()) for row in self.rows)

    def alive(self, program: str) -> tuple[int, int]:
        """Repetitions that a program survived, of how many that had it."""
        had = [row["programs"][program] for row in self.rows if program in row["programs"]]
        return sum(each["survived"] for each in had), len(had)

    def gaps(self, *programs: str) -> list[float]:
        """The longest gap of these programs in each repetition that had one of them."""
        found = []
        for row in self.rows:
            had = [row["programs"][name] for name in programs if name in row["programs"]]
            if had:
                found.append(max(gap(each) for each in had))
        return found

    def datagram_gaps(self) -> list[float]:
        """Of UDP, the worse way; of an idle tunnel, the time to the first answer."""
        return self.gaps("udp-out", "udp-in") or self.gaps("first-answer")

    def stalls(self) -> list[float]:
        """The longest stall of any TCP program."""
        return self.gaps("ssh", "https", "websocket", "iperf3")

    def lost(self) -> list[float]:
        """Datagrams lost while a link was usable, UDP and call, all ways."""
        keys = ("udp-out", "udp-in", "call-out", "call-in")
        return [
            float(sum(row["programs"][k]["lost_online"] for k in keys if k in row["programs"]))
            for row in self.rows
            if any(k in row["programs"] for k in keys)
        ]

    def quality(self) -> list[float]:
        """Mean opinion score of the call's worse way."""
        return [
            min(row["programs"][key]["mos"] for key in ("call-out", "call-in"))
            for row in self.rows
            if "call-out" in row["programs"]
        ]


def gap(program: Row) -> float:
    """Milliseconds, or infinite where it never came back."""
    if not program["survived"] or program["gap_ms"] is None:
        return NEVER
    return float(program["gap_ms"])


def newest(rows: Iterable[Row]) -> list[Row]:
    """Of each product only what ran in the setup of its last line."""
    rows = list(rows)
    last = {row["product"]: (row["version"], row["setup"], row["machine"]) for row in rows}
    return [
        row for row in rows
        if (row["version"], row["setup"], row["machine"]) == last[row["product"]]
    ]  # fmt: skip


def cells(rows: Sequence[Row]) -> dict[tuple[str, str], Cell]:
    """By (product, scenario)."""
    sorted_out: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "programs" in row:
            sorted_out.setdefault((row["product"], row["scenario"]), []).append(row)
    return {key: Cell(tuple(found)) for key, found in sorted_out.items()}


def short(value: float) -> str:
    """Milliseconds for people."""
    if value == NEVER:
        return "never"
    if value >= 10_000:
        return f"{value / 1000:.0f} s"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms"


def pair(values: Sequence[float]) -> str:
    """``p50 / p95``; a dash where there is nothing."""
    if not values:
        return "-"
    return f"{short(quantile(values, 0.5))} / {short(quantile(values, 0.95))}"
