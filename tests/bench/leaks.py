"""What a thousand moves leave behind: descriptors, sockets, tasks, routes, rules, memory.

    python -m tests.bench.leaks [--moves 1000] [--pace 0.2] [--out out/leaks.json]

A laptop with two uplinks behind different NATs moves to another address again and again: twice on
the link that it has, without an address in between (hard), then to the other link, which is there
before the first one is taken away (soft). A move counts when the laptop's own journal tells it and
the desk follows. At the end the laptop is where it began, and everything is compared. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ntmd.daemon import TIDY_AFTER
from tests.bench import load
from tests.bench.rest import DESK, meet, place
from tests.e2e.actors import Node, wait_for
from tests.e2e.lab import Lab
from tests.e2e.lab.netns import sh

OVERLAP = 0.06  # seconds for which a soft move has both links
FIRST, LAST = 2, 250  # of the addresses in an uplink's /24
SETTLED = 30.0  # seconds after the last move within which all has to be as before
WARM = 100  # moves after which the memory is looked at for the first time
Counts = dict[str, int]


class Roamer:
    """A laptop whose addresses are swapped; ``interface`` and ``address`` are where it is."""

    def __init__(self, lab: Lab, laptop: Node) -> None:
        self.laptop, host = laptop, laptop.host
        self._links = {"eth0": lab.nat(), "eth1": lab.nat()}
        self._gateways = {}
        for name, nat in self._links.items():
            if name == "eth0":
                host.ip("link del eth0")
            uplink = lab.plug(host, name, nat, metric=100 if name == "eth0" else 50)
            assert uplink.gateway4 is not None
            self._gateways[name] = uplink.gateway4
        self._numbers = dict.fromkeys(self._links, FIRST)
        self._ip(*self._gone("eth1"))
        self.interface = "eth0"
        self._steps = self._route()

    def _ip(self, *lines: str) -> None:
        sh(f"ip -n {self.laptop.host.name} -batch -", text="\n".join(lines))

    def _address(self, link: str, number: int) -> str:
        return f"{self._gateways[link].rpartition('.')[0]}.{number}"

    def _gone(self, link: str) -> list[str]:
        number = self._numbers[link]
        return [f"addr del {self._address(link, number)}/24 dev {link}"]

    def _there(self, link: str, metric: int) -> list[str]:
        return [
            f"addr add {self._address(link, self._numbers[link])}/24 dev {link}",
            f"route add default via {self._gateways[link]} dev {link} metric {metric}",
        ]

    def _next(self, link: str) -> None:
        number = self._numbers[link] + 1
        self._numbers[link] = number if number <= LAST else FIRST

    def hard(self) -> None:
        """The same link, another address, nothing in between."""
        gone = self._gone(self.interface)
        self._next(self.interface)
        self._ip(*gone, *self._there(self.interface, 100))

    def soft(self) -> None:
        """The other link comes, then the first one goes."""
        old, new = self.interface, "eth1" if self.interface == "eth0" else "eth0"
        self._next(new)
        self._ip(*self._there(new, 50))
        time.sleep(OVERLAP)
        self._ip(*self._gone(old))
        self.interface = new

    def home(self) -> None:
        """Back to the first address of the first link."""
        gone = self._gone(self.interface)
        self._numbers = dict.fromkeys(self._links, FIRST)
        self._ip(*gone, *self._there("eth0", 100))
        self.interface = "eth0"

    def _route(self) -> Iterator[Any]:
        while True:
            yield from (self.hard, self.hard, self.soft)

    def step(self) -> None:
        """One move more."""
        next(self._steps)()


def descriptors(pids: list[int]) -> Counter[str]:
    """What the processes hold open, by kind."""
    found: Counter[str] = Counter()
    for pid in pids:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            try:
                kind = os.readlink(each)
            except FileNotFoundError:
                continue
            found[re.sub(r":?\[\d+\]$", "", kind)] += 1
    return found


def kernel(node: Node) -> dict[str, list[str]]:
    """Addresses, routes, rules and packet filters of the node's host, in order."""
    ask = {
        "addresses": "-o addr",
        "routes": "route show table all",
        "routes6": "-6 route show table all",
        "rules": "rule",
        "rules6": "-6 rule",
        "links": "-br link",
    }
    found = {name: sorted(node.host.ip(words).splitlines()) for name, words in ask.items()}
    found["nftables"] = node.host.run("nft", "list", "ruleset").stdout.splitlines()
    return found


