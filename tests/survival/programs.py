"""The unmodified programs that run through the tunnel, and what each of them noticed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.e2e.lab.netns import Namespace, sh
from tests.e2e.programs import Lines, Sshd, digest
from tests.survival.measure import Span, longest_hole
from tests.survival.services import HTTPS
from tests.survival.visitor import INTERVAL as SAY

ROOT = Path(__file__).parents[2]
TYPING = 0.1  # seconds between two lines typed
FILE = 20_000_000  # bytes: 100 s at the pace of the server
IPERF_RATE, IPERF_LOOK, IPERF_PORT = "10M", 0.1, "5301"
LIVE = 1.0  # a program that did nothing for so long at the end is not back
DEVNULL = subprocess.DEVNULL
Row = dict[str, Any]


def module(name: str, *words: str) -> list[str]:
    """Command line of one of our own programs."""
    return [sys.executable, "-m", f"tests.survival.{name}", *words]


class Talkers:
    """UDP 100/s and a call, both ways."""

    def __init__(self, ends: dict[str, Namespace], to: dict[str, str], folder: Path) -> None:
        self.files = {name: folder / f"talker-{name}.json" for name in ends}
        self.ends = {
            name: Lines(
                host, *module("talker", to[name], str(self.files[name])), stdin=subprocess.PIPE,
                cwd=ROOT,
            )
            for name, host in ends.items()
        }  # fmt: skip
        for end in self.ends.values():
            end.wait_line("ready", 15)

    def tell(self, end: str, *words: str) -> None:
        """A command for one end's talker."""
        stdin = self.ends[end].process.stdin
        assert stdin is not None
        stdin.write(" ".join(words) + "\n")
        stdin.flush()

    def last(self, end: str) -> list[float]:
        """When that end heard something last: UDP, call."""
        line = next((text for _, text in reversed(self.ends[end].at) if text[:4] == "last"), "")
        return [float(word) for word in line.split()[1:]] or [0.0, 0.0]

    def finish(self) -> Row:
        """End both; what each of them sent and received."""
        found = {}
        for name, end in self.ends.items():
            assert end.process.stdin is not None
            end.process.stdin.close()
            end.process.wait(timeout=10)
            found[name] = json.loads(self.files[name].read_text())
        return found


class Typing:
    """ssh with a session in which somebody types a line now and then; ``cat`` gives it back."""

    interval = TYPING

    def __init__(self, host: Namespace, sshd: Sshd, to: str) -> None:
        self.sshd, self.typed = sshd, 0
        self.lines = Lines(
            host, "ssh", "-T", "-i", str(sshd.folder / "key"),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "BatchMode=yes", f"root@{to}", "cat", stdin=subprocess.PIPE,
        )  # fmt: skip
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._type, daemon=True)
        self._thread.start()
        self.lines.wait_line("0", 20)

    def _type(self) -> None:
        stdin = self.lines.process.stdin
        assert stdin is not None
        due = time.monotonic()
        with contextlib.suppress(OSError):
            while not self._over.is_set():
                stdin.write(f"{self.typed}\n")
                stdin.flush()
                self.typed += 1
                due += TYPING
                time.sleep(max(0.0, due - time.monotonic()))

    def times(self) -> list[float]:
        """When a line came back."""
        return [at for at, _ in self.lines.at]

    def survived(self) -> bool:
        """Still the one connection, and every line came back once and in order."""
        said = [text for _, text in self.lines.at]
        right = said == [str(n) for n in range(len(said))]
        return self.lines.alive() and right and self.sshd.connections() == 1

    def close(self) -> None:
        """End it."""
        self._over.set()
        self._thread.join(timeout=5)
        self.lines.stop()


