"""One end of two datagram flows: UDP 100/s with numbers, and a call (RTP, G.711, 50/s).

    python -m tests.survival.talker PEER FILE

Commands on stdin, one a line: ``send udp``, ``send rtp``, ``echo`` (answer each numbered datagram),
``hush`` (send nothing more). Prints the time of the last arrival of each flow a few times a second.
At the end of stdin it writes what it sent and what it received, and when, to FILE.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

RTP = struct.Struct("!BBHII")
PCMU, SPEECH, SSRC = 0, bytes([0xFF]) * 160, 0x6E746D64  # 20 ms of silence in G.711
PORTS = {"udp": 9001, "rtp": 9002}
INTERVALS = {"udp": 0.01, "rtp": 0.02}
SIZE = 200
LOOK = 0.2  # seconds between two lines


@dataclass
class Flow:
    """One socket, and what went over it."""

    name: str
    peer: str
    on: bool = False
    due: float = 0.0
    sent: list[float] = field(default_factory=list)
    received: list[tuple[int, float]] = field(default_factory=list)
    echoed: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(("::", PORTS[self.name]))
        self.socket.setblocking(False)
        self.address: tuple[str, int] = ("::", 0)

    def start(self) -> None:
        """Send from now on. Names are asked for once; a peer over IPv4 is mapped."""
        found = socket.getaddrinfo(
            self.peer, PORTS[self.name], socket.AF_INET6, socket.SOCK_DGRAM,
            flags=socket.AI_V4MAPPED | socket.AI_ALL,
        )  # fmt: skip
        self.address = (str(found[0][4][0]), PORTS[self.name])
        self.on, self.due = True, time.monotonic()

    def pack(self) -> bytes:
        """The next datagram."""
        number = len(self.sent)
        if self.name == "udp":
            return b"%08d" % number + bytes(SIZE - 8)
        return RTP.pack(0x80, PCMU, number & 0xFFFF, number * 160 & 0xFFFFFFFF, SSRC) + SPEECH

    def send(self, now: float) -> None:
        """Send what is due."""
        while self.on and self.due <= now:
            with contextlib.suppress(OSError):  # no route for a moment: counts as sent and lost
                self.socket.sendto(self.pack(), self.address)
            self.sent.append(time.monotonic())
            self.due += INTERVALS[self.name]

    def receive(self, echo: bool) -> None:
        """Note what came."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self.socket.recvfrom(2048)
                now = time.monotonic()
                if data[:1] == b"e":
                    self.echoed.append((int(data[1:9]), now))
                elif self.name == "udp":
                    self.received.append((int(data[:8]), now))
                    if echo:
                        with contextlib.suppress(OSError):
                            self.socket.sendto(b"e" + data, source)
                else:
                    self.received.append((RTP.unpack_from(data)[2], now))

    def last(self) -> float:
        """When something came last; 0 if nothing did."""
        return max(each[-1][1] if each else 0.0 for each in (self.received, self.echoed))


def main(peer: str, path: str) -> None:
    """Until stdin ends."""
    flows = {name: Flow(name, peer) for name in PORTS}
    echo, told = False, 0.0
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    for each in flows.values():
        poll.register(each.socket, select.POLLIN)
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        for each in flows.values():
            each.send(now)
        if now >= told + LOOK:
            told = now
            print("last", *(each.last() for each in flows.values()), flush=True)
        wake = min([told + LOOK, *(each.due for each in flows.values() if each.on)])
        ready = [fd for fd, _ in poll.poll(max(0.0, wake - time.monotonic()) * 1000)]
        for each in flows.values():
            each.receive(echo)
        if 0 in ready:
            words = os.read(0, 4096).decode().split()
            if not words:
                break
            for word in words:
                if word in flows:
                    flows[word].start()
                elif word == "hush":
                    for each in flows.values():
                        each.on = False
                echo = echo or word == "echo"
    notes = {
        name: {"sent": each.sent, "received": each.received, "echoed": each.echoed}
        for name, each in flows.items()
    }
    with open(path, "w", encoding="utf-8") as out:
        json.dump(notes, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
