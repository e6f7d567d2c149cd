"""A build that does not carry right is told from one that does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import integrity


@pytest.mark.parametrize(("body", "green"), [("True", True), ("False", False)])
def test_the_verdict_is_that_of_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, green: bool
) -> None:
    case = tmp_path / "test_case.py"
    case.write_text(f"def test_case():\n    assert {body}\n")
    monkeypatch.setattr(integrity, "RUN", (str(case),))
    found = integrity.check()
    assert found.green is green
    assert ("**not green**" in str(found)) is not green
    assert found.build == integrity.build()


def test_a_run_without_an_end_is_not_green(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = tmp_path / "test_case.py"
    case.write_text("import time\n\ndef test_case():\n    time.sleep(60)\n")
    monkeypatch.setattr(integrity, "RUN", (str(case),))
    monkeypatch.setattr(integrity, "LIMIT", 2)
    assert not integrity.check().green
