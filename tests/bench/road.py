"""Waiting times: first contact behind NATs, a hard move, a later start."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.e2e.actors import Node, Server, wait_for
from tests.e2e.lab import Lab, Uplink
from tests.e2e.programs import UdpFlow

DELAY = 0.010  # of each NAT's line, each way: 40 ms between the nodes
DESK, LAPTOP = "desk.home.test", "laptop.home.test"


def round_trip(folder: Path) -> dict[str, Any]:
    """A new pair of nodes, measured once: everything in ms."""
    with Lab("road") as lab:
        lines = [lab.nat(shim=True), lab.nat(shim=True)]
        listen = ["198.51.100.1", "198.51.100.2"]
        server = Server(lab.public("server", listen), folder / "server", "home.test", listen)
        server.start()
        laptop = Node(lab.space("laptop"), folder / "laptop", "laptop")
        desk = Node(lab.space("desk"), folder / "desk", "desk")
        uplink = lab.plug(laptop.host, "eth0", lines[0])
        lab.plug(desk.host, "eth0", lines[1])
        for node in (laptop, desk):
            node.join(server.invite(), "--dns", "file")
        for nat in lines:
            assert nat.shim is not None
            nat.shim.set(delay=DELAY)
        time.sleep(1)
        row = first_contact(laptop)
        for nat in lines:
            assert nat.shim is not None
            nat.shim.set(delay=0.0)
        laptop.ntmd("down")
        row["up_later_ms"] = laptop.up("--dns", "file") * 1000
        laptop.ping(DESK, "-c1", "-W5")
        wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
        time.sleep(1)
        first, uplink = hard_move(lab, folder, laptop, desk, uplink, mover_sends=True)
        time.sleep(1)
        second, _ = hard_move(lab, folder, laptop, desk, uplink, mover_sends=False)
        return {
            **row,
            **{f"move_{key}": value for key, value in first.items()},
            **{f"silent_move_{key}": value for key, value in second.items()},
        }


def first_contact(laptop: Node) -> dict[str, float]:
    """A name never asked for, to the end of one ping; then until the path is direct."""
    began = time.monotonic()
    laptop.ping(DESK, "-c1", "-W5")
    answered = time.monotonic()
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 15, 0.01)
    return {
        "first_contact_ms": (answered - began) * 1000,
        "direct_ms": (time.monotonic() - began) * 1000,
    }


def hard_move(
    lab: Lab, folder: Path, laptop: Node, desk: Node, uplink: Uplink, *, mover_sends: bool
) -> tuple[dict[str, float], Uplink]:
    """The cable out, another network in. Gaps: from the instant the new address is usable."""
    sender, receiver, to = (
        (laptop.host, desk.host, DESK) if mover_sends else (desk.host, laptop.host, LAPTOP)
    )
    fresh, name = lab.nat(), "wlan0" if mover_sends else "wlan1"
    port = 9990 + mover_sends
    flow = UdpFlow(sender, receiver, folder, to, seconds=5, port=port)
    time.sleep(2)
    lab.unplug(uplink)
    moved = lab.plug(laptop.host, name, fresh)
    usable = time.monotonic()
    told = flow.finish()
    noted = json.loads(flow.notes.read_text())
    times = sorted(at[0] for at in noted.values() if at[0] > usable)
    # Where nothing came any more, the gap is at least as long as somebody listened.
    first = times[0] if times else time.monotonic()
    longest = max([first - usable, *(b - a - 1 / flow.rate for a, b in pairwise(times))])
    return {
        "gap_ms": max(0.0, longest) * 1000,
        "whole_gap_ms": told["gap_ms"],
        "lost": told["lost"],
    }, moved
