"""A search over several targets: ``python -m tests.fuzz.search SECONDS [TARGET ...]``.

Each target runs for SECONDS in a process of its own; what adds coverage is reduced to a smallest
set and added to ``tests/fuzz/corpus/TARGET.hex``. Ends with 1 if a target failed; the input lies
in ``out/fuzz/failed``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS, samples

CORPUS = Path(__file__).parent / "corpus"
OUT = Path("out") / "fuzz"
LONGEST = 2048  # bytes; longer inputs are not kept
MOST = 160  # inputs added to a target's, the shortest first


def atheris(target: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one target to its end."""
    command = [sys.executable, "-m", "tests.fuzz.fuzz", target, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def search(target: str, seconds: int) -> bool:
    """Search, then keep what covers most with least; False if an input failed."""
    began = time.monotonic()
    failed = OUT / "failed"
    failed.mkdir(parents=True, exist_ok=True)
    run = atheris(
        target,
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=10",
        f"-artifact_prefix={failed}/{target}-",
    )
    runs = [line for line in run.stderr.splitlines() if line.startswith("Done ")]
    kept = keep(target)
    took = time.monotonic() - began
    print(
        f"{target:<12} {took:6.1f} s  {kept:4} kept  {runs[-1] if runs else 'FAILED'}", flush=True
    )
    if run.returncode:
        print(run.stderr[-3000:], flush=True)
    return run.returncode == 0


def keep(target: str) -> int:
    """Reduce what was found to a set with the same coverage; returns its size."""
    small = OUT / f"{target}-kept"
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir(parents=True)
    # The folder named last by the target's own program is read, the one named first is written.
    atheris(target, "-set_cover_merge=1", str(small))
    found = {path.read_bytes() for path in small.iterdir()} - set(samples(target))
    lines = sorted((data for data in found if 0 < len(data) <= LONGEST), key=lambda d: (len(d), d))
    with (CORPUS / f"{target}.hex").open("a", encoding="ascii") as corpus:
        corpus.writelines(data.hex() + "\n" for data in lines[:MOST])
    return len(lines[:MOST])


def main() -> int:
    """Entry point."""
    names = sys.argv[2:] or list(TARGETS)
    if len(sys.argv) < 2 or not sys.argv[1].isdigit() or set(names) - set(TARGETS):
        sys.exit(f"usage: python -m tests.fuzz.search SECONDS [{' | '.join(TARGETS)}] ...")
    failures = [name for name in names if not search(name, int(sys.argv[1]))]
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
