"""End-to-end tests run as root on a real kernel, and leave the host as they found it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.actors import Node, Server, together
from tests.e2e.lab import Lab, Nat
from tests.e2e.lab.netns import sh

SERVER4 = ["198.51.100.1", "198.51.100.2"]
SERVER6 = ["2001:db8:100::1"]
ALL = (*SERVER4, *SERVER6)
LONG = ("test_long.py", "test_leaks.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in here is an end-to-end test; the long ones begin first."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    items.sort(key=lambda item: item.path.name not in LONG)


def host_state() -> dict[str, str]:
    """What must not change on the host."""
    return {
        "resolv.conf": Path("/etc/resolv.conf").read_text(),
        "routes": sh("ip route show table all") + sh("ip -6 route show table all"),
        "rules": sh("ip rule") + sh("ip -6 rule"),
        "nftables": sh("nft list ruleset"),
        "links": sh("ip -br link"),
    }


@pytest.fixture(scope="session", autouse=True)
def untouched_host() -> Iterator[None]:
    """Fails the run if the host's network is different afterwards, or cannot be used at all."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.fail(
            "the end-to-end tests need root and /dev/net/tun: run them where there are both"
        )
    before = host_state()
    yield
    assert host_state() == before


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab."""
    with Lab("e2e") as made:
        yield made


class Town:
    """A lab with a server for home.test and a way to add nodes."""

    def __init__(self, lab: Lab, folder: Path, listen: Sequence[str] = ALL) -> None:
        self.lab, self.folder = lab, folder
        self.public = lab.public("server", SERVER4, SERVER6)
        self.server = Server(self.public, folder / "server", "home.test", list(listen))
        self.server.start()
        self.nodes: list[Node] = []

    def node(
        self, name: str, nat: Nat, *options: str, plugged: Callable[[], None] | None = None
    ) -> Node:
        """A joined node behind ``nat``; ``plugged`` is called when the cable is in."""
        host = self.lab.space(name)
        self.lab.plug(host, "eth0", nat)
        if plugged is not None:
            plugged()
        node = Node(host, self.folder / name, name)
        node.join(self.server.invite(), *(options or ("--dns", "file")))
        self.nodes.append(node)
        return node

    def join(self, *places: tuple[str, Nat], options: Sequence[str] = ()) -> list[Node]:
        """Joined nodes, (name, NAT) each, all at the same time."""
        url = self.server.invite("--reusable")
        made = []
        for name, nat in places:
            host = self.lab.space(name)
            self.lab.plug(host, "eth0", nat)
            made.append(Node(host, self.folder / name, name))
        together(functools.partial(node.join, url, "--dns", "file", *options) for node in made)
        self.nodes += made
        return made


@pytest.fixture
def town(lab: Lab, tmp_path: Path) -> Town:
    """A server on the public Internet, ready."""
    return Town(lab, tmp_path)
