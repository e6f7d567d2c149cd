"""The newest wireguard-go, built by ``go install``, between two hosts of the lab."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.e2e.lab.netns import Namespace

MODULE = "golang.zx2c4.com/wireguard@latest"
PORT = 51820
ADDRESSES = ("fd00:77::1", "fd00:77::2")


def build(folder: Path) -> tuple[Path, str]:
    """The binary and its version. Raises SystemExit with what to do where it cannot be built."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder.resolve() / "wireguard"
    try:
        done = subprocess.run(
            ["go", "install", MODULE],
            env={**os.environ, "GOBIN": str(folder.resolve())},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        said = "" if done.returncode == 0 and binary.exists() else done.stderr[-2000:] or "no file"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        raise SystemExit(
            f"go install {MODULE} failed: {said}\n"
            "A comparison needs it: install Go and see that its module proxy can be reached."
        )
    told = subprocess.run(
        ["go", "version", "-m", str(binary)], capture_output=True, text=True, check=True
    ).stdout
    version = next(line.split()[2] for line in told.splitlines() if line.split()[:1] == ["mod"])
    return binary, version


def start(binary: Path, ends: tuple[Namespace, Namespace], underlay: tuple[str, str]) -> list[int]:
    """A tunnel between both ends; returns the process numbers."""
    names = [f"w{os.getpid() % 100_000}{side}" for side in "ab"]
    children = [
        end.start(
            str(binary), "-f", name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for end, name in zip(ends, names, strict=True)
    ]  # fmt: skip
    keys = [end.run("wg", "genkey").stdout for end in ends]
    for own, end in enumerate(ends):
        other, name = 1 - own, names[own]
        until = time.monotonic() + 10
        while not Path(f"/var/run/wireguard/{name}.sock").exists():
            if children[own].poll() is not None or time.monotonic() > until:
                raise SystemExit("wireguard-go did not start")
            time.sleep(0.02)
        public = end.run("wg", "pubkey", text=keys[other]).stdout.strip()
        end.run(
            *f"wg set {name} listen-port {PORT} private-key /dev/stdin peer {public}".split(),
            *f"allowed-ips ::/0 endpoint {underlay[other]}:{PORT}".split(),
            text=keys[own],
        )
        end.ip(f"link set {name} up mtu 1420")
        end.ip(f"addr add {ADDRESSES[own]}/64 dev {name} nodad")
    return [child.pid for child in children]
