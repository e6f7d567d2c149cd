"""``make demo`` succeeds, and prints what the README shows."""

from __future__ import annotations

from tests.meta import console


def test_the_demo_prints_what_the_readme_shows() -> None:
    assert console.masked(console.demo()) == console.masked(console.blocks()["demo"])
