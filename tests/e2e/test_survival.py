"""A taste of the survival matrix (``make survival``), so that its harness cannot rot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.survival import page
from tests.survival.products.ntmd import Ntmd
from tests.survival.run import repetition
from tests.survival.scenarios import SCENARIOS

CARRIED = 200_000  # bytes: less would mean that the programs did not use the tunnel


@pytest.mark.parametrize("name", ["hard", "hard-peer", "hard-idle"])
def test_programs_survive(name: str, tmp_path: Path) -> None:
    scenario = dataclasses.replace(SCENARIOS[name], quiet=1.0)
    product = Ntmd()
    row = repetition(product, scenario, tmp_path)
    programs = row["programs"]
    assert all(each["survived"] for each in programs.values()), programs
    told = dataclasses.asdict(product.version())
    line = {
        "product": told.pop("name"), **told, "scenario": name, "machine": "here",
        "date": "2026-01-01 00:00", "load": 0.0, **row,
    }  # fmt: skip
    if scenario.set == "all":
        assert len(programs) == 9
        assert row["tunnel_bytes"] > CARRIED
        assert programs["call-out"]["mos"] > 2
    text = page.render([line])["survival.md"]
    assert f"| **{scenario.title}**: {scenario.words} | ntmd | 1 | 1/1 |" in text
