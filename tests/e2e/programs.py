"""Unmodified programs that talk through the tunnel, and notes of what they noticed of a move."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.e2e.lab.netns import Namespace

SSHD_CONFIG = """
Port 22
HostKey {dir}/hostkey
AuthorizedKeysFile {dir}/key.pub
PidFile {dir}/sshd.pid
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
LogLevel VERBOSE
"""

ECHO = """
import socket, sys, threading
server = socket.create_server(
    ("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True
)
def serve(client):
    while data := client.recv(65536):
        client.sendall(data)
while True:
    client, peer = server.accept()
    print("accepted", peer[1], flush=True)
    threading.Thread(target=serve, args=(client,), daemon=True).start()
"""

IDLE = """
import socket, sys
client = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
print("port", client.getsockname()[1], flush=True)
for line in sys.stdin:
    client.sendall(line.encode())
    print("answer", client.recv(65536).decode().strip(), flush=True)
"""

MARK = b"ntm-cleartext-marker"
"""Stands in everything that the programs say, so that a capture shows whether it can be read."""

UDP_IN = """
import json, socket, sys, time
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", int(sys.argv[1])))
times = {}
while True:
    data = server.recv(2048)
    if data == b"end":
        break
    number = int(data[:8])
    times.setdefault(number, []).append(time.monotonic())
json.dump(times, open(sys.argv[2], "w"))
"""

UDP_OUT = """
import socket, sys, time
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.connect(socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), socket.AF_INET6)[0][4])
fill = (b"MARK" * 80)[: int(sys.argv[5]) - 8]
interval, end = float(sys.argv[3]), time.monotonic() + float(sys.argv[4])
number, due = 0, time.monotonic()
while due < end:
    try:
        client.send(b"%08d" % number + fill)
    except OSError:
        pass
    number += 1
    due += interval
    time.sleep(max(0, due - time.monotonic()))
for _ in range(3):
    try:
        client.send(b"end")
    except ConnectionRefusedError:  # it has ended already
        break
    time.sleep(0.3)
print(number)
""".replace("MARK", MARK.decode())


def listening(host: Namespace, port: int, kind: str = "tcp", timeout: float = 15) -> None:
    """Return once a program of ``host`` listens on the port; kind is tcp or udp."""
    end = time.monotonic() + timeout
    while not host.run("ss", "-Hln", f"--{kind}", f"sport = :{port}").stdout.strip():
        if time.monotonic() > end:
            raise TimeoutError(f"nobody listens on {kind} port {port} of {host.label}")
        time.sleep(0.02)


class Sshd:
    """OpenSSH's server on a host of the lab, with keys of its own."""

    def __init__(self, host: Namespace, folder: Path) -> None:
        self.folder = folder / "ssh"
        self.folder.mkdir()
        for name in ("hostkey", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name],
                check=True,
            )
        config = self.folder / "sshd_config"
        config.write_text(SSHD_CONFIG.format(dir=self.folder))
        Path("/run/sshd").mkdir(exist_ok=True)
        self.log = self.folder / "sshd.log"
        host.start("/usr/sbin/sshd", "-D", "-f", str(config), "-E", str(self.log))
        listening(host, 22)

    def connections(self) -> int:
        """How many connections sshd accepted."""
        return self.log.read_text().count("Accepted publickey")


