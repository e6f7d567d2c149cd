"""The main job on a real kernel: two programs talk across two NATs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.bench.load import iperf
from tests.e2e.actors import Node, wait_for
from tests.e2e.capture import Capture, tun_bytes
from tests.e2e.conftest import Town
from tests.e2e.lab.netns import Namespace
from tests.e2e.programs import MARK, IdleTcp, Sshd, listening

DESK = "desk.home.test"


def programs(host: Namespace, folder: Path) -> dict[str, bool]:
    """Which programs reach the desk by its name, each started once."""
    commands = {
        "ping": ("ping", "-6", "-c1", "-W3", DESK),
        "curl": ("curl", "-6", "-sS", "-m5", "--retry", "0", f"http://{DESK}:8080/"),
        "ssh": (
            "ssh", "-6", "-i", str(folder / "ssh" / "key"), "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "ConnectTimeout=5", f"root@{DESK}", "true",
        ),
    }  # fmt: skip
    return {
        name: host.run(*command, check=False).returncode == 0 for name, command in commands.items()
    }


def test_names_tunnel_and_cleartext(town: Town, tmp_path: Path) -> None:
    """What fails without ntmd works with it, by name, from cold, direct in the end; it goes through
    the TUN, and nothing of it can be read on any uplink. After ``down`` it fails again."""
    desk = town.node("desk", town.lab.nat())
    Sshd(desk.host, tmp_path)
    desk.host.start(sys.executable, "-m", "http.server", "8080", "--bind", "::", "-d", "/var/empty")
    listening(desk.host, 8080)
    host = town.lab.space("laptop")
    town.lab.plug(host, "eth0", town.lab.nat())
    laptop = Node(host, tmp_path / "laptop", "laptop")
    assert not any(programs(host, tmp_path).values()), "these programs must need ntmd"
    laptop.join(town.server.invite(), "--dns", "file")
    wires = [Capture(node.host, "eth0", tmp_path / f"{node.name}.pcap") for node in (laptop, desk)]
    assert all(programs(host, tmp_path).values())
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    idle = IdleTcp(desk.host, host, DESK)
    idle.speak(MARK.decode() * 100)
    status = laptop.status()
    assert status["self"]["plane"] == "python"
    assert status["peers"][0]["tx_packets"] > 0
    assert min(tun_bytes(host)) > len(MARK) * 100
    for wire in wires:
        assert wire.stop() > 20
        assert not wire.holds(MARK)
        assert not wire.holds(b"SSH-2.0"), "ssh's greeting is in clear outside a tunnel"
    laptop.ntmd("down")
    assert not any(programs(host, tmp_path).values())


def test_iperf3_through_the_tunnel(town: Town) -> None:
    """A load generator of others, TCP and UDP, both ways."""
    laptop, desk = town.join(("laptop", town.lab.nat()), ("desk", town.lab.nat()))
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    moved = 0.0
    for options in ((), ("-R",), ("-u", "-b", "20M", "-l", "1200")):
        rate, amount = iperf(laptop.host, desk.host, DESK, 1, *options)
        assert rate > 0.015, (options, rate)
        moved += amount
    assert sum(tun_bytes(laptop.host)) > moved


def test_v4_only_to_v6_only(town: Town) -> None:
    laptop = town.node("laptop", town.lab.nat())
    town.node("desk", town.lab.nat(v4=False, v6=True))
    assert "3 received" in laptop.ping(DESK, "-c3", "-i0.3", "-W5")
    assert laptop.path_kind(DESK) == "relay"


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
    relay = json.loads(town.server.command("status", "--json").stdout)["roles"]["rs"]
    assert relay["recalled"] >= 2  # it told both that their sessions are lost
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
