"""The page says what the lines say."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from tests.survival import page
from tests.survival.goals import GOALS
from tests.survival.scenarios import SCENARIOS
from tests.survival.summary import NEVER, cells, newest

Row = dict[str, Any]


def row(product: str, scenario: str, gap: float, *, alive: bool = True, setup: str = "s") -> Row:
    udp = {"survived": alive, "gap_ms": gap, "sent": 900, "lost": 7, "lost_online": 3}
    call = {**udp, "mos": 4.0}
    return {
        "product": product, "version": "1", "setup": setup, "scenario": scenario, "machine": "m",
        "date": "2026-01-01 00:00", "load": 0.1, "notes": {},
        "programs": {
            "udp-out": udp, "udp-in": udp, "call-out": call, "call-in": call,
            "ssh": {"survived": alive, "gap_ms": 2 * gap},
            "idle": {"survived": alive, "gap_ms": 60.0 if alive else None},
        },
    }  # fmt: skip


def test_figures_of_a_cell() -> None:
    rows = [row("ntmd", "hard", gap) for gap in (10, 20, 30)]
    rows.append(row("ntmd", "hard", 5, alive=False))
    cell = cells(rows)["ntmd", "hard"]
    assert (cell.count, cell.whole, cell.alive("ssh")) == (4, 3, (3, 4))
    assert sorted(cell.gaps("udp-out")) == [10, 20, 30, NEVER]
    assert cell.lost() == [12.0] * 4
    text = page.render(rows)["survival.md"]
    assert "| ntmd | 4 | 3/4 | 25 ms / never | 50 ms / never | 12 / 12 | 4.0 / 4.0 |" in text
    assert (
        "| hard move | mover sends: gap | <= 105 ms / 140 ms | 25 ms / never | 4 | met by" in text
    )


def test_each_goal_belongs_to_a_scenario() -> None:
    assert {goal.scenario for goal in GOALS} <= set(SCENARIOS)
    assert len(GOALS) == 14


def test_only_the_newest_setup_counts() -> None:
    rows = [row("ntmd", "hard", 1, setup="old"), row("x", "hard", 2), row("ntmd", "soft", 3)]
    assert [(each["product"], each["scenario"]) for each in newest(rows)] == [
        ("x", "hard"), ("ntmd", "soft"),
    ]  # fmt: skip


def test_figures_are_well_formed() -> None:
    rows = [row("ntmd", "hard", 10), row("<other>", "hard", 5, alive=False)]
    for name, text in page.render(rows).items():
        if name.endswith(".svg"):
            words = "".join(ElementTree.fromstring(text).itertext())
            assert "<other>" in words
            assert "hard move" in words


def test_the_committed_page_is_that_of_the_committed_lines() -> None:
    for name, text in page.render(page.rows()).items():
        assert (page.DOCS / name).read_text() == text, f"python -m tests.survival.page: {name}"
