"""The grid: eight kinds of network against eight, who meets whom, how soon, and directly or not.

    python -m tests.survival.grid [--out docs/nat-grid.md]

Sixteen nodes in one lab: a caller and a called one on a network of each kind. Each pair meets for
the first time, one pair after the other. The kinds of NAT are proved by the lab's own prober
(``tests/e2e/test_nats.py``). Needs root.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntmd.runtime.control import ControlClient, ControlError
from tests.e2e.actors import Node, Server, together
from tests.e2e.lab import Lab, Nat
from tests.e2e.lab.netns import CommandError, Namespace
from tests.survival.ground import DELAY, RTT, SERVER4, SERVER6, machine
from tests.survival.measure import quantile
from tests.survival.products.ntmd import tree

PAGE = Path(__file__).parents[2] / "docs" / "nat-grid.md"
DOMAIN = "home.test"
ANSWER, DIRECT = 5.0, 8.0  # seconds until a ping gives up; until a way counts as final
STEP = 0.01
KINDS = {
    "public": "public, both families",
    "v6-only": "IPv6 only, stateful firewall",
    "full-cone": "full cone",
    "address": "address-restricted",
    "port": "port-restricted",
    "symmetric": "symmetric",
    "carrier": "NAT behind a carrier's NAT",
    "blocked": "UDP blocked",
}
BLOCKED = """
table inet udpblocked {
  chain pass { type filter hook forward priority -10; policy drop;
    tcp dport 443 accept
    tcp sport 443 accept
  }
}
"""
Row = dict[str, Any]


def families(kind: str) -> set[int]:
    """What a network of this kind has."""
    return {"public": {4, 6}, "v6-only": {6}}.get(kind, {4})


def allowed(one: str, other: str) -> str:
    """What RFC 4787's behaviours allow without port prediction: ``direct`` or ``relay``."""
    if "blocked" in (one, other) or not families(one) & families(other):
        return "relay"
    strict = {"port", "carrier", "symmetric"}  # filter by address and port
    if "symmetric" in (one, other) and {one, other} <= strict:
        return "relay"
    return "direct"


def lines(lab: Lab, nat: Nat) -> Nat:
    """The delay of the matrix on a box's line."""
    if nat.shim is not None:
        nat.shim.set(delay=DELAY)
    return nat


def network(lab: Lab, kind: str, host: str) -> Namespace:
    """A host on a network of this kind of its own."""
    if kind == "public":
        number = 200 + ord(host[0]) % 2
        return lab.public(host, [f"203.0.113.{number}"], [f"2001:db8:f::{number}"])
    made = lab.space(host)
    nats: dict[str, Callable[[], Nat]] = {
        "v6-only": lambda: lab.nat(v4=False, v6=True, shim=True),
        "full-cone": lambda: lab.nat("full-cone", shim=True),
        "address": lambda: lab.nat("address-restricted", shim=True),
        "symmetric": lambda: lab.nat("symmetric", shim=True),
        "carrier": lambda: lab.nat(behind=lines(lab, lab.nat(carrier=True, shim=True))),
    }
    nat = lines(lab, nats.get(kind, lambda: lab.nat(shim=True))())
    if kind == "blocked":
        nat.space.nft(BLOCKED)
    lab.plug(made, "eth0", nat)
    return made


@dataclass
class Meeting:
    """One pair. Seconds; None where it never came."""

    caller: str
    called: str
    answer: float | None
    direct: float | None
    way: str

    def good(self) -> bool:
        """It answers, by the best way that there can be."""
        return self.answer is not None and self.way == allowed(self.caller, self.called)


def meet(node: Node, kind: str, called: str) -> Meeting:
    """First contact, then until the way is the one that it can be, or patience ends."""
    name = f"b-{called}.{DOMAIN}"
    began = time.monotonic()
    said = node.ping(name, "-c1", f"-W{ANSWER:.0f}", check=False, timeout=30)
    answer = time.monotonic() - began if "1 received" in said else None
    direct, way = None, "none"
    with ControlClient(node.state / "ntmd.sock") as client:
        until = time.monotonic() + (DIRECT if allowed(kind, called) == "direct" else 3.0)
        while time.monotonic() < until:
            peers = {peer["name"]: peer for peer in client.ask("status")["peers"]}
            way = peers.get(name, {}).get("path", {}).get("kind", "none")
            if way == "direct":
                direct = time.monotonic() - began
                break
            time.sleep(STEP)
    return Meeting(kind, called, answer, direct, way)


