"""The main job on a real kernel: two programs talk across two NATs while one end moves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.actors import wait_for
from tests.e2e.conftest import Town
from tests.e2e.lab.nats import NatKind
from tests.e2e.programs import Download, IdleTcp, Sshd, UdpFlow, ssh_session

DESK = "desk.home.test"


def test_names_tunnel_and_cleartext(town: Town, tmp_path: Path) -> None:
    """By name, from cold, direct in the end, and nothing readable on the uplink."""
    laptop = town.node("laptop", town.lab.nat())
    before = laptop.host.run("ping", "-6", "-c1", "-W1", DESK, check=False)
    assert before.returncode != 0  # nobody of that name yet
    desk = town.node("desk", town.lab.nat())
    capture = tmp_path / "uplink.pcap"
    tcpdump = laptop.host.start(
        "tcpdump", "-i", "eth0", "--immediate-mode", "-U", "-w", str(capture)
    )
    wait_for(lambda: capture.exists() and capture.stat().st_size > 0, 5)
    assert "1 received" in laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    idle = IdleTcp(desk.host, laptop.host, DESK)
    idle.speak("ntm-cleartext-marker" * 100)
    wait_for(lambda: capture.stat().st_size > 4000, 5)  # the word and its echo, sealed
    status = laptop.status()
    assert status["self"]["plane"] == "python"
    assert status["peers"][0]["tx_packets"] > 0
    tcpdump.terminate()
    tcpdump.wait()
    wire = capture.read_bytes()
    assert b"ntm-cleartext-marker" not in wire


def test_v4_only_to_v6_only(town: Town) -> None:
    laptop = town.node("laptop", town.lab.nat())
    town.node("desk", town.lab.nat(v4=False, v6=True))
    assert "3 received" in laptop.ping(DESK, "-c3", "-i0.3", "-W5")
    assert laptop.path_kind(DESK) == "relay"


@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
def test_programs_survive_a_hard_move(town: Town, tmp_path: Path, kind: NatKind) -> None:
    """ssh, curl, an idle TCP connection and a UDP flow, over a move to a NAT never seen."""
    laptop, desk = town.node("laptop", town.lab.nat(kind)), town.node("desk", town.lab.nat(kind))
    laptop.ping(DESK, "-c1", "-W5")
    sshd = Sshd(desk.host, tmp_path)
    time.sleep(0.5)
    session = ssh_session(laptop.host, sshd, DESK)
    session.wait_line("tick", 15)
    download = Download(desk.host, laptop.host, tmp_path, DESK, 8_000_000, "2M")
    idle = IdleTcp(desk.host, laptop.host, DESK)
    idle.speak("before")
    flow = UdpFlow(laptop.host, desk.host, tmp_path, DESK, seconds=6)
    address = laptop.status()["self"]["address"]
    time.sleep(2)
    laptop.host.ip("link del eth0")
    town.lab.plug(laptop.host, "wlan0", town.lab.nat(kind))
    time.sleep(2)
    idle.speak("after")
    moved = flow.finish()
    assert moved["gap_ms"] < 1000
    assert session.alive()
    assert time.monotonic() - session.at[-1][0] < 2
    assert sshd.connections() == 1
    assert idle.connections() == 1
    right, said = download.finish(60)
    assert right, said
    status = laptop.status()
    assert status["self"]["address"] == address
    assert status["handovers"]
    assert status["peers"][0]["path"]["interface"] == "wlan0"


def test_kill_and_come_back(town: Town) -> None:
    """kill -9 of the daemon: the host is usable, ``up`` brings the same address back."""
    laptop, desk = town.node("laptop", town.lab.nat()), town.node("desk", town.lab.nat())
    laptop.ping(DESK, "-c1", "-W5")
    me = laptop.status()["self"]
    laptop.host.run("kill", "-9", str(me["pid"]))
    wait_for(lambda: laptop.ntmd("status", check=False).returncode == 3, 5)
    laptop.host.run("ping", "-c1", "-W2", "198.51.100.1")
    took = laptop.up("--dns", "file")
    assert took < 10
    assert laptop.status()["self"]["address"] == me["address"]
    assert "1 received" in laptop.ping(DESK, "-c1", "-W5")
    assert "1 received" in desk.ping("laptop.home.test", "-c1", "-W5")


def test_server_killed_and_back(town: Town) -> None:
    """Tunnels outlive the server; after its restart addresses are the same."""
    laptop, desk = town.node("laptop", town.lab.nat()), town.node("desk", town.lab.nat())
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    address = desk.status()["self"]["address"]
    town.server.kill()
    assert "3 received" in laptop.ping(DESK, "-c3", "-i0.2", "-W2")
    town.server.start()
    third = town.node("tablet", town.lab.nat())
    assert "1 received" in third.ping(DESK, "-c1", "-W8")
    assert desk.status()["self"]["address"] == address


def test_down_gives_everything_back(town: Town) -> None:
    laptop = town.node("laptop", town.lab.nat())
    resolver = laptop.host.etc / "resolv.conf"
    assert "nameserver fd" in resolver.read_text()
    laptop.ntmd("down")
    assert "nameserver fd" not in resolver.read_text()
    assert "ntm0" not in laptop.host.ip("-br link")
    assert laptop.ntmd("status", check=False).returncode == 3
    assert laptop.ntmd("down").returncode == 0
