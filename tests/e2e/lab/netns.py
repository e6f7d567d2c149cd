"""Network namespaces with their own resolv.conf, and programs inside them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
_lock = threading.Lock()


class CommandError(RuntimeError):
    """A command inside the lab failed; the message holds its output."""


def sh(command: str, *, check: bool = True, text: str | None = None, timeout: float = 60) -> str:
    """Run a command on the host and return what it printed."""
    done = subprocess.run(
        command.split(), input=text, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode:
        raise CommandError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Let the calling thread open sockets and devices inside namespace ``name``."""
    with _lock:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            _setns(there)
            yield
        finally:
            _setns(home)
            os.close(home)
            os.close(there)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """One namespace. ``name`` is unique on the host, ``label`` is what the lab calls it."""

    def __init__(self, prefix: str, label: str, nameservers: Sequence[str] = ()) -> None:
        self.label = label
        self.name = f"{prefix}-{label}"
        self.etc = Path("/etc/netns") / self.name
        self._children: list[subprocess.Popen[Any]] = []
        sh(f"ip netns add {self.name}")
        self.etc.mkdir(parents=True)
        self.resolv_conf(*nameservers)
        self.ip("link set lo up")
        for key, value in (
            ("ipv6/conf/all/accept_dad", 0),
            ("ipv6/conf/default/accept_dad", 0),
            ("ipv6/conf/all/accept_ra", 0),
            ("ipv6/conf/default/accept_ra", 0),
            ("ipv4/conf/all/rp_filter", 0),
            ("ipv4/conf/default/rp_filter", 0),
        ):
            self.sysctl(key, value)

    def resolv_conf(self, *nameservers: str) -> None:
        """Write this namespace's /etc/resolv.conf (in place: it is a bind mount in there)."""
        lines = [f"nameserver {server}\n" for server in nameservers] or ["# none\n"]
        (self.etc / "resolv.conf").write_text("".join(lines))

    def sysctl(self, key: str, value: int) -> None:
        """Set /proc/sys/net/KEY inside the namespace."""
        with inside(self.name):
            Path(f"/proc/sys/net/{key}").write_text(str(value))

    def ip(self, arguments: str, *, check: bool = True) -> str:
        """Run ``ip -n NAME arguments``."""
        return sh(f"ip -n {self.name} {arguments}", check=check)

    def nft(self, ruleset: str) -> None:
        """Apply a ruleset atomically."""
        sh(f"ip netns exec {self.name} nft -f -", text=ruleset)

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command line that runs ``command`` in here, with this namespace's /etc files."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout: float = 60,
        text: str | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        done = subprocess.run(
            self.wrap(command),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            input=text,
            env={**os.environ, **(env or {})},
        )
        if check and done.returncode:
            raise CommandError(
                f"{self.label}: {' '.join(command)}: exit {done.returncode}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def start(self, *command: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a program; it is ended with the namespace at the latest."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("start_new_session", True)
        child = subprocess.Popen(self.wrap(command), **options)
        self._children.append(child)
        return child

    def pids(self) -> list[int]:
        """Processes living in this namespace."""
        return [int(pid) for pid in sh(f"ip netns pids {self.name}", check=False).split()]

    def close(self) -> None:
        """End every process in here, remove the namespace and its files."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            for child in self._children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=3)
            if not self.pids():
                break
        sh(f"ip netns del {self.name}", check=False)
        shutil.rmtree(self.etc, ignore_errors=True)
