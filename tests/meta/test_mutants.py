"""The mutant run tells a red tree from a green one, and a found mutant from a surviving one."""

from __future__ import annotations

from pathlib import Path

from tests.meta import mutants
from tests.meta.mutants import MUTANTS, ROOT, Mutant

SEEN = Mutant("seen", "sum.py", "a + b", "a - b", ("test_sum.py",))
UNSEEN = Mutant("unseen", "sum.py", "def add", "def add ", ("test_sum.py",))
GONE = Mutant("gone", "sum.py", "a * b", "a / b", ("test_sum.py",))


def tree(folder: Path, expected: int) -> Path:
    (folder / "sum.py").write_text("def add(a, b):\n    return a + b\n")
    (folder / "test_sum.py").write_text(
        f"from sum import add\n\ndef test_add():\n    assert add(1, 2) == {expected}\n"
    )
    (folder / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\npythonpath = ['.']\n"
    )
    return folder


def test_a_tree_that_is_red_already_proves_nothing(tmp_path: Path) -> None:
    assert "1 failed" in mutants.baseline(tree(tmp_path, 4), (SEEN,))


def test_found_survived_and_gone(tmp_path: Path) -> None:
    made = tree(tmp_path, 3)
    assert mutants.baseline(made, (SEEN, UNSEEN)) == ""
    assert mutants.run(SEEN, made) == ""
    assert mutants.run(UNSEEN, made) == "survived"
    assert "is gone" in mutants.run(GONE, made)


def test_every_place_is_there_once() -> None:
    for mutant in MUTANTS:
        assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.before) == 1, mutant
