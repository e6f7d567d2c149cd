"""Two namespaces joined by one or two veth pairs, with a tunnel end in each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ntmd.platform.linux.netlink import GSO_MAX

A, B = "fd00:aa::1", "fd00:aa::2"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def sh(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


class Ground:
    """Namespaces ``NAME-a`` and ``NAME-b``; TUNs appear with :meth:`tunnel`."""

    def __init__(self, name: str, links: int = 1, v6: bool = False) -> None:
        self.name, self.links, self.v6 = name, links, v6
        self.ends: dict[str, subprocess.Popen[str]] = {}
        self.programs: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Ground:
        try:
            for side in "ab":
                sh(f"ip netns add {self.name}-{side}")
                sh(f"ip -n {self.name}-{side} link set lo up")
            for link in range(self.links):
                sh(
                    f"ip link add u{link} netns {self.name}-a type veth "
                    f"peer name u{link} netns {self.name}-b"
                )
                for side in "ab":
                    address = self.underlay(side, link)
                    size = "64 nodad" if self.v6 else "24"
                    flags = size.split()
                    sh(
                        f"ip -n {self.name}-{side} addr add {address}/{flags[0]} dev u{link} "
                        + " ".join(flags[1:])
                    )
                    sh(f"ip -n {self.name}-{side} link set u{link} up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs:
            if program.poll() is None:
                program.kill()
            program.wait()
        self.stop()
        for side in "ab":
            subprocess.run(
                ["ip", "netns", "del", f"{self.name}-{side}"], capture_output=True, check=False
            )

    def underlay(self, side: str, link: int = 0) -> str:
        last = 1 if side == "a" else 2
        return f"fd99:{link}::{last}" if self.v6 else f"10.99.{link}.{last}"

    def command(self, side: str, *words: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.name}-{side}", *words]

    def start(self, side: str, *words: str, **options: Any) -> subprocess.Popen[Any]:
        """A program inside; killed at the end."""
        program = subprocess.Popen(self.command(side, *words), cwd=ROOT, **options)
        self.programs.append(program)
        return program

    def tunnel(self, *options: str, queue: int = 10_000) -> dict[str, int]:
        """Start both ends; returns the process numbers of the planes."""
        planes = {}
        links = range(self.links)
        for side, peer in (("a", "b"), ("b", "a")):
            words = [sys.executable, "-m", "tests.planes.end", side, "--tun", "t0"]
            words += ["--interface", ",".join(f"u{each}" for each in links)]
            words += ["--local", ",".join(self.underlay(side, each) for each in links)]
            words += ["--remote", ",".join(self.underlay(peer, each) for each in links)]
            self.ends[side] = subprocess.Popen(
                self.command(side, *words, *options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
        for side in "ab":
            planes[side] = self.answer(side)["ready"]
            self.address(side, "t0", queue)
            sh(f"ip -n {self.name}-{side} link set t0 gso_max_size {GSO_MAX}")
        return planes

    def address(self, side: str, interface: str, queue: int = 10_000) -> None:
        """Give a tunnel interface its virtual address, MTU and route.

        The queue before it is long: what the kernel drops there no plane ever sees.
        """
        own = A if side == "a" else B
        name = f"{self.name}-{side}"
        sh(f"ip -n {name} link set {interface} mtu 1420 txqueuelen {queue} up")
        sh(f"ip -n {name} addr add {own}/64 dev {interface} nodad")

    def answer(self, side: str) -> dict[str, Any]:
        stdout = self.ends[side].stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"end {side} died")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def tell(self, side: str, text: str) -> None:
        stdin = self.ends[side].stdin
        assert stdin is not None
        stdin.write(text + "\n")
        stdin.flush()

    def stats(self, side: str) -> dict[str, Any]:
        self.tell(side, "stats")
        return self.answer(side)

    def stop(self) -> None:
        """End both tunnel ends; their TUNs go with them."""
        for end in self.ends.values():
            if end.stdin is not None:
                end.stdin.close()
        for side, end in self.ends.items():
            try:
                end.wait(5)
            except subprocess.TimeoutExpired:
                end.kill()
                end.wait()
            if end.stdout is not None:
                end.stdout.close()
            subprocess.run(
                ["ip", "-n", f"{self.name}-{side}", "link", "del", "t0"],
                capture_output=True,
                check=False,
            )
        self.ends.clear()
