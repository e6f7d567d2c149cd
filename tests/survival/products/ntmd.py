"""ntmd as it stands in this tree."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

from ntmd import __version__
from tests.bench.load import family
from tests.e2e.actors import Node, Part, Server, together, wait_for
from tests.survival.ground import SERVER4, SERVER6, Ground, Place
from tests.survival.products import Version

ROOT = Path(__file__).parents[3]
ACCOUNTS, COORDINATOR, RELAY = "198.51.100.11", ["198.51.100.12", "198.51.100.13"], "198.51.100.14"
DOMAIN = "home.test"
DNS = ("--dns", "file")


def tree() -> str:
    """Short names of the trees whose code runs; ``+`` if there are changes beside them."""
    names = [git("rev-parse", f"HEAD:{folder}")[:8] or "unknown" for folder in ("ntmd", "servers")]
    changed = git("status", "--porcelain", "ntmd", "servers")
    return "-".join(names) + ("+" if changed else "")


def git(*words: str) -> str:
    """What git says; nothing without git."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout


class Ntmd:
    """One server with all roles, or each role a process of its own (``apart``)."""

    device = "ntm0"

    def __init__(self, *, apart: bool = False) -> None:
        self.apart = apart
        self.coordinators: list[Server] = []
        self.nodes: dict[str, Node] = {}

    def version(self) -> Version:
        """Of this tree."""
        return Version("ntmd", __version__, tree())

    def start(self, ground: Ground) -> None:
        """Server, both nodes, first contact, direct path where there can be one."""
        url = self._servers(ground)
        for place in (ground.laptop, ground.desk):
            name = place.host.label
            self.nodes[name] = Node(place.host, ground.folder / name, name)
        together(functools.partial(node.join, url, *DNS) for node in self.nodes.values())
        laptop = self.nodes["laptop"]
        laptop.ping(f"desk.{DOMAIN}", "-c1", "-w10")
        direct = "relay" if ground.kind == "symmetric" else "direct"
        wait_for(lambda: laptop.path_kind(f"desk.{DOMAIN}") == direct, 10)

    def _servers(self, ground: Ground) -> str:
        folder = ground.folder
        if not self.apart:
            server = Server(ground.server, folder / "server", DOMAIN, SERVER4 + SERVER6)
            server.start()
            self.coordinators = [server]
            return server.invite("--reusable")
        public = ground.lab.public
        accounts = Part(public("as", [ACCOUNTS]), folder / "as", "as", [ACCOUNTS])
        accounts.start()
        words = ["--join", accounts.enrol("dc", "--domain", DOMAIN), "--dns-port", "0"]
        coordinator = Part(public("dc", COORDINATOR), folder / "dc", "dc", COORDINATOR, words)
        coordinator.start()
        words = ["--join", accounts.enrol("rs", "--dc", DOMAIN)]
        Part(public("rs", [RELAY]), folder / "rs", "rs", [RELAY], words).start()
        self.coordinators = [accounts, coordinator]
        return accounts.invite("--reusable")

    def address(self, place: Place) -> str:
        """By name."""
        return f"{place.host.label}.{DOMAIN}"

    def processes(self, place: Place) -> list[int]:
        """The daemon and its plane."""
        return family([int(self.nodes[place.host.label].status()["self"]["pid"])])

    def restart(self, place: Place) -> None:
        """kill -9 of the daemon, then ``ntmd up``."""
        daemon = self.processes(place)[0]
        place.host.run("kill", "-9", str(daemon))
        self.nodes[place.host.label].up(*DNS)

    def kill_coordinators(self) -> None:
        """The account server and the coordinator; in one process the relay, too."""
        for server in self.coordinators:
            server.kill()

    def notes(self) -> dict[str, Any]:
        """Paths and the journals of both ends."""
        found: dict[str, Any] = {}
        for name, node in self.nodes.items():
            try:
                status = node.status()
            except (RuntimeError, ValueError) as error:
                found[name] = {"error": str(error)[-300:]}
                continue
            found[name] = {
                "state": status["state"],
                "paths": [peer["path"] for peer in status["peers"]],
                "handovers": status["handovers"],
                "drops": status["drops"],
            }
        return found
