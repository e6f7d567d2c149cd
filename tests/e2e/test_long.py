"""What takes time: many rekeys under load on a bad line, and a night of idleness in short."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.e2e.actors import Node, wait_for
from tests.e2e.conftest import Town
from tests.e2e.programs import Download, Sshd, UdpFlow, ssh_session

DESK, LAPTOP = "desk.home.test", "laptop.home.test"
REKEY = 3  # seconds between data keys
REKEYS = 10
HEADERS = 20 + 8 + 32 + 40 + 8  # IPv4, UDP, seal, and inside IPv6, UDP
SIZES = {"a": 211, "b": 219}  # bytes of the datagrams each way; no TCP segment is as long sealed
LIFETIME = 120  # of an idle mapping: what RFC 4787 asks of NATs at least, seconds


class Rekeys(threading.Thread):
    """Counts how often the tunnel's session gets younger."""

    def __init__(self, node: Node, peer: str) -> None:
        super().__init__(daemon=True)
        self.node, self.peer, self.count, self.over = node, peer, 0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look twice a second."""
        age = 0.0
        while not self.over.wait(0.5):
            now = self.node.peer(self.peer)["session_age_s"]
            self.count += now < age
            age = now


def test_ten_rekeys_on_a_bad_line_lose_nothing(town: Town, tmp_path: Path) -> None:
    """ssh, a download and UDP both ways, 1 % loss and reordering: what is lost, the line lost."""
    line = town.lab.nat(shim=True)
    laptop, desk = town.join(("laptop", line), ("desk", town.lab.nat()), options=["--rekey", "3"])
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == desk.path_kind(LAPTOP) == "direct", 10)
    assert line.shim is not None
    before = line.shim.set(
        delay=0.005, jitter=0.002, loss=0.01, reorder=0.05, reorder_by=0.004, queue=20_000
    )
    sshd = Sshd(desk.host, tmp_path)
    session = ssh_session(laptop.host, sshd, DESK)
    session.wait_line("tick", 15)
    seconds = REKEY * (REKEYS + 2.5)
    size = int(seconds * 200_000)
    download = Download(desk.host, laptop.host, tmp_path, DESK, size, "200k")
    rekeys = Rekeys(laptop, DESK)
    flows = {
        "a": UdpFlow(laptop.host, desk.host, tmp_path, DESK, seconds=seconds, port=9991,
                     size=SIZES["a"]),
        "b": UdpFlow(desk.host, laptop.host, tmp_path, LAPTOP, seconds=seconds, port=9992,
                     size=SIZES["b"]),
    }  # fmt: skip
    told = {end: flow.finish() for end, flow in flows.items()}
    rekeys.over.set()
    assert rekeys.count >= REKEYS
    counted = line.shim.set(loss=0.0, reorder=0.0)
    assert counted["overflowed"] == before["overflowed"]
    for end, size_ in SIZES.items():
        dropped = counted.get(f"lost {end} {HEADERS + size_}", 0)
        assert dropped > 0, "the line lost nothing: this test shows nothing"
        assert told[end]["lost"] <= dropped, (end, told[end], dropped)
        assert told[end]["duplicated"] == 0
    right, said = download.finish(60)
    assert right, said
    assert session.alive()
    assert sshd.connections() == 1
    assert time.monotonic() - session.at[-1][0] < 2


@pytest.mark.timeout(LIFETIME + 60)
def test_an_idle_tunnel_outlives_the_nats_mapping(town: Town) -> None:
    """Nobody speaks for longer than both NATs keep an idle mapping: the peer's first ping comes
    through, in both directions, and the direct path is found again."""
    nats = [town.lab.nat(lifetime=LIFETIME), town.lab.nat(lifetime=LIFETIME)]
    laptop, desk = town.join(("laptop", nats[0]), ("desk", nats[1]))
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == desk.path_kind(LAPTOP) == "direct", 10)
    time.sleep(LIFETIME + 5)
    assert "1 received" in desk.ping(LAPTOP, "-c1", "-W1")
    wait_for(lambda: laptop.path_kind(DESK) == desk.path_kind(LAPTOP) == "direct", 5)
    assert "3 received" in laptop.ping(DESK, "-c3", "-i0.2", "-W1")
