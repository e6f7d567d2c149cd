"""Two domains: account server, coordinators and relays as processes in places of their own, and a
recursive resolver between them (rule C3)."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.actors import Node, Part, together, wait_for
from tests.e2e.lab import Lab, Nat
from tests.e2e.lab.netns import Namespace

RESOLVER = "198.51.100.53"
ACCOUNTS = "198.51.100.1"
COORDINATORS = {
    "home.test": ["198.51.100.11", "198.51.100.12"],
    "lab.test": ["198.51.100.21", "198.51.100.22"],
}
RELAYS = {"home.test": ["198.51.100.13"], "lab.test": ["198.51.100.23"]}
DNS_PORT = "5300"

UNBOUND = """
server:
  interface: {address}
  port: 53
  access-control: 0.0.0.0/0 allow
  module-config: "iterator"
  local-zone: "test." nodefault
  chroot: ""
  username: ""
  pidfile: ""
  directory: "{folder}"
  use-syslog: no
  logfile: "{folder}/unbound.log"
  do-daemonize: no
  do-ip6: no
  cache-max-negative-ttl: 2
  infra-host-ttl: 2
{zones}
remote-control:
  control-enable: no
"""

ASK = """
import sys
import dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.lifetime = [sys.argv[1]], 1.0
resolver.resolve(sys.argv[2], "SRV")
"""


class Resolver:
    """Unbound, which finds both domains' name servers and nothing else."""

    def __init__(self, host: Namespace, folder: Path) -> None:
        self.host, self.config = host, folder / "unbound.conf"
        zones = "".join(
            f'stub-zone:\n  name: "{domain}."\n'
            + "".join(f"  stub-addr: {address}@{DNS_PORT}\n" for address in addresses)
            for domain, addresses in COORDINATORS.items()
        )
        folder.mkdir()
        text = UNBOUND.format(address=RESOLVER, folder=folder, zones=zones)
        self.config.write_text(text)
        self.process: subprocess.Popen[Any] | None = None

    def start(self, name: str = "_ntm._udp.lab.test") -> None:
        """Start it; returns once it answers for the SRV record ``name``."""
        self.process = self.host.start("unbound", "-d", "-c", str(self.config))
        wait_for(lambda: self.answers(name), 10)

    def answers(self, name: str) -> bool:
        """Whether it finds the coordinator of a domain."""
        words = (sys.executable, "-c", ASK, RESOLVER, name)
        return self.host.run(*words, check=False).returncode == 0

    def stop(self) -> None:
        """End it."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(timeout=5)


class Domains:
    """The account server, and coordinator and relay of each domain, in five namespaces."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.lines: list[Nat] = []
        self.resolver = Resolver(lab.public("resolver", [RESOLVER]), folder / "unbound")
        self.accounts = self._part("as", "as", [ACCOUNTS])
        self.accounts.start()
        self.coordinators = {
            domain: self._part(
                f"dc-{domain.partition('.')[0]}",
                "dc",
                addresses,
                "--join", self.accounts.enrol("dc", "--domain", domain),
                "--dns-port", DNS_PORT,
                "--resolver", RESOLVER,
            )
            for domain, addresses in COORDINATORS.items()
        }  # fmt: skip
        together(part.start for part in self.coordinators.values())
        relays = [
            self._part(
                f"rs-{domain.partition('.')[0]}",
                "rs",
                addresses,
                "--join", self.accounts.enrol("rs", "--dc", domain),
            )
            for domain, addresses in RELAYS.items()
        ]  # fmt: skip
        together(part.start for part in relays)

    def _part(self, label: str, role: str, listen: list[str], *options: str) -> Part:
        return Part(self.lab.public(label, listen), self.folder / label, role, listen, options)

    def nodes(self, *names: str, shim: bool = False) -> list[Node]:
        """Joined nodes, each behind a NAT of ``self.lines``; ``names`` are full ones."""
        made = []
        for name in names:
            label = name.replace(".", "-")
            host = self.lab.space(label)
            self.lines.append(self.lab.nat(shim=shim))
            self.lab.plug(host, "eth0", self.lines[-1])
            made.append(Node(host, self.folder / label, name))
        url = self.accounts.invite("--reusable")
        together(functools.partial(node.join, url, "--dns", "file") for node in made)
        return made