class Lines:
    """A program whose output lines are noted with the time they came at."""

    def __init__(self, host: Namespace, *command: str, **options: Any) -> None:
        self.at: list[tuple[float, str]] = []
        self.process = host.start(
            *command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
            **options,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.at.append((time.monotonic(), line.strip()))

    def alive(self) -> bool:
        """Whether the program still runs."""
        return self.process.poll() is None

    def wait_line(self, start: str, timeout: float) -> str:
        """The first line that begins with ``start``."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for _, line in self.at:
                if line.startswith(start):
                    return line
            if not self.alive() and not self._thread.is_alive():
                break
            time.sleep(0.02)
        raise TimeoutError(f"no line {start!r}; there were {self.at[-3:]}")

    def longest_gap(self) -> float:
        """Longest hole between two lines, seconds."""
        times = [at for at, _ in self.at]
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)


def ssh_session(host: Namespace, sshd: Sshd, to: str) -> Lines:
    """An ssh session that prints a line every 100 ms."""
    return Lines(
        host, "ssh", "-6", "-T", "-i", str(sshd.folder / "key"),
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "BatchMode=yes", "-o", "TCPKeepAlive=no", f"root@{to}",
        f"echo via $SSH_CONNECTION; while :; do echo tick {MARK.decode()}; sleep 0.1; done",
    )  # fmt: skip


class Download:
    """curl fetches a file over HTTP with a limited rate; the checksum tells."""

    def __init__(
        self, server: Namespace, client: Namespace, folder: Path, to: str, size: int, rate: str
    ) -> None:
        self.served = folder / "served"
        self.served.mkdir()
        self.source, self.copy = self.served / "file", folder / "copy"
        block = os.urandom(4096 - len(MARK)) + MARK
        self.source.write_bytes(block * (size // len(block)))
        server.start(
            sys.executable, "-m", "http.server", "8080", "--bind", "::",
            "--directory", str(self.served), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        listening(server, 8080)
        self.process = client.start(
            "curl", "-6", "-s", "-S", "--retry", "0", "--limit-rate", rate, "-o", str(self.copy),
            "-w", "%{num_connects} %{size_download} %{local_port}\n",
            f"http://{to}:8080/file", stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def finish(self, timeout: float) -> tuple[bool, str]:
        """Waits for the end; whether every byte is right, and what curl said."""
        said, _ = self.process.communicate(timeout=timeout)
        same = digest(self.source) == digest(self.copy)
        return self.process.returncode == 0 and same, str(said).strip()


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class IdleTcp:
    """A TCP connection that says nothing, until asked whether it is still there."""

    def __init__(self, server: Namespace, client: Namespace, to: str, port: int = 7777) -> None:
        self.server = Lines(server, sys.executable, "-c", ECHO, str(port))
        listening(server, port)
        self.client = Lines(
            client, sys.executable, "-c", IDLE, to, str(port), stdin=subprocess.PIPE
        )
        self.port = self.client.wait_line("port", 20)

    def speak(self, word: str, timeout: float = 10) -> float:
        """Say a word and wait for its echo on the same connection; returns the seconds taken."""
        began = time.monotonic()
        assert self.client.process.stdin is not None
        self.client.process.stdin.write(word + "\n")
        self.client.process.stdin.flush()
        self.client.wait_line(f"answer {word}", timeout)
        return time.monotonic() - began

    def connections(self) -> int:
        """How many connections the server saw."""
        return sum(line.startswith("accepted") for _, line in self.server.at)


class UdpFlow:
    """Numbered datagrams at a steady rate, and what arrived when."""

    def __init__(
        self,
        sender: Namespace,
        receiver: Namespace,
        folder: Path,
        to: str,
        *,
        seconds: float,
        rate: int = 100,
        port: int = 9999,
        size: int = 200,
    ) -> None:
        self.rate = rate
        self.arrivals: list[float] = []  # seconds of the monotonic clock, after the end
        self.notes = folder / f"udp{port}.json"
        self._in = receiver.start(sys.executable, "-c", UDP_IN, str(port), str(self.notes))
        listening(receiver, port, "udp")
        self._out = Lines(
            sender,
            sys.executable,
            "-c",
            UDP_OUT,
            to,
            str(port),
            str(1 / rate),
            str(seconds),
            str(size),
        )
        self._seconds = seconds

    def finish(self) -> dict[str, float]:
        """Waits for the end: sent, lost, duplicated, longest gap in ms (less one interval)."""
        self._out.process.wait(timeout=self._seconds + 20)
        self._in.wait(timeout=10)
        self._out._thread.join(timeout=5)
        sent = int(self._out.at[-1][1])
        noted = {int(n): at for n, at in json.loads(self.notes.read_text()).items()}
        times = self.arrivals = sorted(at[0] for at in noted.values())
        gaps = [b - a for a, b in pairwise(times)]
        return {
            "sent": sent,
            "lost": sent - len(noted),
            "duplicated": sum(len(at) - 1 for at in noted.values()),
            "gap_ms": round(max(0.0, max(gaps) - 1 / self.rate) * 1000, 1),
        }
