"""The benchmark's report: a miss stays visible."""

from __future__ import annotations

from typing import Any

from tests.bench.table import LOADS, Spread, paired, report, verdict

WAITS = {
    "up_later_ms": 700.0,
    "first_contact_ms": 200.0,
    "direct_ms": 500.0,
    "move_gap_ms": 50.0,
    "move_whole_gap_ms": 90.0,
    "silent_move_gap_ms": 301.0,
    "silent_move_whole_gap_ms": 400.0,
}


def speed(ratios: tuple[float, ...]) -> list[dict[str, Any]]:
    """Rounds in which ntmd is that much faster than wireguard-go, whose own speed changes."""
    rows: list[dict[str, Any]] = []
    for number, ratio in enumerate(ratios):
        base = 1.0 + number
        for kind, value in (("raw", 9.0), ("wireguard-go", base), ("ntmd", base * ratio)):
            rows.append({"round": number, "kind": kind, **dict.fromkeys(LOADS, value)})
    return rows


def test_ratios_are_paired_by_round() -> None:
    assert paired(speed((2.0, 1.0, 3.0)), "tcp1_gbit_s") == Spread(2.0, 1.0, 3.0)


def test_verdict_names_rounds_that_miss() -> None:
    def met(value: float) -> bool:
        return value >= 1.2

    assert verdict(Spread(1.3, 1.2, 1.4), met) == "met"
    assert "not in every round" in verdict(Spread(1.3, 1.1, 1.4), met)
    assert verdict(Spread(1.1, 1.0, 1.4), met) == "**not met**"


def test_report_shows_misses() -> None:
    lines = report({"date": "today"}, speed((2.0, 1.0)), [WAITS]).splitlines()
    (first,) = [line for line in lines if line.startswith("| TCP one flow /")]
    assert first.endswith("met by the median, **not in every round** |")
    (silent,) = [line for line in lines if "mover silent: gap" in line]
    assert silent.endswith("| <= 300 ms | 301 (301 to 301) | **not met** |")
    assert "- date: today" in lines


def test_report_has_what_was_measured_apart_and_says_what_was_not() -> None:
    rest: list[dict[str, Any]] = [{"rss_ten_mib": 81.0}, {"idle_move_ms": 70.0}]
    text = report({}, speed((2.0,)), [WAITS], rest)
    assert "ten tunnels, MiB | <= 80 | 81.00 (81.00 to 81.00) | **not met** |" in text
    assert "peer pings | <= 300 ms | 70.00 (70.00 to 70.00) | met |" in text
    assert "the idle node over 300 s (--long)" in text
    slow = report({}, speed((2.0,)), [WAITS], [{"rs_gbit_s": 0.9}])
    assert "one relay process, Gbit/s | >= 1 | 0.90 (0.90 to 0.90) | **not met** |" in slow
    assert "(--long)" not in report({}, speed((2.0,)), [WAITS], [{"idle_cpu_percent": 0.01}])


def test_no_ratio_for_a_build_that_does_not_carry_right() -> None:
    text = report({}, speed((2.0, 3.0)), [WAITS], trusted=False)
    assert "wireguard-go |" not in text.split("| --- |")[2]
    rows = [line for line in text.splitlines() if line.startswith(tuple(LOADS_TITLES))]
    assert len(rows) == len(LOADS)
    assert all(row.endswith("| - |") for row in rows)


LOADS_TITLES = [f"| {title} |" for title in LOADS.values()]
