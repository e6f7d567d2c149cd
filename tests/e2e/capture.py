"""Captures inside the lab, and what they show. A capture that lost packets shows nothing."""

from __future__ import annotations

import re
import struct
import subprocess
import time
from pathlib import Path

from tests.e2e.lab.netns import Namespace

INNER_SYN = "ip6 proto 6 and ip6[53] & 2 != 0"
"""A TCP SYN (or SYN and ACK) over IPv6 without extension headers."""


class Capture:
    """tcpdump on one interface, from the moment this returns."""

    def __init__(self, host: Namespace, interface: str, file: Path, only: str = "") -> None:
        self.file = file
        self._process = host.start(
            "tcpdump", "-i", interface, "-n", "-p", "--immediate-mode", "-U", "-B", "8192",
            "-Z", "root", "-w", str(file), *([only] if only else []),
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        self._said = self._process.stderr.readline()
        while "listening on" not in self._said:
            more = self._process.stderr.readline()
            assert more, f"tcpdump did not start: {self._said}"
            self._said += more

    def stop(self) -> int:
        """End it; how many packets it has. Raises if the kernel dropped any."""
        time.sleep(0.1)  # what has just been sent is still on its way to the file
        self._process.terminate()
        _, said = self._process.communicate(timeout=5)
        dropped = re.search(r"(\d+) packets dropped by kernel", said)
        assert dropped is not None, said
        assert dropped[1] == "0", f"the capture is not whole: {said}"
        return len(self.times())

    def times(self) -> list[float]:
        """When each packet was seen, seconds of the epoch."""
        data = self.file.read_bytes()
        at, found = 24, []
        while at + 16 <= len(data):
            seconds, micros, length = struct.unpack_from("<III", data, at)
            found.append(seconds + micros / 1e6)
            at += 16 + length
        return found

    def holds(self, text: bytes) -> bool:
        """Whether the bytes can be read in what was captured."""
        return text in self.file.read_bytes()


def tun_bytes(host: Namespace, interface: str = "ntm0") -> tuple[int, int]:
    """Bytes that the TUN gave to the host, and took from it, as the kernel counts them."""
    words = host.ip(f"-s -o link show {interface}").split()
    received, sent = words.index("RX:"), words.index("TX:")
    return (
        int(next(word for word in words[received:] if word.isdigit())),
        int(next(word for word in words[sent:] if word.isdigit())),
    )
