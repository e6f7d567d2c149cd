"""No test is skipped, expected to fail or run again, but for those in ``skips.txt``."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("skips.txt")
SKIPS = {"skip", "skipif", "importorskip"}
NEVER = {"xfail", "flaky"}


def called(node: ast.AST) -> str:
    """``pytest.skip(...)``, ``@pytest.mark.skipif(...)``, ``@pytest.mark.xfail``: the last word."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
        base = node.value
        name = base.id if isinstance(base, ast.Name) else base.attr
        if name in ("pytest", "mark", "unittest"):
            return node.attr
    return ""


def reason(call: ast.Call) -> str:
    """The reason given to a skip."""
    named = [word.value for word in call.keywords if word.arg in ("reason", "msg")]
    for value in [*named, *call.args]:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return "(none)"


def test_every_skip_is_listed_with_its_reason() -> None:
    found, forbidden = set(), []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and called(node) in NEVER:
                forbidden.append(f"{place}:{node.lineno}")
            if isinstance(node, ast.Call) and called(node.func) in SKIPS:
                found.add(f"{place}: {reason(node)}")
    lines = LIST.read_text(encoding="utf-8").splitlines()
    assert found == {line for line in lines if line and not line.startswith("#")}
    assert not forbidden
