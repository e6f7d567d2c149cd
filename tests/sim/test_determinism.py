"""The same seed gives the same bytes: twice in one process, and in two with other hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.sim.link import Shape
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC
from tests.sim.story import Stage

ROOT = Path(__file__).parents[2]


def story(seed: int) -> tuple[str, int]:
    """Contact, traffic, a move, a coordinator's and a relay's restart over rough links."""
    stage = Stage(seed)
    domain = stage.domain()
    rough = Shape(delay=0.01, jitter=0.004, loss=0.03, duplicate=0.03, reorder=0.05)
    mn = stage.node("mn", stage.world.home(PORT_RESTRICTED), shape=rough)
    cn = stage.node("cn", stage.world.home(SYMMETRIC), shape=rough)
    third = stage.node("third", stage.world.home(None, v6=True), shape=rough)
    stage.all_up()
    stage.first_answer(mn, cn)
    stage.first_answer(third, mn)
    stage.stream(mn, cn, 300)
    stage.stream(cn, third, 100)
    stage.run(1)
    mn.host.move("eth0", stage.world.home(PORT_RESTRICTED))
    stage.run(2)
    domain.dc.restart()
    domain.rs.restart()
    stage.run(5)
    cn.restart()
    stage.run(5)
    return stage.world.trace.digest(), stage.world.trace.count


def test_twice_in_one_process() -> None:
    first, count = story(11)
    assert count > 3000
    assert story(11) == (first, count)


def test_another_seed_is_another_story() -> None:
    assert story(12)[0] != story(11)[0]


def test_two_processes_with_different_hash_seeds() -> None:
    told = []
    for hash_seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "servers")])
        run = subprocess.run(
            [sys.executable, "-m", "tests.sim.test_determinism"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(run.stdout)
    assert told[0].count(" ") == 1
    assert len(set(told)) == 1, told


if __name__ == "__main__":
    print(*story(11))
