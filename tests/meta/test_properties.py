"""A property test that throws most of its examples away fails; sums are printed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TEST = """
from hypothesis import assume, given, strategies as st

@given(st.integers(0, 10**6))
def test_wasteful(n):
    assume(n % 3 == 0)

@given(st.integers(0, 10**6))
def test_thrifty(n):
    assume(n != 5)
"""


def test_wasteful_property_tests_fail(tmp_path: Path) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_both.py").write_text(TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 1 passed" in done.stdout
    assert "examples were discarded" in done.stdout
    assert "2 property tests: 120 examples run" in done.stdout
