"""Data planes side by side with wireguard-go and the raw path, in one run, rounds interleaved.

``python -m tests.bench.plane_bench [--rounds 3] [--seconds 2] [--wireguard PATH] [--out FILE]``

Two namespaces, one veth pair, static keys, both ends on the same cores, MTU 1420, congestion
control of the host. TCP is iperf3, one flow; UDP a generator of ours, one datagram of 64 bytes a
call, flooding. Needs root, iperf3 and wg. The JSON holds every round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.planes.ground import A, B, Ground, sh

TICKS = os.sysconf("SC_CLK_TCK")
QUEUE = 500  # packets before the tunnel interface: the default of the kernel
STARTING = 10.0  # seconds for wireguard-go to answer
LISTENING = 0.3  # seconds for iperf3 to listen


def cpu(pids: list[int]) -> float:
    """CPU seconds used so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss(pids: list[int]) -> float:
    """MiB of the larger end."""
    sizes = []
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        sizes.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    return max(sizes)


def listens(ground: Ground, side: str, name: str) -> bool:
    """Whether wireguard-go answers on its socket; before that ``wg`` would ask the kernel."""
    words = ground.command(side, "wg", "show", name)
    there = Path(f"/var/run/wireguard/{name}.sock").exists()
    return there and subprocess.run(words, capture_output=True, check=False).returncode == 0


def wireguard(ground: Ground, binary: str) -> list[int]:
    """wireguard-go at both ends; returns its process numbers."""
    ends = []
    for side in "ab":
        name = f"w{os.getpid() % 10_000}{side}"
        ends.append((side, name, ground.start(side, binary, "-f", name, stderr=subprocess.DEVNULL)))
    keys = {side: sh("wg genkey").strip() for side in "ab"}
    for side, name, end in ends:
        other = "b" if side == "a" else "a"
        until = time.monotonic() + STARTING
        while not listens(ground, side, name):
            if end.poll() is not None or time.monotonic() > until:
                raise RuntimeError("wireguard-go did not start")
            time.sleep(0.02)
        public = subprocess.run(
            ["wg", "pubkey"], input=keys[other], capture_output=True, text=True, check=True
        ).stdout.strip()
        subprocess.run(
            ground.command(
                side,
                *f"wg set {name} listen-port 51820 private-key /dev/stdin peer {public}".split(),
                *f"allowed-ips ::/0 endpoint {ground.underlay(other)}:51820".split(),
            ),
            input=keys[side],
            text=True,
            check=True,
        )
        ground.address(side, name, QUEUE)
    return [end.pid for _, _, end in ends]


def raw(ground: Ground) -> list[int]:
    """The addresses on the veth pair itself."""
    for side in "ab":
        own = A if side == "a" else B
        sh(f"ip -n {ground.name}-{side} addr add {own}/64 dev u0 nodad")
    return []


def tcp(ground: Ground, seconds: float) -> float:
    """Gbit/s of one flow."""
    server = ground.start("b", "iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    time.sleep(LISTENING)
    done = subprocess.run(
        ground.command("a", "iperf3", "-c", B, "-t", str(seconds), "-J"),
        capture_output=True,
        text=True,
        check=False,
    )
    server.wait(10)
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def udp(ground: Ground, seconds: float) -> dict[str, float]:
    """kpps sent and received of 64-byte datagrams."""
    program = [sys.executable, "-m", "tests.bench.flood"]
    sink = ground.start("b", *program, "sink", stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    assert sink.stdout.readline() == "listening\n"
    source = ground.start("a", *program, "source", B, str(seconds), stdout=subprocess.PIPE)
    sent = int(source.communicate()[0])
    received = int(sink.communicate()[0])
    return {"sent_kpps": sent / seconds / 1e3, "kpps": received / seconds / 1e3, "n": received}


def measure(kind: str, options: argparse.Namespace, number: int) -> dict[str, Any]:
    """One fresh pair of ends, measured once."""
    with Ground(f"pb{os.getpid() % 100_000}") as ground:
        if kind == "wireguard-go":
            pids = wireguard(ground, options.wireguard)
        elif kind == "raw":
            pids = raw(ground)
        else:
            pids = list(ground.tunnel(queue=QUEUE).values())
        subprocess.run(
            ground.command("a", "ping", "-c", "3", "-i", "0.1", B), capture_output=True, check=False
        )
        pings = subprocess.run(
            ground.command("a", "ping", "-c", "20", "-i", "0.02", "-q", B),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        begin = cpu(pids)
        rate = tcp(ground, options.seconds)
        used = cpu(pids) - begin
        row: dict[str, Any] = {
            "round": number,
            "kind": kind,
            "ping_ms": float(pings.rsplit("=", 1)[1].split("/")[1]),
            "tcp_gbit_s": round(rate, 3),
            "tcp_cpu_s_per_gb": round(used / (rate * options.seconds / 8), 2),
        }
        begin = cpu(pids)
        flood = udp(ground, options.seconds)
        used = cpu(pids) - begin
        row["udp64_kpps"] = round(flood["kpps"], 1)
        row["udp64_sent_kpps"] = round(flood["sent_kpps"], 1)
        row["udp64_cpu_us"] = round(used / max(flood["n"], 1) * 1e6, 2)
        if pids:
            row["rss_mib"] = round(rss(pids), 1)
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and ratios to wireguard-go paired by round."""
    result: dict[str, Any] = {}
    base = {row["round"]: row for row in rows if row["kind"] == "wireguard-go"}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        entry: dict[str, Any] = {
            key: statistics.median(row[key] for row in own)
            for key in own[0]
            if key not in ("round", "kind")
        }
        for key in ("tcp_gbit_s", "udp64_kpps"):
            ratios = [row[key] / base[row["round"]][key] for row in own if row["round"] in base]
            if ratios:
                entry[f"{key}_ratio"] = [
                    round(each, 2) for each in (statistics.median(ratios), min(ratios), max(ratios))
                ]
        result[kind] = entry
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--wireguard", default="", help="path of wireguard-go; empty: without")
    parser.add_argument("--kinds", default="raw,wireguard-go,python")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    kinds = [each for each in options.kinds.split(",") if options.wireguard or each[0] != "w"]
    rows = []
    for number in range(options.rounds):
        for shift in range(len(kinds)):
            kind = kinds[(shift + number) % len(kinds)]
            rows.append(measure(kind, options, number))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    report = {"rows": rows, "summary": summary(rows)}
    text = json.dumps(report, indent=1)
    if options.out:
        Path(options.out).write_text(text + "\n")
    print(json.dumps(report["summary"], indent=1))


if __name__ == "__main__":
    main()
