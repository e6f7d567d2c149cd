"""Long runs of random histories: ``python -m tests.model --transitions 100000 --seed 1``.

``--record`` adds what the run came to, and of which tree, to runs.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.model.campaign import SIZE, starts, timed

RUNS = Path(__file__).with_name("runs.json")


def recorded() -> set[int]:
    """First seeds of all chunks on record, of which each took at least five histories."""
    found: set[int] = set()
    for row in json.loads(RUNS.read_text()):
        seeds = row["seed"] if isinstance(row["seed"], list) else [row["seed"]]
        chunks = -(-row["histories"] // (5 * len(seeds)))
        found.update(first for seed in seeds for first in starts(seed, SIZE * chunks))
    return found


def unused() -> str:
    """A seed beyond all on record."""
    return str((max(recorded()) // 1_000_000 + 1) * 1_000_000 + 1)


def main() -> int:
    """Run and report; 1 if a history failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--transitions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-shrink", action="store_true", help="report failures as they are")
    parser.add_argument("--record", action="store_true", help="add the run to runs.json")
    options = parser.parse_args()
    if options.record and not recorded().isdisjoint(starts(options.seed, options.transitions)):
        parser.error("runs.json has histories of these seeds: take others, e.g. --seed " + unused())
    report, seconds = timed(
        options.seed, options.transitions, options.jobs, small=not options.no_shrink
    )
    print(report.words(seconds))
    if options.record:
        tree = subprocess.check_output(["git", "write-tree"], text=True).strip()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        row = {"at": at, "tree": tree, "seed": options.seed, **report.row(seconds)}
        RUNS.write_text(json.dumps([*json.loads(RUNS.read_text()), row], indent=1) + "\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