def state(node: Node) -> dict[str, Any]:
    """All that must not grow, but for memory."""
    told = node.look()["self"]
    time.sleep(0.2)  # until the daemon has closed the connection that asked
    pids = load.family([int(told["pid"])])
    return {
        "processes": len(pids),
        "descriptors": dict(sorted(descriptors(pids).items())),
        "tasks": told["tasks"],
        **kernel(node),
    }


def quiet(node: Node) -> bool:
    """Whether daemon and plane are alone: nobody looks for the router's UPnP any more."""
    return len(load.family([int(node.look()["self"]["pid"])])) == 2


def memory(node: Node) -> dict[str, float]:
    """MiB of daemon and plane."""
    daemon, *children = load.family([int(node.look()["self"]["pid"])])
    return {"daemon": load.rss([daemon]), "plane": load.rss(children)}


def roam(roamer: Roamer, nodes: list[Node], moves: int, pace: float) -> dict[str, Any]:
    """Move until the journal tells of that many; returns what both ends counted."""
    told: tuple[set[str], ...] = tuple(set() for _ in nodes)
    found: dict[str, Any] = {"steps": 0, "memory": {}}
    began = time.monotonic()
    while len(told[0]) < moves:
        until = time.monotonic() + pace
        roamer.step()
        found["steps"] += 1
        if found["steps"] > 2 * moves + 20:
            raise RuntimeError(f"only {len(told[0])} moves of {found['steps']} were told")
        time.sleep(max(0.0, until - time.monotonic()))
        if found["steps"] % 5 == 0 or len(told[0]) >= moves - 5:
            for node, seen in zip(nodes, told, strict=True):
                seen |= {each["id"] for each in node.look()["handovers"]}
        if found["steps"] % WARM == 0:
            found["memory"][found["steps"]] = [memory(node) for node in nodes]
    found["seconds"] = round(time.monotonic() - began, 1)
    return found | {"told": [len(each) for each in told]}


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What is not as it was."""
    return {key: [value, after[key]] for key, value in before.items() if after[key] != value}


def measure(folder: Path, moves: int, pace: float) -> dict[str, Any]:
    """Before, the moves, after; the tunnel works at the end."""
    with Lab("leak") as lab:
        nodes, _ = place(lab, folder, ["laptop", "desk"])
        laptop, desk = nodes
        roamer = Roamer(lab, laptop)
        meet(laptop, desk)
        wait_for(lambda: all(quiet(node) for node in nodes), SETTLED)
        before, first = [state(node) for node in nodes], [memory(node) for node in nodes]
        found = roam(roamer, nodes, moves, pace)
        roamer.home()
        laptop.ping(DESK, "-c3", "-i0.2", "-W5")
        wait_for(lambda: laptop.path_kind(DESK) == "direct", 20)
        until = time.monotonic() + SETTLED
        while True:
            left = [differences(a, state(node)) for a, node in zip(before, nodes, strict=True)]
            if not any(left) or time.monotonic() > until:
                break
            time.sleep(0.5)
        time.sleep(TIDY_AFTER + 2)
        found["memory"] = {0: first, **found["memory"], "end": [memory(node) for node in nodes]}
        return found | {"before": before, "left": left}


def main() -> int:
    """Exit code 0 if nothing is left behind; memory is printed, not judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=1000)
    parser.add_argument("--pace", type=float, default=0.2, help="seconds from move to move")
    parser.add_argument("--out", type=Path, default=Path("out/leaks.json"))
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("this needs network namespaces: run it as root", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ntmd-leaks-") as folder:
        found = measure(Path(folder), options.moves, options.pace)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['steps']} steps in {found['seconds']} s; moves told: {found['told']}")
    for at, ends in found["memory"].items():
        print(f"memory after {at}: {json.dumps(ends)}")
    print(f"held before: {json.dumps([each['descriptors'] for each in found['before']])}")
    print(f"left behind: {json.dumps(found['left'], indent=1)}")
    return 1 if any(found["left"]) else 0


if __name__ == "__main__":
    sys.exit(main())
