"""Complaints of a node that is up, provoked: exit code, cause, next step, no traceback."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.e2e.actors import Node, wait_for
from tests.e2e.conftest import Town
from tests.unit.complaint_table import ComplaintTable

TABLE = ComplaintTable(Path(__file__).with_name("complaints.json"), "ntmd.cli.main")
DESK, TABLET = "desk.home.test", "tablet.home.test"
OF_A_DEAD_PEER = {
    "peer-silent": ("ping", DESK, "-c", "1"),
    "rehearse-peer-silent": ("rehearse",),
}


def test_what_a_running_node_refuses(town: Town) -> None:
    laptop = town.node("laptop", town.lab.nat("symmetric"))
    left = set(TABLE.entries) - set(OF_A_DEAD_PEER)

    def expect(name: str, *words: str) -> None:
        left.discard(name)
        prefix = tuple(laptop.host.wrap(()))
        TABLE.expect(name, "--state", laptop.state, *words, prefix=prefix)

    expect("name-unknown", "ping", "nobody.home.test")
    expect("name-unknown", "resolve", "nobody.home.test")
    expect("name-foreign", "ping", "www.example.org")
    expect("name-own", "ping", "laptop.home.test")
    expect("why-never-asked", "why", TABLET)
    expect("rehearse-nothing-up", "rehearse")

    town.node("tablet", town.lab.nat("symmetric"))
    laptop.ping(TABLET, "-c1", "-W5")
    expect("still-relayed", "ping", TABLET, "-c", "3", "--until-direct")
    expect("rehearse-unknown-link", "rehearse", "--block", "wwan7")
    expect("rehearse-duration", "rehearse", "--for", "90s")
    expect("rehearse-not-survived", "rehearse", "--for", "1s")
    assert laptop.ntmd("ping", TABLET, "-c", "1").returncode == 0

    town.server.kill()
    wait_for(lambda: not laptop.status()["coordinator"]["reachable"], 60)
    expect("coordinator-silent", "ping", "new.home.test")
    assert not left, "each complaint of the table is provoked"


def test_what_is_said_of_a_peer_that_died(town: Town) -> None:
    laptop, desk = town.node("laptop", town.lab.nat()), town.node("desk", town.lab.nat())
    laptop.ping(DESK, "-c1", "-W5")
    kill(desk)
    prefix = tuple(laptop.host.wrap(()))
    for name, words in OF_A_DEAD_PEER.items():
        TABLE.expect(name, "--state", laptop.state, *words, prefix=prefix)


def kill(node: Node) -> None:
    """kill -9 of the daemon; its plane ends with it."""
    os.kill(int(node.status()["self"]["pid"]), signal.SIGKILL)
    wait_for(lambda: node.ntmd("status", check=False).returncode == 3, 5)
