"""Freed tuples do not stay for good."""

from __future__ import annotations

import subprocess
import sys

LITTERED = """
import gc, sys
from ntmd.dataplane.litter import Sweeper

gc.set_threshold(50_000, 20, 100)
gc.collect()
gc.freeze()
sweeper = Sweeper()


def litter():
    # made at another length than they have when they are freed: so the list of that length grows
    for length in range(1, 10):
        for _ in range(2_000):
            tuple(each for each in range(length))


before = sys.getallocatedblocks()
litter()
littered = sys.getallocatedblocks()
swept = sweeper.sweep()
after = sys.getallocatedblocks()
litter()
print(littered - before, swept, after - before, sweeper.sweep())
"""


def test_a_sweep_lets_go_of_freed_tuples_but_not_all_the_time() -> None:
    run = subprocess.run([sys.executable, "-c", LITTERED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    kept, swept, left, again = run.stdout.split()
    assert int(kept) > 9_000, "CPython kept them"
    assert swept == "True"
    assert int(left) < 500
    assert again == "False"
