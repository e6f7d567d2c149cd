"""``make mutants``: break ten named places, one at a time; each must turn the tests red.

Every mutant is a change of one place in a copy of the tree. The chosen tests first run on the copy
as it is: were they red there, red would prove nothing. That, a mutant whose place is gone, and one
that survives fail the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("ntmd", "servers", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """``before`` occurs once in ``file``; with ``after`` instead, one of ``tests`` must fail."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "no replay check",
        "ntmd/proto/channel.py",
        "if not session.window.check(counter):",
        "if False:",
        ("tests/unit/proto/test_refusals.py",),
    ),
    Mutant(
        "no source check",
        "ntmd/dataplane/runs.py",
        'return "in_wrong_source" if source != wanted[:16] else "in_wrong_destination"',
        'return ""',
        ("tests/unit/dataplane/test_runs.py",),
    ),
    Mutant(
        "wrong key accepted",
        "ntmd/proto/handshake.py",
        "if leaf.key != key:",
        "if False:",
        ("tests/unit/proto/test_refusals.py",),
    ),
    Mutant(
        "nonce reused",
        "ntmd/proto/channel.py",
        "session.counter = counter + 1",
        "session.counter = counter",
        ("tests/unit/proto/test_association.py",),
    ),
    Mutant(
        "promotion without proof",
        "ntmd/node/path.py",
        "return path.relayed or self.validity(path) in PROVEN",
        "return True",
        ("tests/unit/node/test_path.py",),
    ),
    Mutant(
        "CN second",
        "servers/ntm_dc/directions.py",
        "        self.direct(called, to_called, ready, now)\n\n    def route(",
        "        ready(m.Status.OK, '', now)\n"
        "        self.direct(called, to_called, lambda *_: None, now)\n\n    def route(",
        ("tests/unit/servers/test_dc_core.py",),
    ),
    Mutant(
        "no cookie",
        "ntmd/proto/flood.py",
        "return max(self._count, self._before) > timing.INITIATIONS_UNDER_LOAD",
        "return False",
        ("tests/unit/proto/test_handshake.py",),
    ),
    Mutant(
        "DNS for a foreign name",
        "ntmd/node/names.py",
        'return any(name.endswith("." + domain) for domain in domains)',
        "return True",
        ("tests/unit/node/test_core.py",),
    ),
    Mutant(
        "stale resolv.conf",
        "ntmd/platform/linux/resolvconf.py",
        "            self._restore(self._load())\n",
        "            pass\n",
        ("tests/unit/platform/test_device.py",),
    ),
    Mutant(
        "unbounded queue",
        "ntmd/dataplane/parking.py",
        "while lot.count > timing.PARKED_PACKETS:",
        "while False:",
        ("tests/unit/dataplane/test_parking.py",),
    ),
)


def pytest(tree: Path, tests: Iterable[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy of the tree, until the first failure."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *options, *tests],
        cwd=tree,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def baseline(tree: Path, mutants: Iterable[Mutant]) -> str:
    """Run all chosen tests on the unchanged copy; what failed, or an empty string."""
    chosen = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    done = pytest(tree, chosen, "-n", "2")
    return "" if done.returncode == 0 else done.stdout[-4000:]


def run(mutant: Mutant, tree: Path) -> str:
    """Plant one mutant, run its tests; what is wrong with the outcome, or an empty string."""
    target = tree / mutant.file
    original = target.read_text(encoding="utf-8")
    if original.count(mutant.before) != 1:
        return f"its place in {mutant.file} is gone"
    target.write_text(original.replace(mutant.before, mutant.after), encoding="utf-8")
    done = pytest(tree, mutant.tests)
    target.write_text(original, encoding="utf-8")
    if done.returncode == 1:
        return ""
    return "survived" if done.returncode == 0 else f"tests could not run:\n{done.stdout[-2000:]}"


def main() -> int:
    """Exit code 0 if every mutant was found."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="ntmd-mutants-") as folder:
        tree = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "e2e")
                )
            else:
                shutil.copy(source, tree / name)
        red = baseline(tree, MUTANTS)
        if red:
            print(f"the unchanged tree fails already; no mutant was planted:\n{red}")
            return 1
        for mutant in MUTANTS:
            problem = run(mutant, tree)
            wrong += bool(problem)
            print(f"mutant: {mutant.name}: {problem or 'found'}", flush=True)
    print(f"{len(MUTANTS) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