def run(folder: Path) -> list[Meeting]:
    """All 64."""
    with Lab("grid") as lab:
        public = lab.public("server", SERVER4, SERVER6)
        server = Server(public, folder / "server", DOMAIN, SERVER4 + SERVER6)
        server.start()
        url = server.invite("--reusable")
        nodes: dict[str, Node] = {}

        def join(name: str) -> None:
            try:
                nodes[name].join(url, "--dns", "file")
            except CommandError as error:
                print(f"{name} cannot join: {str(error).splitlines()[-1]}", flush=True)

        for kind in KINDS:
            for side in "ab":
                name = f"{side}-{kind}"
                nodes[name] = Node(network(lab, kind, name), folder / name, name)
        together(functools.partial(join, name) for name in nodes)
        found = []
        for kind in KINDS:
            for called in KINDS:
                try:
                    meeting = meet(nodes[f"a-{kind}"], kind, called)
                except ControlError:
                    meeting = Meeting(kind, called, None, None, "none")
                found.append(meeting)
                print(meeting, "" if meeting.good() else "  <-- not as wanted", flush=True)
        return found


def cell(meeting: Meeting) -> str:
    """One cell of the page."""
    if meeting.answer is None:
        return "**no answer**"
    told = f"{meeting.way}, {meeting.answer * 1000:.0f} ms"
    if meeting.direct is not None:
        told = f"direct, {meeting.answer * 1000:.0f} / {meeting.direct * 1000:.0f} ms"
    wanted = allowed(meeting.caller, meeting.called)
    return told if meeting.good() else f"**{told}** (wanted: {wanted})"


def page(found: list[Meeting], facts: Row) -> str:
    """The grid as Markdown."""
    by = {(each.caller, each.called): each for each in found}
    answers = [each.answer * 1000 for each in found if each.answer is not None]
    directs = [each.direct * 1000 for each in found if each.direct is not None]
    wanted = [each for each in found if allowed(each.caller, each.called) == "direct"]
    got = [each for each in wanted if each.way == "direct"]
    text = [
        "# The NAT grid",
        "",
        "Generated by `python -m tests.survival.grid`; do not edit.",
        "",
        f"A caller (line) pings one that it never met (column), by name. {RTT * 1000:.0f} ms round",
        "trip between two nodes behind NATs, half of that to a public one. In a cell: the way in",
        "the end; the time until the first ping was answered (with the start of `ping`), and until",
        "the way was direct.",
        "",
        f"- {len(answers)} of {len(found)} connect; {len(got)} of {len(wanted)} that RFC 4787 lets "
        "meet directly (without port prediction) do",
    ]
    for title, values in (("first answer", answers), ("direct", directs)):
        if values:
            text.append(
                f"- {title}: median {quantile(values, 0.5):.0f} ms, p95 "
                f"{quantile(values, 0.95):.0f} ms, worst {max(values):.0f} ms"
            )
    text += [f"- {key}: {value}" for key, value in facts.items()]
    text += [
        "",
        f"| caller, called | {' | '.join(KINDS.values())} |",
        f"| --- |{' --- |' * len(KINDS)}",
    ]
    for kind, title in KINDS.items():
        cells = [cell(by[kind, called]) for called in KINDS]
        text.append(f"| **{title}** | {' | '.join(cells)} |")
    text += ["", *WORDS]
    return "\n".join(text) + "\n"


WORDS = [
    "Direct is impossible where families differ, where UDP is blocked, and where a symmetric NAT",
    "meets one that filters by address and port (port-restricted, a carrier's, symmetric): the",
    "outer port towards that one is not known before its first datagram arrives.",
    "The kinds are nftables rules, proved by a prober that knows nothing of ntmd",
    "(`tests/e2e/test_nats.py`); the carrier's NAT and the one behind it are port-restricted.",
    "UDP blocked: all is dropped but TCP to and from port 443.",
]


def main() -> int:
    """Exit code 0 if every pair met as it can."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ntmd-grid-") as folder:
        found = run(Path(folder))
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "ntmd": tree(),
    }
    options.out.write_text(page(found, facts))
    print(json.dumps([each.__dict__ for each in found if not each.good()]))
    return 0 if all(each.good() for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
