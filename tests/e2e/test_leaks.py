"""A short form of ``python -m tests.bench.leaks``, which makes a thousand moves."""

from __future__ import annotations

from pathlib import Path

from tests.bench import leaks


def test_sixty_moves_leave_nothing_behind(tmp_path: Path) -> None:
    """No descriptor, task, process, address, route, rule or packet filter more, at both ends."""
    found = leaks.measure(tmp_path, 60, 0.2)
    assert found["left"] == [{}, {}]
    assert found["told"][1] >= 50, "the desk did not follow"
