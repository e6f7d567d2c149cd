"""The simulator runs production cores and real crypto: nothing in it is replaced."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIM = sorted((ROOT / "tests" / "sim").glob("*.py"))
OURS = ("ntmd", "ntm_as", "ntm_dc", "ntm_rs", "ntm_server")
FORBIDDEN_MODULES = {"unittest.mock", "mock", "pytest_mock", "socket", "asyncio", "threading"}
FORBIDDEN_NAMES = {"monkeypatch", "mocker", "MagicMock", "setattr", "exec", "eval", "importlib"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def our_names(module: ast.Module) -> set[str]:
    """Names in a file that stand for modules or classes of the project."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in OURS:
                    names.add((alias.asname or alias.name).split(".")[0])
    return names


def root_name(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def test_there_is_a_simulator() -> None:
    assert len(SIM) >= 8


@pytest.mark.parametrize("path", SIM, ids=lambda path: path.name)
def test_no_mocking_and_no_real_network(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in FORBIDDEN_MODULES
        elif isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN_NAMES, f"{path.name}:{node.lineno}"
        elif isinstance(node, ast.arg):
            assert node.arg not in FORBIDDEN_NAMES, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", SIM, ids=lambda path: path.name)
def test_nothing_of_the_project_is_assigned_to(path: Path) -> None:
    module = tree(path)
    ours = our_names(module)
    for node in ast.walk(module):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Attribute):
                assert root_name(target) not in ours, f"{path.name}:{target.lineno}"


@pytest.mark.parametrize("path", SIM, ids=lambda path: path.name)
def test_no_core_engine_or_cipher_has_a_stand_in(path: Path) -> None:
    module = tree(path)
    ours = our_names(module)
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                assert root_name(base) not in ours, f"{node.name} derives from the project's own"
            assert not node.name.endswith(("Core", "Engine", "Aead", "Cipher")), node.name
