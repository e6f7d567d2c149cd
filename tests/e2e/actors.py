"""The programs under test, as a person would start them: a server, a node, and what they run."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ntmd.runtime.control import ControlClient
from tests.e2e.lab.netns import CommandError, Namespace

BIN = Path(sys.executable).parent
ENV = {"PYTHONUNBUFFERED": "1", "PATH": f"{BIN}:{os.environ.get('PATH', '')}"}


class Server:
    """``ntm-server all`` on a public host."""

    def __init__(self, host: Namespace, data: Path, domain: str, listen: list[str]) -> None:
        self.host, self.data, self.domain, self.listen = host, data, domain, listen
        self.process: subprocess.Popen[Any] | None = None
        self.log = data.parent / f"{host.label}.log"

    def words(self) -> list[str]:
        """Which roles, and what only those are told."""
        return ["all", "--domain", self.domain]

    def start(self, timeout: float = 30) -> float:
        """Start it; returns the seconds until it said ``ready``."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = self.host.start(
                str(BIN / "ntm-server"), *self.words(), "--data", str(self.data),
                "--listen", ",".join(self.listen),
                stdout=subprocess.PIPE, stderr=log, env={**os.environ, **ENV},
            )  # fmt: skip
        assert self.process.stdout is not None
        said = b""
        while time.monotonic() < began + timeout:
            if not select.select([self.process.stdout], [], [], 0.5)[0]:
                continue
            piece = os.read(self.process.stdout.fileno(), 4096)
            said += piece
            if b"ready" in said:
                return time.monotonic() - began
            if not piece:
                break
        raise CommandError(
            f"the server did not get ready: {said!r}\n{self.log.read_text()[-3000:]}"
        )

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Another ``ntm-server`` command on the same data directory."""
        return self.host.run(
            str(BIN / "ntm-server"), *words, "--data", str(self.data),
            env=ENV, check=check,
        )  # fmt: skip

    def invite(self, *options: str) -> str:
        """A join URL."""
        (line,) = self.command("invite", *options).stdout.split()
        return line

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=15)


class Part(Server):
    """A server with one role, ``as``, ``dc`` or ``rs``; ``options`` are the role's own."""

    def __init__(
        self, host: Namespace, data: Path, role: str, listen: list[str], options: Sequence[str] = ()
    ) -> None:
        super().__init__(host, data, "", listen)
        self.role, self.options = role, list(options)

    def words(self) -> list[str]:
        """The role and its options."""
        return [self.role, *self.options]

    def enrol(self, *words: str) -> str:
        """The account server's join URL for another server."""
        (line,) = self.command("enrol", *words).stdout.split()
        return line


class Node:
    """A laptop with ``ntmd``."""

    def __init__(self, host: Namespace, state: Path, name: str) -> None:
        self.host, self.state, self.name = host, state, name

    def ntmd(
        self, *words: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run an ``ntmd`` command to its end."""
        return self.host.run(
            str(BIN / "ntmd"), "--state", str(self.state), *words,
            env=ENV, check=check, timeout=timeout,
        )  # fmt: skip

    def up(self, *options: str) -> float:
        """``ntmd up``; returns the seconds it took."""
        began = time.monotonic()
        self.ntmd("up", *options)
        return time.monotonic() - began

    def join(self, url: str, *options: str) -> float:
        """The first ``ntmd up``, with an invitation."""
        return self.up("--join", url, "--name", self.name, *options)

    def status(self) -> dict[str, Any]:
        """``ntmd status --json``."""
        answer: dict[str, Any] = json.loads(self.ntmd("status", "--json").stdout)
        return answer

    def look(self) -> dict[str, Any]:
        """The status without starting a program: for whoever looks often, or measures time."""
        with ControlClient(self.state / "ntmd.sock") as client:
            answer: dict[str, Any] = client.ask("status")
        return answer

    def peer(self, name: str) -> dict[str, Any]:
        """The peer's part of the status."""
        for peer in self.look()["peers"]:
            if peer["name"] == name:
                found: dict[str, Any] = peer
                return found
        return {}

    def path_kind(self, name: str) -> str:
        """``direct``, ``relay`` or ``none``."""
        return str(self.peer(name).get("path", {}).get("kind", "none"))

    def ping(self, name: str, *options: str, check: bool = True, timeout: float = 30) -> str:
        """The system's own ping, by name, through the tunnel."""
        return self.host.run("ping", "-6", *options, name, check=check, timeout=timeout).stdout


def wait_for(what: Any, timeout: float, step: float = 0.05) -> float:
    """Poll ``what()`` until it is true; returns how long it took; fails loudly."""
    began = time.monotonic()
    while not what():
        if time.monotonic() > began + timeout:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(step)
    return time.monotonic() - began


def together(works: Iterable[Callable[[], object]]) -> None:
    """Do ``works`` at the same time; raises what the first one raised that failed."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()
