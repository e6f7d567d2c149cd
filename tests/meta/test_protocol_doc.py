"""docs/protocol.md says what the code does, and the check can tell when it does not."""

from __future__ import annotations

import pytest

from ntmd.proto import timing
from tests.meta import protocol_doc


def page() -> str:
    return protocol_doc.PAGE.read_text(encoding="utf-8")


def test_tables_are_those_of_the_code() -> None:
    assert protocol_doc.stale(page()) == []


def test_writing_again_changes_nothing() -> None:
    assert protocol_doc.render(page()) == page()


def test_a_changed_timer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "REKEY_AFTER", 121.0)
    assert protocol_doc.stale(page()) == ["timers"]


def test_a_missing_table_is_noticed() -> None:
    cut = page().replace("<!-- table: numbers -->", "")
    assert protocol_doc.stale(cut) == ["numbers"]


def test_remarks_stand_beside_what_they_explain() -> None:
    assert "| 3 | `POST_QUANTUM` | reserved" in page()
    assert "| 2 | `REFUSED` | policy, role or authority |" in page()
    assert "| 0 | `NONE` |  |" in page()


def test_every_timer_is_in_the_page() -> None:
    names = [name for name in vars(timing) if name.isupper()]
    assert len(names) > 80
    assert all(f"| `{name}` |" in page() for name in names)
