"""A router on the way becomes narrow, and its ICMP is eaten: programs go on (rule S5)."""

from __future__ import annotations

import shlex
import time
from itertools import pairwise
from pathlib import Path

from tests.e2e.actors import wait_for
from tests.e2e.conftest import Town
from tests.e2e.lab.topology import Nat
from tests.e2e.programs import Download

DESK = "desk.home.test"
SIZE = 24_000_000
STALL = 2.0  # seconds that bulk may stand still
PACE = "qdisc add dev eth0 root tbf rate 24mbit burst 64kb latency 50ms"
NO_ICMP = "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; }; "
NO_ICMP += "add rule inet quiet out icmp type destination-unreachable drop"


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def narrow(nat: Nat, mtu: int) -> None:
    """Every interface of the router carries less from now on, and it tells nobody."""
    nat.space.run("nft", NO_ICMP)
    for line in nat.space.run("ip", "-o", "link").stdout.splitlines():
        name = line.split(": ")[1].partition("@")[0]
        if name != "lo":
            nat.space.ip(f"link set {name} mtu {mtu}")


def test_a_download_goes_on_when_the_path_shrinks_and_nobody_says_so(
    town: Town, tmp_path: Path
) -> None:
    line = town.lab.nat()
    laptop, desk = town.join(("laptop", line), ("desk", town.lab.nat()))
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    # the line sets the pace: a limit of curl's own would be a standstill of its own
    desk.host.run("tc", *shlex.split(PACE))
    download = Download(desk.host, laptop.host, tmp_path, DESK, SIZE, "1G")
    wait_for(lambda: desk.peer("laptop.home.test")["path"]["mtu"] == 1500, 10)
    wait_for(lambda: size_of(download.copy) > 3_000_000, 10)
    narrow(line, 1280)
    grown, size, until = [time.monotonic()], 0, time.monotonic() + 5
    while time.monotonic() < until and size < SIZE:
        now = size_of(download.copy)
        if now != size:
            size = now
            grown.append(time.monotonic())
        time.sleep(0.02)
    assert size > SIZE // 3  # 3 MB before, and what the line gives in at least three seconds
    assert max(later - sooner for sooner, later in pairwise(grown)) <= STALL
    assert desk.peer("laptop.home.test")["path"]["mtu"] == 1280
    same, said = download.finish(30)
    assert same, said
