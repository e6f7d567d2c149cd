"""Moves on a real kernel: what survives, what is lost, and what leaves where."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.actors import Node, wait_for
from tests.e2e.capture import Capture
from tests.e2e.conftest import Town
from tests.e2e.journey import WORD, Journey
from tests.e2e.lab.nats import NatKind
from tests.e2e.programs import Lines, UdpFlow

DESK, LAPTOP = "desk.home.test", "laptop.home.test"
AGREE_MS = 20.0  # the daemon's gap and one measured outside may differ by this


def meet(town: Town, kind: NatKind = "port-restricted") -> tuple[Node, Node]:
    """A laptop and a desk behind NATs of one kind, on the best way that there is."""
    laptop, desk = town.join(("laptop", town.lab.nat(kind)), ("desk", town.lab.nat(kind)))
    laptop.ping(DESK, "-c1", "-W5")
    wanted = "relay" if kind == "symmetric" else "direct"
    wait_for(lambda: laptop.path_kind(DESK) == desk.path_kind(LAPTOP) == wanted, 10)
    return laptop, desk


def last_move(node: Node) -> dict[str, Any]:
    """The newest entry of the journal."""
    entries: list[dict[str, Any]] = json.loads(node.ntmd("handovers", "--json").stdout)
    return entries[-1]


def watch(node: Node, folder: Path, port: int) -> Capture:
    """A capture of a flow where the tunnel gives it to the host: when each datagram arrived."""
    return Capture(
        node.host, "ntm0", folder / f"inner{port}.pcap", f"udp dst port {port} and greater 100"
    )


def outside_gap(inner: Capture, around: float, rate: int = 100) -> float:
    """Longest hole from just before an instant (seconds of the epoch) on, less one interval, ms."""
    times = [at for at in inner.times() if at > around - 0.5]
    return (max(b - a for a, b in pairwise(times)) - 1 / rate) * 1000


def agree(node: Node, inner: Capture, moved: float) -> dict[str, Any]:
    """The journal's gap at the receiving end is what the datagrams tell; returns the entry."""
    inner.stop()
    entry, gap = last_move(node), outside_gap(inner, moved)
    assert abs(entry["gap_ms"] - gap) <= AGREE_MS, (node.name, gap, entry)
    return entry


def unreadable(*captures: Capture) -> None:
    """Nothing of what the programs said can be read on the wire, and the captures are whole."""
    for capture in captures:
        assert capture.stop() > 100
        assert not capture.holds(WORD.encode())


@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
def test_programs_survive_a_hard_move(town: Town, tmp_path: Path, kind: NatKind) -> None:
    """The link is gone, then there is another one, behind a NAT never seen. And the journal's
    figures are those that are measured outside."""
    laptop, desk = meet(town, kind)
    address = laptop.status()["self"]["address"]
    wires = [
        Capture(laptop.host, "eth0", tmp_path / "eth0.pcap", "udp"),
        Capture(desk.host, "eth0", tmp_path / "desk.pcap", "udp"),
    ]
    inners = [watch(desk, tmp_path, 9991), watch(laptop, tmp_path, 9992)]
    journey = Journey(laptop, desk, tmp_path)
    fresh = town.lab.nat(kind)
    unreadable(wires[0])
    moved = time.time()
    laptop.host.ip("link del eth0")
    town.lab.plug(laptop.host, "wlan0", fresh)
    wires[0] = Capture(laptop.host, "wlan0", tmp_path / "wlan0.pcap", "udp")
    time.sleep(1.5)
    journey.survived()
    unreadable(*wires)
    assert laptop.status()["self"]["address"] == address
    assert laptop.peer(DESK)["path"]["interface"] == "wlan0"
    for node, inner in ((desk, inners[0]), (laptop, inners[1])):
        agree(node, inner, moved)
        assert outside_gap(inner, moved) < 1000


def test_nothing_leaves_by_a_link_whose_address_is_gone(town: Town, tmp_path: Path) -> None:
    """The old link stays up and only its address goes: not one datagram more is sent there. The
    journals tell gap and losses as the datagrams do, which carry nothing but numbers here."""
    laptop, desk = meet(town)
    there, here = watch(desk, tmp_path, 9991), watch(laptop, tmp_path, 9992)
    out = UdpFlow(laptop.host, desk.host, tmp_path, DESK, seconds=5, port=9991)
    back = UdpFlow(desk.host, laptop.host, tmp_path, LAPTOP, seconds=5, port=9992)
    fresh = town.lab.nat()
    time.sleep(1)
    moved = time.time()
    laptop.host.ip("addr flush dev eth0")
    old = Capture(laptop.host, "eth0", tmp_path / "old.pcap", "udp and outbound")
    time.sleep(0.3)  # no way at all: of what the desk sends now, more is lost than leaves once more
    town.lab.plug(laptop.host, "wlan0", fresh)
    sent, came = out.finish(), back.finish()
    assert old.stop() == 0
    assert laptop.peer(DESK)["path"]["interface"] == "wlan0"
    wait_for(lambda: desk.peer(LAPTOP)["path"]["remote"].startswith(f"{fresh.public4}:"), 3)
    assert sent["duplicated"] == came["duplicated"] == 0
    assert agree(laptop, here, moved)["lost"] == came["lost"] > 0
    # what the mover could not send, having no link at all, was never under way
    unsent = laptop.status()["drops"].get("out_no_socket", 0)
    lost = agree(desk, there, moved)["lost"]
    assert sent["lost"] - unsent <= lost <= sent["lost"], (sent, unsent, lost)


