"""Port mappings at a real miniupnpd, and an IPv6-only network behind a real NAT64 and DNS64."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.actors import Node, wait_for
from tests.e2e.conftest import SERVER4, Town
from tests.e2e.lab import Lab, Nat, router
from tests.e2e.lab.netns import Namespace
from tests.e2e.programs import IdleTcp

DESK = "desk.home.test"


@pytest.mark.parametrize("protocol", ["pcp", "upnp"])
def test_symmetric_nats_meet_at_a_mapped_port(town: Town, tmp_path: Path, protocol: str) -> None:
    """Without the router's help this pair is relayed (test_nat_pairs)."""
    nat = town.lab.nat("symmetric", block=router.PUBLIC_BLOCK)
    first = f"lan{nat.hosts + 1}"  # the interface that the next host will be plugged into

    def ready() -> None:
        router.grant_ports(nat, first, tmp_path, pcp=protocol == "pcp", upnp=protocol == "upnp")

    laptop = town.node("laptop", nat, plugged=ready)
    town.node("desk", town.lab.nat("symmetric"))
    wait_for(lambda: laptop.status()["underlay"][0]["mapped"], 20)
    underlay = laptop.status()["underlay"][0]
    host, _, port = underlay["mapped"].rpartition(":")
    assert host == nat.public4
    assert router.is_mapped(nat, int(port))
    assert underlay["mapped_by"] == protocol
    assert "1 received" in laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    laptop.ntmd("down")
    wait_for(lambda: not router.is_mapped(nat, int(port)), 5)


def to_v6_only(host: Namespace, nat: Nat, folder: Path) -> None:
    """Make the network that ``host`` was plugged into last one of IPv6 with NAT64 and DNS64."""
    gateway = f"2001:db8:{nat.number:x}::{nat.hosts:x}:1"
    router.nat64(nat.space, gateway, folder / "nat64")
    host.resolv_conf(gateway)
    host.ip("-4 addr flush dev eth0")


def test_a_move_to_a_v6_only_network_behind_nat64(town: Town, tmp_path: Path) -> None:
    """The desk has IPv4 only: it is reached directly all the same, through the NAT64."""
    nat = town.lab.nat(v4=True, v6=True)
    laptop = town.node("laptop", nat)
    desk = town.node("desk", town.lab.nat())
    assert "1 received" in laptop.ping(DESK, "-c1", "-W5")
    idle = IdleTcp(desk.host, laptop.host, DESK)
    idle.speak("before")
    to_v6_only(laptop.host, nat, tmp_path)
    wait_for(lambda: laptop.status()["underlay"][0]["nat64"] == "2001:db8:64:ff9b::/96", 20)
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    assert laptop.peer(DESK)["path"]["remote"].startswith("[2001:db8:64:ff9b:")
    idle.speak("after")


def test_the_first_join_from_a_v6_only_network_at_a_server_with_ipv4_alone(
    lab: Lab, tmp_path: Path
) -> None:
    """The join URL names IPv4 addresses; the laptop knows none of its own."""
    town = Town(lab, tmp_path, SERVER4)
    nat = lab.nat(v4=True, v6=True)
    laptop = Node(lab.space("laptop"), tmp_path / "laptop", "laptop")
    lab.plug(laptop.host, "eth0", nat)
    to_v6_only(laptop.host, nat, tmp_path)
    wait_for(
        lambda: not laptop.host.run("getent", "ahostsv6", "ipv4only.arpa", check=False).returncode,
        10,
    )
    laptop.join(town.server.invite(), "--dns", "file")
    assert laptop.look()["coordinator"]["reachable"]
    town.node("desk", lab.nat())
    assert "1 received" in laptop.ping(DESK, "-c1", "-W5")
