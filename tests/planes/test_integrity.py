"""What goes in comes out: hashes over streams, CRC and order of datagrams, whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ntmd.proto import timing
from tests.planes.ground import A, B, Ground, sh

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and a TUN"
    ),
]
STREAM = 40_000_000
DATAGRAMS = 15_000


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"pl{os.getpid() % 100_000}{abs(hash(request.node.name)) % 1000}"


def exchange(ground: Ground, kind: str, to: str, port: int, amount: int) -> tuple[Any, Any]:
    """One program sends to the other; what each has to say."""
    receiver_side, sender_side = ("b", "a") if to == B else ("a", "b")
    program = [sys.executable, "-m", "tests.planes.traffic"]
    receiver = ground.start(
        receiver_side,
        *program,
        f"{kind}-receive",
        str(port),
        str(amount),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "listening\n"
    sender = ground.start(
        sender_side,
        *program,
        f"{kind}-send",
        to,
        str(port),
        str(amount),
        str(port),
        stdout=subprocess.PIPE,
        text=True,
    )
    said = [json.loads(each.communicate(timeout=60)[0]) for each in (sender, receiver)]
    return said[0], said[1]


def settled(count: Callable[[], int], within: float = 5.0) -> int:
    """A count once it stands still: the last copies may be on their way when all has arrived."""
    end, last = time.monotonic() + within, count()
    while time.monotonic() < end:
        time.sleep(0.1)
        last, before = count(), last
        if last == before:
            break
    return last


def drop_one_in(ground: Ground, share: int) -> None:
    for side in "ab":
        inside = " ".join(ground.command(side, "nft"))
        sh(f"{inside} add table inet f")
        sh(f"{inside} add chain inet f in {{ type filter hook input priority 0 ; }}")
        sh(f"{inside} add rule inet f in udp dport 4500 numgen random mod {share} 0 drop")


@contextmanager
def deaf(ground: Ground, link: int) -> Iterator[None]:
    """One link brings nothing to ``b`` meanwhile: by chance, whole runs would be lost."""
    inside = " ".join(ground.command("b", "nft"))
    sh(f"{inside} add table inet d")
    sh(f"{inside} add chain inet d in {{ type filter hook input priority 0 ; }}")
    sh(f"{inside} add rule inet d in iifname u{link} udp dport 4500 drop")
    yield
    sh(f"{inside} delete table inet d")


@pytest.mark.parametrize("options", [(), ("--complete",), ("--suite", "CHACHA")])
@pytest.mark.parametrize("v6", [False, True])
def test_streams_and_datagrams_arrive_whole(name: str, options: tuple[str, ...], v6: bool) -> None:
    with Ground(name, v6=v6) as ground:
        ground.tunnel(*options)
        ground.tell("a", "storm 1000")
        ground.tell("b", "storm 1000")
        for to, port in ((B, 7001), (A, 7002)):
            sent, received = exchange(ground, "tcp", to, port, STREAM)
            assert received == sent
            sent, received = exchange(ground, "udp", to, port, DATAGRAMS)
            assert received == {"received": DATAGRAMS, "bad": 0, "late": 0, "copies": 0}
        for side in "ab":
            stats = ground.stats(side)
            assert set(stats["drops"]) <= {"out_local_only"}, stats
            assert stats["lost"] == stats["duplicated"] == 0
            assert stats["storms"] > 500
            assert stats["storm_rate"] > 900, "a second: install, switch, remove"
            assert 0 < stats["gauges"]["tun_writes"] < STREAM / 1400, "nothing was joined"


@pytest.mark.parametrize("options", [(), ("--complete",)])
def test_loss_damages_nothing_that_arrives(name: str, options: tuple[str, ...]) -> None:
    with Ground(name) as ground:
        ground.tunnel(*options)
        drop_one_in(ground, 50)
        sent, received = exchange(ground, "tcp", B, 7001, STREAM // 10)
        assert received == sent
        sent, received = exchange(ground, "udp", B, 7001, DATAGRAMS)
        assert received["bad"] == received["late"] == received["copies"] == 0
        assert DATAGRAMS // 2 < received["received"] < DATAGRAMS
        assert ground.stats("b")["lost"] > 0


def test_a_second_path_makes_up_for_the_first_within_the_budget(name: str) -> None:
    with Ground(name, links=2) as ground:
        ground.tunnel()
        few = DATAGRAMS // 75
        whole = {"received": few, "bad": 0, "late": 0, "copies": 0}
        _, received = exchange(ground, "udp", B, 7003, few)
        assert received | {"late": 0} == whole
        before = settled(lambda: ground.stats("b")["drops"].get("in_duplicate", 0))
        limited = ground.stats("a")["drops"].get("out_copy_limited", 0)
        assert before > 0
        assert before + limited > few * 0.95, "each left twice, or was counted against the budget"
        for link in range(2):
            with deaf(ground, link):
                _, received = exchange(ground, "udp", B, 7004 + link, few)
                assert received == whole, "one path makes up for the other"
        before = settled(lambda: ground.stats("b")["drops"]["in_duplicate"])
        sent, received = exchange(ground, "tcp", B, 7001, STREAM)
        assert received == sent
        copies = ground.stats("b")["drops"]["in_duplicate"] - before
        assert copies * 1400 < timing.DOUBT_BYTES * 2, "most of a bulk stream leaves once"


def test_the_plane_ends_with_the_daemon_and_the_daemon_learns_of_its_end(name: str) -> None:
    with Ground(name) as ground:
        planes = ground.tunnel()
        end = ground.ends["a"]
        end.kill()
        assert gone(planes["a"], 1.0), "an orphan holds the TUN"
        end.wait()
        os.kill(planes["b"], 9)
        with pytest.raises(RuntimeError, match="ended with code -9"):
            ground.answer("b")


def gone(pid: int, within: float) -> bool:
    """Whether a process has ended (a zombie that nobody waited for has) in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_an_idle_plane_sleeps(name: str) -> None:
    with Ground(name) as ground:
        planes = ground.tunnel()
        time.sleep(2.5)  # the kernel's own router solicitations
        before = wakeups(planes["a"])
        time.sleep(2.0)
        assert wakeups(planes["a"]) - before <= 2


def wakeups(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("voluntary_ctxt_switches:")[1].split()[0])
