"""A link with delay, jitter, loss and reordering, between two namespaces, in user space.

Two TUN devices, one in each namespace; what one end sends comes out of the other one later, or not
at all. Layer 3 on purpose: no neighbour discovery whose first exchange could get lost. Runs as a
process of its own; the lab talks to it over a socket pair (one JSON object per message).
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.lab.netns import inside

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
ENTRY = "import sys; from tests.e2e.lab.shim import main; main(*sys.argv[1:])"
ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Impairment:
    """What the link does to packets, each way. Seconds and probabilities."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0  # share of packets that skip the queue by ``reorder_by`` seconds
    reorder_by: float = 0.005
    down: bool = False
    queue: int = 2000


def open_tun(namespace: str, name: str) -> int:
    """A TUN device inside ``namespace``; the descriptor keeps it alive."""
    with inside(namespace):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    return descriptor


class Shim:
    """The lab's handle of one impaired link."""

    def __init__(self, a: tuple[str, str], b: tuple[str, str], seed: int) -> None:
        ends = [open_tun(*a), open_tun(*b)]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        ours.settimeout(10)
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENTRY, str(seed)] + [str(d) for d in (*ends, theirs.fileno())],
            pass_fds=(*ends, theirs.fileno()),
            cwd=ROOT,
            start_new_session=True,
        )
        theirs.close()
        for descriptor in ends:
            os.close(descriptor)

    def set(self, **changes: Any) -> dict[str, int]:
        """Change the impairment; returns the counters so far: passed, lost, overflowed, and
        ``lost a 308`` for packets of 308 bytes lost on their way from end a to b."""
        self._socket.send(json.dumps(changes).encode())
        answer: dict[str, int] = json.loads(self._socket.recv(1 << 16))
        return answer

    def counters(self) -> dict[str, int]:
        """Packets passed, lost and overflowed so far."""
        return self.set()

    def close(self) -> None:
        """End the link."""
        self._socket.close()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(seed: str, *descriptors: str) -> None:
    """The process behind :class:`Shim`: ends when its control socket closes."""
    left, right, control_fd = (int(d) for d in descriptors)
    control = socket.socket(fileno=control_fd)
    dice = random.Random(int(seed))
    impairment, counters = Impairment(), Counter(passed=0, lost=0, overflowed=0)
    queue: list[tuple[float, int, int, bytes]] = []
    last = {left: 0.0, right: 0.0}
    poll = select.poll()
    for descriptor in (left, right, control_fd):
        poll.register(descriptor, select.POLLIN)
    serial = 0
    while True:
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, out, packet = heapq.heappop(queue)
            try:
                os.write(out, packet)
                counters["passed"] += 1
            except OSError:
                counters["lost"] += 1
        wait = None if not queue else max(0.0, queue[0][0] - now) * 1000
        for descriptor, _ in poll.poll(wait):
            if descriptor == control_fd:
                message = control.recv(4096)
                if not message:
                    return
                impairment = Impairment(**{**asdict(impairment), **json.loads(message)})
                control.send(json.dumps(counters).encode())
                continue
            out = right if descriptor == left else left
            for _ in range(64):
                try:
                    packet = os.read(descriptor, 65536)
                except OSError:
                    break
                if impairment.down or dice.random() < impairment.loss:
                    counters["lost"] += 1
                    counters[f"lost {'a' if descriptor == left else 'b'} {len(packet)}"] += 1
                    continue
                if len(queue) >= impairment.queue:
                    counters["overflowed"] += 1
                    continue
                due = time.monotonic() + impairment.delay + dice.random() * impairment.jitter
                if dice.random() < impairment.reorder:
                    due = max(time.monotonic(), due - impairment.reorder_by)
                else:
                    due = last[out] = max(due, last[out])
                serial += 1
                heapq.heappush(queue, (due, serial, out, packet))
