"""What a node weighs and costs, and waits that need a place of their own; ``long`` is slow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.bench import dc_process_bench, load, rs_bench
from tests.bench.plane_bench import cpu
from tests.bench.road import DELAY
from tests.e2e.actors import Node, Server, wait_for
from tests.e2e.domains import Domains
from tests.e2e.lab import Lab, Nat
from tests.e2e.programs import Lines

LISTEN = ["198.51.100.1", "198.51.100.2"]
LAPTOP, DESK = "laptop.home.test", "desk.home.test"
PEERS = 10
LIFETIME = 120  # of the NATs' idle mappings, seconds
SETTLE = 10.0  # after which nothing of the set-up goes on any more, seconds
NEVER = 1e6  # ms: the answer did not come
RELAYED = 1400  # bytes of a datagram through the relay
SWITCHES = 120.0  # seconds over which context switches are counted


def place(lab: Lab, folder: Path, names: list[str], **nat: Any) -> tuple[list[Node], list[Nat]]:
    """Joined nodes of home.test, each behind a NAT of its own."""
    server = Server(lab.public("server", LISTEN), folder / "server", "home.test", LISTEN)
    server.start()
    url, nodes, nats = server.invite("--reusable"), [], []
    for name in names:
        host = lab.space(name)
        nats.append(lab.nat(**nat))
        lab.plug(host, "eth0", nats[-1])
        nodes.append(Node(host, folder / name, name))
    for node in nodes:
        node.join(url, "--dns", "file")
    return nodes, nats


def meet(one: Node, other: Node) -> None:
    """A tunnel on the direct path."""
    name = f"{other.name}.home.test"
    one.ping(name, "-c1", "-W5")
    wait_for(lambda: one.path_kind(name) == "direct", 10)


def processes(node: Node) -> list[int]:
    """The daemon and its children."""
    return load.family([int(node.look()["self"]["pid"])])


def ten_tunnels(folder: Path, seconds: float = 3.0) -> dict[str, float]:
    """RSS of a node under TCP load after ten tunnels, MiB."""
    with Lab("ten") as lab:
        (laptop, *peers), _ = place(lab, folder, ["laptop", *(f"p{n}" for n in range(PEERS))])
        for peer in peers:
            meet(laptop, peer)
        to = str(peers[0].look()["self"]["address"])
        with load.Peak([processes(laptop)]) as peak:
            rate, _ = load.iperf(laptop.host, peers[0].host, to, seconds)
            load.iperf(laptop.host, peers[0].host, to, seconds, "-R")
        return {"rss_ten_mib": peak.largest, "rss_ten_gbit_s": rate}


def switches(pids: list[int]) -> int:
    """Context switches of all threads, voluntary or not, so far."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.split()[1])
    return total


def idle(folder: Path, seconds: float) -> dict[str, float]:
    """A node with one idle tunnel behind a NAT; afterwards the peer's first ping is answered."""
    with Lab("idle") as lab:
        (laptop, desk), _ = place(lab, folder, ["laptop", "desk"], lifetime=LIFETIME)
        meet(laptop, desk)
        time.sleep(SETTLE)
        pids = processes(laptop)
        counted, used, began = switches(pids), cpu(pids), time.monotonic()
        time.sleep(min(SWITCHES, seconds))
        rate = (switches(pids) - counted) / (time.monotonic() - began)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        share = (cpu(pids) - used) / (time.monotonic() - began)
        asked = time.monotonic()
        answered = "1 received" in desk.ping(LAPTOP, "-c1", "-W2", check=False)
        return {
            "idle_seconds": seconds,
            "idle_cpu_percent": share * 100,
            "idle_switches_per_s": rate,
            "idle_ping_ms": (time.monotonic() - asked) * 1000 if answered else NEVER,
        }


def two_domains(folder: Path) -> dict[str, float]:
    """The first packet to a node of another domain, DNS cold, 40 ms between the nodes."""
    with Lab("two") as lab:
        domains = Domains(lab, folder)
        domains.resolver.start("_ntm._udp.home.test")  # the other domain is not asked for yet
        laptop, _desk = domains.nodes("laptop.home.test", "desk.lab.test", shim=True)
        for line in domains.lines:
            assert line.shim is not None
            line.shim.set(delay=DELAY)
        time.sleep(1)
        began = time.monotonic()
        laptop.ping("desk.lab.test", "-c1", "-W5")
        return {"two_domains_ms": (time.monotonic() - began) * 1000}


def idle_move(folder: Path, pause: float = 15.0) -> dict[str, float]:
    """A tunnel that says nothing is moved; then the peer pings, 50 times a second. The time from
    the instant the new address is usable to the first answer."""
    with Lab("nap") as lab:
        (laptop, desk), _ = place(lab, folder, ["laptop", "desk"])
        meet(laptop, desk)
        time.sleep(pause)
        fresh = lab.nat()
        laptop.host.ip("link del eth0")
        lab.plug(laptop.host, "wlan0", fresh)
        usable = time.monotonic()
        pings = Lines(desk.host, "ping", "-6", "-n", "-i0.02", LAPTOP)
        pings.wait_line("64 bytes", 20)
        pings.stop()
        first = next(at for at, line in pings.at if line.startswith("64 bytes"))
        return {"idle_move_ms": (first - usable) * 1000}


def measure(folder: Path, *, rounds: int, long: bool) -> list[dict[str, float]]:
    """All of it; a row holds what was measured together. ``long`` adds 300 s of idleness.

    Relay and coordinator are each one process with its clients beside it on the loopback.
    """
    rows: list[dict[str, float]] = [ten_tunnels(made(folder, "ten"))]
    for number in range(rounds):
        rows.append(two_domains(made(folder, f"two{number}")))
        rows.append(idle_move(made(folder, f"nap{number}")))
        rows.append({"rs_gbit_s": rs_bench.one_round(RELAYED, 3.0)["gbit_s"]})
    told = dc_process_bench.refreshes(nodes=100, rounds=rounds, count=6000)
    rows += [{"dc_per_s": each} for each in told["rounds"]]
    if long:
        rows.append(idle(made(folder, "idle"), 300.0))
    return rows


def made(folder: Path, name: str) -> Path:
    """A new directory."""
    new = folder / name
    new.mkdir()
    return new
