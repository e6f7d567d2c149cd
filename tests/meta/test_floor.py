"""End-to-end tests only become more: a test that is deleted, or no longer found, is noticed."""

from __future__ import annotations

import ast
from pathlib import Path

FLOOR = 30
E2E = Path(__file__).parents[1] / "e2e"


def test_the_number_of_end_to_end_tests_never_falls() -> None:
    found = [
        node.name
        for path in sorted(E2E.glob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(found) >= FLOOR, found
