"""``make bench``: ntmd side by side with wireguard-go and the bare path, in one run.

    python -m tests.bench [--rounds 5 | --quick] [--long] [--seconds 1.5] [--out out/bench.json]

Needs root, Go, iperf3 and wireguard-tools. Both ends and all generators share this machine's cores.
Rounds are interleaved, the order rotates; the JSON holds every round.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import integrity, load, rest, road, table, wireguard
from tests.e2e.actors import Node, Server, wait_for
from tests.e2e.lab import Lab

UNDERLAY = ("203.0.113.201", "203.0.113.202")
PLAIN = ("2001:db8:77::1", "2001:db8:77::2")
PEER = "beta.home.test"


class Bed:
    """Two public hosts on plain veth links, with each kind of path between them."""

    def __init__(self, lab: Lab, folder: Path, binary: Path) -> None:
        listen = ["198.51.100.1", "198.51.100.2"]
        server = Server(lab.public("server", listen), folder / "server", "home.test", listen)
        server.start()
        self.hosts = tuple(
            lab.public(name, [v4], [v6])
            for name, v4, v6 in zip(("alpha", "beta"), UNDERLAY, PLAIN, strict=True)
        )
        self.nodes = [Node(host, folder / host.label, host.label) for host in self.hosts]
        for node in self.nodes:
            node.join(server.invite(), "--dns", "file")
        self.wireguard = wireguard.start(binary, (self.hosts[0], self.hosts[1]), UNDERLAY)
        self.status = [node.status()["self"] for node in self.nodes]
        for each in self.status:
            if each["plane"] not in ("python", "rust"):
                raise SystemExit(f"ntmd runs without a data plane: {each['plane']}")

    def measure(self, kind: str, seconds: float) -> dict[str, Any]:
        """One round on one path."""
        a, b = self.hosts
        if kind == table.RAW:
            return load.measure(a, b, PLAIN[1], [], seconds)
        if kind == table.BASE:
            return load.measure(a, b, wireguard.ADDRESSES[1], self.wireguard, seconds)
        self.nodes[0].ping(PEER, "-c1", "-W5")
        wait_for(lambda: self.nodes[0].path_kind(PEER) == "direct", 10)
        roots = [int(each["pid"]) for each in self.status]
        row = load.measure(a, b, self.status[1]["address"], roots, seconds)
        path = self.nodes[0].peer(PEER)["path"]
        if path["kind"] != "direct":
            raise SystemExit(f"the path is not direct: {path}")
        return {**row, "plane": self.status[0]["plane"], "path": path}

    def setup(self, version: str) -> dict[str, Any]:
        """What was compared, and how the hosts are set."""
        a = self.hosts[0]
        control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
        return {
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": f"{os.cpu_count()} cores for both ends, Linux {platform.release()}",
            "ntmd": f"plane {self.status[0]['plane']}, Python {platform.python_version()}, "
            f"MTU {self.status[0]['mtu']}",
            "wireguard-go": f"{version}, MTU 1420",
            "iperf3": a.run("iperf3", "--version").stdout.split("(")[0].strip(),
            "congestion control": control,
            "load average before": " ".join(f"{each:.1f}" for each in os.getloadavg()),
            "offloads of the veth": offloads(a.run("ethtool", "-k", "eth0", check=False).stdout),
        }


def offloads(text: str) -> str:
    """The ones that matter, from ``ethtool -k``."""
    wanted = ("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload")
    found = [line.strip() for line in text.splitlines() if line.strip().startswith(wanted)]
    return ", ".join(found) or "unknown (no ethtool)"


def attempt(what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run it and say how it went."""
    row = {"load_before": os.getloadavg()[0], **work()}
    said = {key: value for key, value in row.items() if isinstance(value, (int, float))}
    print(
        f"{what}: {json.dumps({key: round(value, 2) for key, value in said.items()})}", flush=True
    )
    return row


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds; returns the report's JSON."""
    binary, version = wireguard.build(options.out.parent / "bin")
    kinds = [table.RAW, table.BASE, table.OURS]
    speed, waits = [], []
    with Lab("bench") as lab:
        bed = Bed(lab, folder, binary)
        setup = {**bed.setup(version), "rounds": options.rounds, "seconds": options.seconds}
        for number in range(options.rounds):
            for shift in range(len(kinds)):
                kind = kinds[(shift + number) % len(kinds)]
                row = attempt(
                    f"round {number + 1} {kind}",
                    partial(bed.measure, kind, options.seconds),
                )
                speed.append({"round": number, "kind": kind, **row})
    for number in range(options.rounds):
        place = folder / f"road{number}"
        place.mkdir()
        row = attempt(f"road {number + 1}", partial(road.round_trip, place))
        waits.append({"round": number, **row})
    others = rest.measure(folder, rounds=options.rounds, long=options.long)
    return {"setup": setup, "speed": speed, "waiting": waits, "rest": others}


def main() -> int:
    """Exit code 0 if it ran on a build that carries right; missed goals are in the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds of one second")
    parser.add_argument("--long", action="store_true", help="also a node that idles for 300 s")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each iperf3 run")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"))
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("the benchmark makes network namespaces: run it as root", file=sys.stderr)
        return 2
    if options.quick:
        options.rounds, options.seconds = 2, 1.0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    whole = integrity.check()
    print(whole, flush=True)
    with tempfile.TemporaryDirectory(prefix="ntmd-bench-") as folder:
        found = run(options, Path(folder))
    trusted = whole.green and integrity.build() == whole.build
    setup = {**found["setup"], "integrity": str(whole)}
    text = table.report(setup, found["speed"], found["waiting"], found["rest"], trusted=trusted)
    shown = {**found, "setup": setup, "report": text.splitlines()}
    options.out.write_text(json.dumps(shown, indent=1) + "\n")
    print(f"\n{text}\n\nwritten: {options.out}", flush=True)
    return 0 if trusted else 1


if __name__ == "__main__":
    sys.exit(main())