def test_what_waits_for_a_link_leaves_with_its_route(town: Town, tmp_path: Path) -> None:
    """The address comes first; what left before the route would reach nobody."""
    laptop, desk = meet(town)
    out = UdpFlow(laptop.host, desk.host, tmp_path, DESK, seconds=4, port=9991)
    fresh = town.lab.nat()
    time.sleep(1)
    laptop.host.ip("link del eth0")
    town.lab.plug(laptop.host, "wlan0", fresh, route_after=0.15)
    sent = out.finish()
    unsent = laptop.status()["drops"].get("out_no_socket", 0)
    assert sent["lost"] - unsent <= 4, (sent, unsent)
    assert sent["duplicated"] == 0


def test_a_soft_move_loses_nothing(town: Town, tmp_path: Path) -> None:
    """The better link comes up, three seconds later the old one is cut."""
    laptop, desk = meet(town)
    inners = [watch(desk, tmp_path, 9991), watch(laptop, tmp_path, 9992)]
    journey = Journey(laptop, desk, tmp_path, seconds=9.0)
    town.lab.plug(laptop.host, "wlan0", town.lab.nat(), metric=50)
    time.sleep(3)
    laptop.host.ip("link del eth0")
    cut = time.time()
    time.sleep(1.5)
    journey.survived()
    assert laptop.peer(DESK)["path"]["interface"] == "wlan0"
    assert journey.sent["lost"] == journey.came["lost"] == 0
    for inner in inners:
        inner.stop()
        assert outside_gap(inner, cut) < 100


def test_a_move_with_duplicate_address_detection(town: Town, tmp_path: Path) -> None:
    """IPv6 as hosts really have it: an address is tentative for a second, and is not used before
    the kernel lets it be; then everything follows at once."""
    laptop, desk = town.join(
        ("laptop", town.lab.nat(v4=False, v6=True)), ("desk", town.lab.nat(v4=False, v6=True))
    )
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == desk.path_kind(LAPTOP) == "direct", 10)
    back = UdpFlow(desk.host, laptop.host, tmp_path, LAPTOP, seconds=6, port=9992)
    fresh = town.lab.nat(v4=False, v6=True)
    news = Lines(laptop.host, "ip", "-o", "monitor", "address")
    time.sleep(1)
    laptop.host.ip("link del eth0")
    plug = town.lab.plug(laptop.host, "wlan0", fresh, dad=True)
    told = back.finish()
    news.stop()
    mine = [(at, line) for at, line in news.at if f" {plug.address6}/" in line]
    assert "tentative" in mine[0][1], "this kernel did no duplicate address detection"
    usable = next(at for at, line in mine if "tentative" not in line)
    first = next(at for at in back.arrivals if at > mine[0][0])
    assert -0.05 < first - usable < 0.5, (first - usable, told)
    assert laptop.peer(DESK)["path"]["local"].startswith(f"[{plug.address6}]:")


def left_by(node: Node, interface: str) -> int:
    """Packets that have left by an interface so far."""
    (link,) = json.loads(node.host.run("ip", "-s", "-j", "link", "show", interface).stdout)
    return int(link["stats64"]["tx"]["packets"])


def test_a_metered_link_carries_only_while_nothing_else_does(town: Town, tmp_path: Path) -> None:
    """The system prefers wwan0; what the user said of it counts more, until wlan0 is gone."""
    laptop, desk = town.join(
        ("laptop", town.lab.nat()), ("desk", town.lab.nat()), options=("--metered", "wwan0")
    )
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == desk.path_kind(LAPTOP) == "direct", 10)
    town.lab.plug(laptop.host, "wwan0", town.lab.nat(), metric=50)
    wait_for(lambda: [u for u in laptop.look()["underlay"] if u["metered"]], 10)
    before = left_by(laptop, "wwan0")
    assert "200 received" in laptop.ping(DESK, "-c200", "-i0.01")
    assert left_by(laptop, "wwan0") - before < 100, "it is kept warm, and no more"
    flow = UdpFlow(laptop.host, desk.host, tmp_path, DESK, seconds=4, port=9993)
    time.sleep(1.5)
    laptop.host.ip("link del eth0")
    told = flow.finish()
    assert laptop.peer(DESK)["path"]["interface"] == "wwan0"
    assert told["gap_ms"] < 1000, told
    assert desk.peer(LAPTOP)["duplicated"] <= 8, "but for the tail that is sent again (rule S14)"
