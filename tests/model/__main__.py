"""Long runs of random histories: ``python -m tests.model --transitions 100000 --seed 1``."""

from __future__ import annotations

import argparse
import sys

from tests.model.campaign import timed


def main() -> int:
    """Run and report; 1 if a history failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--transitions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-shrink", action="store_true", help="report failures as they are")
    options = parser.parse_args()
    report, seconds = timed(
        options.seed, options.transitions, options.jobs, small=not options.no_shrink
    )
    print(report.words(seconds))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
