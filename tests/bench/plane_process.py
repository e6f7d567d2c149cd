"""Where should the Python plane live? Loop lateness, throughput and memory of three places.

``python -m tests.bench.plane_process [--rounds 3] [--seconds 3]``: in a process of its own, in a
thread beside the control loop, and in that loop itself. The control loop works for 200 us of every
ms, as a busy core would, and measures how late its 1 ms timers are while one TCP flow runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ntmd.dataplane.reference import ReferencePlane
from ntmd.dataplane.remote import PlaneProcess
from ntmd.platform.linux.tun import open_tun
from ntmd.proto.plane import InstallTunnel, OpenSocket
from tests.bench.plane_bench import tcp
from tests.planes import end as tunnel_end
from tests.planes.ground import A, B, Ground, sh

PLACES = ("process", "thread", "loop")
TICK, WORK = 0.001, 0.0002


class Here:
    """The plane inside this process: turned by a thread, or by the control loop."""

    def __init__(self, place: str) -> None:
        self.place = place

    def start(self, tun: int, vnet: int, own: bytes, mark: int) -> None:
        self.plane = ReferencePlane(os.dup(tun), vnet, own, mark)

    def send(self, command: Any) -> None:
        self.plane.apply(command)

    def run(self) -> None:
        if self.place == "thread":
            threading.Thread(target=self._forever, daemon=True).start()
        else:
            asyncio.get_running_loop().add_reader(self.plane.epoll.fileno(), self._once)

    def _forever(self) -> None:
        while True:
            self._once()

    def _once(self) -> None:
        self.plane.turn()
        self.plane.take_events()


async def one_end(side: str, place: str) -> None:
    """The program inside a namespace: a plane and a busy control loop."""
    options = argparse.Namespace(
        side=side, suite="AES_GCM", mtu=1500, complete=False, remote=f"10.99.0.{1 + (side == 'a')}"
    )
    tun = open_tun("t0")
    plane: Any = PlaneProcess(lambda event: None) if place == "process" else Here(place)
    plane.start(tun.descriptor, tun.vnet_header, tunnel_end.packed(A if side == "a" else B), 0)
    plane.send(OpenSocket(1, "u0", 4, f"10.99.0.{1 + (side == 'b')}", tunnel_end.PORT))
    plane.send(InstallTunnel(tunnel_end.entry(options)))
    if place != "process":
        plane.run()
    late: list[float] = []
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": plane.pid if place == "process" else os.getpid()}), flush=True)
    ticker = asyncio.create_task(tick(late))
    while (line := await reader.readline()) == b"begin\n":
        late.clear()
    ticker.cancel()
    late.sort()
    sizes = {os.getpid(), plane.pid if place == "process" else os.getpid()}
    print(
        json.dumps(
            {
                "late_ms_median": round(late[len(late) // 2] * 1000, 2),
                "late_ms_p99": round(late[len(late) * 99 // 100] * 1000, 2),
                "rss_mib": round(sum(rss(each) for each in sizes), 1),
                "line": line.decode().strip(),
            }
        ),
        flush=True,
    )


async def tick(late: list[float]) -> None:
    """Sleep 1 ms, note how late it got, work for 200 us."""
    while True:
        begin = time.monotonic()
        await asyncio.sleep(TICK)
        now = time.monotonic()
        late.append(now - begin - TICK)
        while time.monotonic() < now + WORK:
            pass


def rss(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure(place: str, seconds: int) -> dict[str, Any]:
    """One fresh pair of ends."""
    with Ground(f"pp{os.getpid() % 100_000}") as ground:
        for side in "ab":
            words = [sys.executable, "-m", "tests.bench.plane_process", "--end", side]
            ground.ends[side] = subprocess.Popen(
                ground.command(side, *words, "--place", place),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        for side in "ab":
            ground.answer(side)
            ground.address(side, "t0", 500)
        sh(" ".join(ground.command("a", "ping", "-c", "1", "-w", "5", B)))
        ground.tell("a", "begin")
        rate = tcp(ground, seconds)
        ground.tell("a", "stop")
        return {"place": place, "tcp_gbit_s": round(rate, 2), **ground.answer("a")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--end", default="")
    parser.add_argument("--place", default="", choices=["", *PLACES])
    options = parser.parse_args()
    if options.end:
        asyncio.run(one_end(options.end, options.place))
        return
    for _ in range(options.rounds):
        for place in PLACES:
            print(json.dumps(measure(place, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
