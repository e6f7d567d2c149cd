"""The habits of docs/architecture.md: pure cores, small files and functions, nothing unfinished."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES, FUNCTION_LINES = 500, 50
SOURCES = sorted(
    path for top in ("ntmd", "servers", "tools") for path in (ROOT / top).rglob("*.py")
)
PURE = sorted(
    [
        *(ROOT / "ntmd" / "proto").rglob("*.py"),
        *(ROOT / "ntmd" / "node").rglob("*.py"),
        *(ROOT / "ntmd" / "dataplane" / f"{name}.py" for name in ("table", "outbound", "inbound")),
        *(ROOT / "servers").glob("*/core.py"),
    ]
)
IMPURE = {
    "asyncio", "socket", "select", "selectors", "fcntl", "time", "os", "random", "secrets", "uuid",
    "threading", "multiprocessing", "signal", "subprocess",
}  # fmt: skip
CLOCKS_AND_DICE = {
    "now", "today", "utcnow", "generate", "generate_key", "generate_private_key", "urandom",
    "random_serial_number",
}  # fmt: skip
UNFINISHED = ("TODO", "FIXME", "XXX", "NotImplementedError")
VAGUE = ("Manager", "Helper", "Util", "Utils")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function behind its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or node.lineno) - body[0].lineno + 1 if body else 0


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 60
    assert len(PURE) > 30
    assert all(path.is_file() for path in PURE)


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_cores_touch_no_world(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & IMPURE, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in IMPURE, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in CLOCKS_AND_DICE, f"line {node.lineno}: .{node.func.attr}()"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_small_and_finished(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FILE_LINES
    assert not [word for word in UNFINISHED if word in text]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = body_lines(node)
            assert size <= FUNCTION_LINES, f"{node.name}: {size} lines"
        elif isinstance(node, ast.ClassDef):
            assert not node.name.endswith(VAGUE), node.name
