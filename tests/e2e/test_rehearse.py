"""``ntmd rehearse`` from outside: what is silent on the link, what is not, what is left."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.actors import BIN, ENV, Node, wait_for
from tests.e2e.conftest import SERVER4, Town

DESK = "desk.home.test"
OTHER_PORT = 9999
OTHER = f"""
import socket, time
sender = socket.socket(type=socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, 25, b"eth0")
while True:
    sender.sendto(b"another program", ("{SERVER4[0]}", {OTHER_PORT}))
    time.sleep(0.05)
"""


def start(node: Node, *words: str) -> subprocess.Popen[Any]:
    """An ``ntmd`` command in the background."""
    return node.host.start(
        str(BIN / "ntmd"), "--state", str(node.state), *words,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **ENV},
    )  # fmt: skip


def wait_words(process: subprocess.Popen[Any], words: str, timeout: float = 10) -> float:
    """Wait until the command says ``words`` on stderr; returns that instant (wall clock)."""
    assert process.stderr is not None
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not select.select([process.stderr], [], [], 0.1)[0]:
            continue
        line = process.stderr.readline()
        if words in line:
            return time.time()
        assert line, f"ended without saying {words!r}"
    raise TimeoutError(words)


def captured(path: Path) -> list[tuple[float, str, int]]:
    """(instant, source address and port, destination port) of the UDP datagrams captured."""
    read = subprocess.run(
        ["tcpdump", "-n", "-tt", "-r", str(path), "ip and udp"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = []
    for line in read.stdout.splitlines():
        words = line.split()
        found.append((float(words[0]), words[2], int(words[4].rstrip(":").rpartition(".")[2])))
    return found


def connected(town: Town) -> tuple[Node, Node]:
    laptop, desk = town.join(("laptop", town.lab.nat()), ("desk", town.lab.nat()))
    said = laptop.ntmd("ping", DESK, "--until-direct").stdout
    assert f"{DESK}: seq=" in said
    assert " direct via eth0 203.0.113." in said.splitlines()[-1]
    return laptop, desk


def test_only_our_own_datagrams_are_missing_on_the_link(town: Town, tmp_path: Path) -> None:
    laptop, _ = connected(town)
    uplink = town.lab.plug(laptop.host, "wlan0", town.lab.nat(), metric=600)
    wait_for(lambda: len({u["interface"] for u in laptop.status()["underlay"]}) == 2, 10)
    laptop.host.start("python3", "-c", OTHER)
    pings = laptop.host.start("ping", "-6", "-i", "0.05", DESK, stdout=subprocess.DEVNULL)
    capture = tmp_path / "eth0.pcap"
    tcpdump = laptop.host.start(
        "tcpdump", "-i", "eth0", "--immediate-mode", "-U", "-w", str(capture),
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: capture.exists() and capture.stat().st_size > 2000, 5)
    watch = start(laptop, "status", "--watch")
    rehearsal = start(laptop, "rehearse", "--for", "4s", "--json")
    blocked = wait_words(rehearsal, "eth0 is blocked")
    assert [h for h in laptop.status()["health"] if h["code"] == "rehearsal"]
    free = wait_words(rehearsal, "free again")
    said, _ = rehearsal.communicate(timeout=20)
    time.sleep(0.5)
    tcpdump.send_signal(signal.SIGINT)
    tcpdump.wait(5)
    pings.terminate()
    watch.send_signal(signal.SIGINT)
    lines = [line for line in watch.communicate(timeout=10)[0].splitlines() if DESK in line]
    assert watch.returncode == 0
    assert "direct via eth0" in lines[0]
    assert any("direct via eth0" not in line.partition(";")[0] for line in lines[1:]), lines
    assert laptop.ntmd("why", DESK).stdout.splitlines()[-1].startswith("  so it goes direct")
    result = json.loads(said)
    assert result["interface"] == "eth0"
    assert result["other_links"] == ["wlan0"]
    assert uplink.interface == "wlan0"
    (peer,) = result["peers"]
    assert peer["peer"] == DESK
    assert (rehearsal.returncode == 0) is peer["survived"]
    assert peer["survived"], result
    mine = next(u["address"] for u in laptop.status()["underlay"] if u["interface"] == "eth0")
    sent = [d for d in captured(capture) if d[1].startswith(mine + ".")]
    others = [d for d in sent if d[2] == OTHER_PORT]
    ours = [d for d in sent if d[2] != OTHER_PORT]
    assert [d for d in ours if d[0] < blocked]
    assert [d for d in ours if blocked + 0.1 < d[0] < free - 0.2] == []
    assert len([d for d in others if blocked < d[0] < free]) > 40


@pytest.mark.parametrize("victim", ["command", "daemon", "plane"])
def test_a_kill_in_the_middle_leaves_nothing_blocked(town: Town, victim: str) -> None:
    laptop, _ = connected(town)
    rehearsal = start(laptop, "rehearse", "--for", "60s")
    wait_words(rehearsal, "eth0 is blocked")
    silent = laptop.host.run("ping", "-6", "-c2", "-W1", DESK, check=False)
    assert silent.returncode == 1, silent.stdout
    daemon = laptop.status()["self"]["pid"]
    plane = next(pid for pid in laptop.host.pids() if parent(pid) == daemon)
    os.kill({"command": rehearsal.pid, "daemon": daemon, "plane": plane}[victim], signal.SIGKILL)
    rehearsal.wait(10)
    if victim == "daemon":
        wait_for(lambda: laptop.ntmd("status", check=False).returncode == 3, 5)
        assert plane not in laptop.host.pids()
        laptop.up("--dns", "file")
    back = wait_for(
        lambda: not laptop.host.run("ping", "-6", "-c1", "-W1", DESK, check=False).returncode, 15
    )
    assert back < 15
    assert not [h for h in laptop.status()["health"] if h["code"] == "rehearsal"]


def parent(pid: int) -> int:
    """Parent of a process, 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
