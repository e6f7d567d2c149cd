"""Load on a path between two hosts of the lab, and what it costs the programs that carry it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.plane_bench import cpu
from tests.e2e.lab.netns import CommandError, Namespace

ROOT = Path(__file__).resolve().parents[2]
LOSS = 0.005  # share of datagrams that may be missing
STEPS = 6  # of the search for the highest rate
STEP = 0.3  # seconds at one rate
IPERF_PORT = "5301"
SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def family(roots: Sequence[int]) -> list[int]:
    """The processes and all their children."""
    found = list(roots)
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def rss(pids: Sequence[int]) -> float:
    """MiB of all the processes together."""
    total = 0
    for pid in pids:
        total += int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])
    return total / 1024


class Peak:
    """The largest RSS of each end while a load runs."""

    def __init__(self, ends: Sequence[list[int]]) -> None:
        self.ends, self.largest = ends, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.2):
            self.largest = max(self.largest, *(rss(end) for end in self.ends))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def iperf(
    a: Namespace, b: Namespace, to: str, seconds: float, *options: str
) -> tuple[float, float]:
    """TCP from a to b (``-R``: from b to a): Gbit/s received, and bytes. Never hangs."""
    server = b.start("iperf3", "-s", "-1", "-p", IPERF_PORT, **SILENT)
    try:
        for _ in range(100):
            if f":{IPERF_PORT}" in b.run("ss", "-Hltn").stdout:
                break
            time.sleep(0.02)
        done = a.run(
            "iperf3", "-6", "-c", to, "-p", IPERF_PORT, "-t", str(seconds), "-J",
            "--connect-timeout", "3000", *options, timeout=seconds + 15, check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise CommandError(f"iperf3 {to}: {answer['error']}")
        total = answer["end"]["sum_received"]
        return total["bits_per_second"] / 1e9, float(total["bytes"])
    finally:
        server.terminate()
        server.wait(timeout=5)


class Paced:
    """A generator at a and a counter at b, which stay for many steps."""

    def __init__(self, a: Namespace, b: Namespace, to: str, size: int) -> None:
        program = [sys.executable, "-m", "tests.bench.pace"]
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT
        }  # fmt: skip
        self._sink = b.start(*program, "sink", str(size), **pipes)
        if self._sink.stdout is None or self._sink.stdout.readline() != "listening\n":
            raise CommandError("the counter of datagrams did not start")
        self._source = a.start(*program, "source", to, str(size), **pipes)
        self._seen = 0

    def _ask(self, end: subprocess.Popen[str], line: str) -> int:
        assert end.stdin is not None
        assert end.stdout is not None
        end.stdin.write(line + "\n")
        end.stdin.flush()
        answer = end.stdout.readline()
        if not answer:
            raise CommandError("an end of the UDP generator died")
        return int(answer)

    def step(self, rate: float) -> tuple[int, int]:
        """Datagrams sent and received at ``rate`` a second."""
        sent = self._ask(self._source, f"{rate} {STEP}")
        before, now = -1, self._ask(self._sink, "?")
        while now != before:  # what is on its way still counts
            time.sleep(0.05)
            before, now = now, self._ask(self._sink, "?")
        received, self._seen = now - self._seen, now
        return sent, received

    def close(self) -> None:
        """End both programs."""
        for end in (self._source, self._sink):
            end.terminate()
            end.wait(timeout=5)


def highest_rate(
    a: Namespace, b: Namespace, to: str, size: int, carriers: list[int]
) -> dict[str, float]:
    """Datagrams of ``size`` bytes a second that arrive under 0.5 % loss, and under a flood; what
    one that arrives of the flood costs the processes that carry it, in us."""
    paced = Paced(a, b, to, size)
    try:
        paced.step(2000)  # warm
        began = cpu(carriers)
        sent, received = paced.step(0)
        spent = (cpu(carriers) - began) / max(received, 1) * 1e6
        flood, best = received / STEP, 0.0
        low, high = 0.0, max(1.5 * flood, 2000.0)
        if received >= sent * (1 - LOSS):
            low = best = flood  # the generator is the limit
        for _ in range(STEPS):
            rate = (low + high) / 2
            sent, received = paced.step(rate)
            if sent and received >= sent * (1 - LOSS) and sent >= 0.95 * rate * STEP:
                low, best = rate, max(best, received / STEP)
            else:
                high = rate
        cost = {"cpu_us": round(spent, 2)} if carriers else {}
        return {"pps": round(best), "flood_pps": round(flood), **cost}
    finally:
        paced.close()


def ping(a: Namespace, to: str) -> float:
    """Average round trip in ms of 40 small pings."""
    said = a.run("ping", "-6", "-c40", "-i0.01", "-q", "-W2", to, timeout=20).stdout
    return float(said.rsplit("=", 1)[1].split("/")[1])


def measure(
    a: Namespace, b: Namespace, to: str, roots: Sequence[int], seconds: float
) -> dict[str, Any]:
    """One round on one path; ``roots`` are the programs that carry it, one for each end."""
    ends = [family([root]) for root in roots]
    every = [pid for end in ends for pid in end]
    ping(a, to)
    row: dict[str, Any] = {"ping_ms": ping(a, to)}
    began = cpu(every)
    with Peak(ends or [[]]) as peak:
        row["tcp1_gbit_s"], moved = iperf(a, b, to, seconds)
    if every:
        row["cpu_s_per_gb"] = (cpu(every) - began) / (moved / 1e9)
        row["rss_mib"] = peak.largest
    row["tcp4_gbit_s"], _ = iperf(a, b, to, seconds, "-P4")
    row["tcp1_reverse_gbit_s"], _ = iperf(a, b, to, seconds, "-R")
    row["tcp4_reverse_gbit_s"], _ = iperf(a, b, to, seconds, "-P4", "-R")
    for size in (64, 1200):
        found = highest_rate(a, b, to, size, every)
        row.update({f"udp{size}_{key}": value for key, value in found.items()})
    return row
