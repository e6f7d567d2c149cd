"""A firewall refuses the direct way, and says so by ICMP: a hint that is acted on at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.actors import wait_for
from tests.e2e.conftest import Town
from tests.e2e.programs import UdpFlow

DESK = "desk.home.test"
SILENCE = 200.0  # ms: what it would take without the hint, at least (rule C6)
REFUSE = """
table inet wall {{
    chain through {{
        type filter hook forward priority -10
        ip daddr {there} meta l4proto udp reject with icmp type {why}
    }}
}}
"""


@pytest.mark.parametrize("why", ["port-unreachable", "admin-prohibited"])
def test_refused_datagrams_go_over_the_relay_at_once(town: Town, tmp_path: Path, why: str) -> None:
    """Only the sender talks, so that no silence tells it anything."""
    line, far = town.lab.nat(), town.lab.nat()
    laptop, desk = town.join(("laptop", line), ("desk", far))
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == desk.path_kind("laptop.home.test") == "direct", 10)
    flow = UdpFlow(laptop.host, desk.host, tmp_path, DESK, seconds=4)
    time.sleep(1.5)
    line.space.nft(REFUSE.format(there=far.public4, why=why))
    told = flow.finish()
    assert laptop.status()["drops"]["out_refused"] >= 1
    assert laptop.path_kind(DESK) == "relay"
    assert told["gap_ms"] < SILENCE / 2, told
    assert told["lost"] <= SILENCE / 2 / 10, told
