"""What the peers' setups share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.e2e.actors import wait_for
from tests.e2e.lab.netns import Namespace


def reach(host: Namespace, address: str, timeout: float = 30) -> float:
    """Ping until an answer comes; returns the seconds taken. Raises TimeoutError."""

    def answered() -> bool:
        return host.run("ping", "-c1", "-W1", address, check=False).returncode == 0

    return wait_for(answered, timeout, 0.1)


def stopped(child: subprocess.Popen[bytes]) -> None:
    """kill -9."""
    child.kill()
    child.wait()


def go_install(module: str, version: str, folder: Path) -> Path:
    """A program built by ``go install``; kept. Raises SystemExit where it cannot be built."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder.resolve() / module.rsplit("/", 1)[1]
    if not binary.exists() or module_version(binary) != version:
        done = subprocess.run(
            ["go", "install", f"{module}@{version}"],
            env={**os.environ, "GOBIN": str(folder.resolve())},
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        if done.returncode or not binary.exists():
            raise SystemExit(f"go install {module}@{version} failed: {done.stderr[-2000:]}")
    return binary


def module_version(binary: Path) -> str:
    """What ``go version -m`` says of a program."""
    told = subprocess.run(
        ["go", "version", "-m", str(binary)], capture_output=True, text=True, check=True
    ).stdout
    return next(line.split()[2] for line in told.splitlines() if line.split()[:1] == ["mod"])


def go_build(module: str, package: str, version: str, folder: Path) -> Path:
    """Like :func:`go_install`, from the module's source: for one whose list of versions is not
    served, which ``go install`` wants to see. Kept under a name that holds the version."""
    name = package.rsplit("/", 1)[1]
    binary = folder.resolve() / f"{name}-{version}"
    if binary.exists():
        return binary
    folder.mkdir(parents=True, exist_ok=True)
    told = _go(folder, "mod", "download", "-json", f"{module}@{version}")
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source"
        shutil.copytree(json.loads(told)["Dir"], source, copy_function=shutil.copyfile)
        for each in (source, *source.rglob("*")):
            each.chmod(0o755 if each.is_dir() else 0o644)  # the cache is read-only
        _go(source, "build", "-o", str(binary), f"./{package}")
    return binary


def _go(place: Path, *words: str) -> str:
    done = subprocess.run(
        ["go", *words], cwd=place, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise SystemExit(f"go {' '.join(words)} failed: {done.stderr[-2000:]}")
    return done.stdout