class Fetch:
    """curl downloads a file over HTTPS. How it grows is read from the file system."""

    interval = 0.1
    LOOK = 0.02

    def __init__(self, host: Namespace, folder: Path, to: str) -> None:
        self.folder, self.copy = folder, folder / "copy"
        url = f"https://{f'[{to}]' if ':' in to else to}:{HTTPS}/served"
        self.process = host.start(
            "curl", "-s", "-S", "-g", "-N", "--retry", "0", "--cacert", str(folder / "cert.pem"),
            "-o", str(self.copy), "-w", "%{num_connects} %{local_port}\n", url,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.grew: list[float] = []
        self.said = ""
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        size = 0
        while self.process.poll() is None:
            time.sleep(self.LOOK)
            with contextlib.suppress(OSError):
                now = self.copy.stat().st_size
                if now > size:
                    self.grew.append(time.monotonic())
                size = now

    def times(self) -> list[float]:
        """When something came."""
        return list(self.grew)

    def survived(self) -> bool:
        """Hurries to the end: one connection, every byte right."""
        (self.folder / "hurry").touch()
        try:
            self.said, _ = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.said = "not at its end after 30 s more"
            return False
        same = digest(self.folder / "served") == digest(self.copy)
        return self.process.returncode == 0 and same and self.said.split()[0] == "1"

    def close(self) -> None:
        """End it."""
        self.process.kill()


class Visitor:
    """The WebSocket and the idle TCP connection."""

    interval = SAY

    def __init__(self, host: Namespace, services: Lines, to: str) -> None:
        self.services = services
        self.lines = Lines(
            host, *module("visitor", to), stdin=subprocess.PIPE, cwd=ROOT
        )  # fmt: skip
        self.lines.wait_line("ws 0", 20)

    def times(self) -> list[float]:
        """When a number came back."""
        return [at for at, text in list(self.lines.at) if text.startswith("ws ")]

    def connections(self, kind: str) -> int:
        """How many the server saw."""
        return sum(text.startswith(kind) for _, text in self.services.at)

    def closed(self, kind: str) -> bool:
        """Whether a connection broke."""
        return any(text.startswith(f"closed {kind}") for _, text in self.lines.at)

    def survived(self) -> bool:
        """Of the WebSocket: one connection, every number came back in turn."""
        return self.lines.alive() and not self.closed("ws") and self.connections("websocket") == 1

    def speak(self, word: str, timeout: float) -> float | None:
        """Over the idle connection; seconds until the word came back, None if it did not."""
        began = time.monotonic()
        assert self.lines.process.stdin is not None
        try:
            self.lines.process.stdin.write(word + "\n")
            self.lines.process.stdin.flush()
            self.lines.wait_line(f"idle {word}", timeout)
        except (OSError, TimeoutError):
            return None
        return time.monotonic() - began if self.connections("idle") == 1 else None

    def close(self) -> None:
        """End it."""
        self.lines.stop()


class Iperf:
    """iperf3, TCP from the laptop to the desk at a bounded rate; the receiver's own intervals."""

    interval = IPERF_LOOK
    AMOUNT = re.compile(r"sec\s+([0-9.]+) .?Bytes\s+([0-9.]+)")

    def __init__(self, client: Namespace, server: Namespace, to: str) -> None:
        looks = ["-i", str(IPERF_LOOK), "--forceflush"]
        self.server = Lines(server, "iperf3", "-s", "-1", "-p", IPERF_PORT, *looks)
        self.server.wait_line("Server listening", 10)
        self.client = Lines(
            client, "iperf3", "-c", to, "-p", IPERF_PORT, "-t", "600", "-b", IPERF_RATE
        )

    def times(self) -> list[float]:
        """Ends of the intervals in which bytes came."""
        found = []
        for at, text in list(self.server.at):
            told = self.AMOUNT.search(text)
            if told and float(told[1]) > 0:
                found.append(at)
        return found

    def survived(self) -> bool:
        """Both ends run."""
        return self.client.alive() and self.server.alive()

    def close(self) -> None:
        """End both."""
        self.client.stop()
        self.server.stop()


def certificate(folder: Path, name: str) -> None:
    """A certificate for the desk's file server."""
    kind = "IP" if ":" in name or name.replace(".", "").isdigit() else "DNS"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-keyout {folder}/key.pem -out {folder}/cert.pem -subj /CN=desk "
        f"-addext subjectAltName={kind}:{name}"
    )
    sh(command)


def prepare(folder: Path, name: str) -> None:
    """The file and the certificate; before anything is timed."""
    certificate(folder, name)
    (folder / "served").write_bytes(os.urandom(FILE))


class Stream(Protocol):
    """A TCP program that does something all the time."""

    interval: float  # seconds between two things that it does

    def times(self) -> list[float]:
        """When it did something."""

    def survived(self) -> bool:
        """Whether it is whole; may end it."""

    def close(self) -> None:
        """End it."""


class Everything:
    """All programs at once, from the laptop to the desk."""

    def __init__(
        self, laptop: Namespace, desk: Namespace, to: dict[str, str], folder: Path
    ) -> None:
        target = to["laptop"]  # what the laptop calls
        prepare(folder, target)
        sshd = Sshd(desk, folder)
        services = Lines(desk, *module("services", str(folder)), cwd=ROOT)
        self.talkers = Talkers({"laptop": laptop, "desk": desk}, to, folder)
        services.wait_line("ready", 15)
        self.visitor = Visitor(laptop, services, target)
        self.iperf = Iperf(laptop, desk, target)
        self.typing = Typing(laptop, sshd, target)
        self.fetch = Fetch(laptop, folder, target)
        for end in to:
            self.talkers.tell(end, "udp", "rtp")
        self.streams: dict[str, Stream] = {
            "ssh": self.typing, "https": self.fetch, "websocket": self.visitor,
            "iperf3": self.iperf,
        }  # fmt: skip
        self.began = time.monotonic()

    def steady(self, since: float) -> bool:
        """Whether every program did something in the last moments, and after ``since``."""
        now = time.monotonic()
        lasts = [*self.talkers.last("laptop"), *self.talkers.last("desk")]
        lasts += [(each.times() or [0.0])[-1] for each in self.streams.values()]
        return all(at > since and at > now - LIVE for at in lasts)

    def judge(self, start: float, end: float, offline: Sequence[Span], patience: float) -> Row:
        """Verdicts of the TCP programs."""
        answer = self.visitor.speak("after", patience)
        found: Row = {
            "idle": {
                "survived": answer is not None,
                "gap_ms": None if answer is None else round(answer * 1000, 1),
            }
        }
        verdicts: list[tuple[str, Callable[[], bool]]] = [
            (name, each.survived) for name, each in self.streams.items()
        ]
        for name, survived in verdicts:
            each = self.streams[name]
            times = each.times()
            back = bool(times) and times[-1] > end - LIVE
            hole = longest_hole(times, start, end, each.interval, offline)
            found[name] = {"survived": back and survived(), "gap_ms": round(hole * 1000, 1)}
        return found

    def close(self) -> None:
        """End what still runs."""
        for each in self.streams.values():
            each.close()
