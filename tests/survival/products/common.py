"""What the peers' setups share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.actors import wait_for
from tests.e2e.lab.netns import Namespace
from tests.survival.ground import Ground, Place
from tests.survival.products import Unfit


class Trio(ABC):
    """One program at three places, a process each: a server in public, laptop and desk.

    A product says what it starts (``_launch``), its ``addresses`` and why losing its coordinators
    is no scenario (``unfit``).
    """

    addresses: Mapping[str, str]
    unfit: str

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._hosts: dict[str, Namespace] = {}

    def _settle(self, ground: Ground, folder: str = "") -> None:
        """Where the three are, and where their files go."""
        self._folder = ground.folder / folder
        self._folder.mkdir(exist_ok=True)
        self._hosts = {
            "server": ground.server, "laptop": ground.laptop.host, "desk": ground.desk.host
        }  # fmt: skip

    @abstractmethod
    def _launch(self, name: str) -> None:
        """Start the program at one place."""

    def _start(self, name: str, *words: str) -> None:
        """A process whose words go to a log."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self._children[name] = self._hosts[name].start(*words, stdout=log, stderr=log)

    def address(self, place: Place) -> str:
        """Inside the tunnel."""
        return self.addresses[place.host.label]

    def processes(self, place: Place) -> list[int]:
        """The one process."""
        return [self._children[place.host.label].pid]

    def restart(self, place: Place) -> None:
        """kill -9 and start."""
        stopped(self._children[place.host.label])
        self._launch(place.host.label)

    def kill_coordinators(self) -> None:
        """The server in public is the relay, too."""
        raise Unfit(self.unfit)

    def notes(self) -> dict[str, object]:
        """Nothing."""
        return {}


def stopped(child: subprocess.Popen[bytes]) -> None:
    """kill -9."""
    child.kill()
    child.wait()


def reach(host: Namespace, address: str, timeout: float = 30) -> float:
    """Ping until an answer comes; returns the seconds taken. Raises TimeoutError."""

    def answered() -> bool:
        return host.run("ping", "-c1", "-W1", address, check=False).returncode == 0

    return wait_for(answered, timeout, 0.1)


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
