"""Two domains, each server in a place of its own, and a recursive resolver between them (C3)."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.actors import Node, Part, together, wait_for
from tests.e2e.lab import Lab
from tests.e2e.lab.netns import Namespace

RESOLVER = "198.51.100.53"
ACCOUNTS = "198.51.100.1"
COORDINATORS = {
    "home.test": ["198.51.100.11", "198.51.100.12"],
    "lab.test": ["198.51.100.21", "198.51.100.22"],
}
RELAYS = {"home.test": ["198.51.100.13"], "lab.test": ["198.51.100.23"]}
DNS_PORT = "5300"
DESK = "desk.lab.test"

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

    def start(self) -> None:
        """Start it; returns once it answers."""
        self.process = self.host.start("unbound", "-d", "-c", str(self.config))
        wait_for(self.answers, 10)

    def answers(self) -> bool:
        """Whether it finds the other domain's coordinator."""
        words = (sys.executable, "-c", ASK, RESOLVER, "_ntm._udp.lab.test")
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

    def nodes(self, *names: str) -> list[Node]:
        """Joined nodes, each behind a NAT of its own; ``names`` are full ones."""
        made = []
        for name in names:
            label = name.replace(".", "-")
            host = self.lab.space(label)
            self.lab.plug(host, "eth0", self.lab.nat())
            made.append(Node(host, self.folder / label, name))
        url = self.accounts.invite("--reusable")
        together(functools.partial(node.join, url, "--dns", "file") for node in made)
        return made


@pytest.fixture
def domains(lab: Lab, tmp_path: Path) -> Domains:
    """All servers, ready; the resolver is not started."""
    return Domains(lab, tmp_path)


def ping_fails(node: Node, name: str) -> str:
    """What the system's ping says of a name that does not resolve."""
    done = node.host.run("ping", "-6", "-c1", "-W2", name, check=False)
    assert done.returncode == 2, done.stdout
    return done.stderr


def reaches(node: Node, name: str) -> bool:
    """Whether one ping by name is answered."""
    return "1 received" in node.ping(name, "-c1", "-W3", check=False)


def test_names_of_another_domain(domains: Domains) -> None:
    """Cold by name; without the resolver an honest error, and no harm to what is known already."""
    laptop, desk = domains.nodes("laptop.home.test", DESK)
    assert prefix(laptop) != prefix(desk)
    domains.resolver.start()
    domains.resolver.stop()

    assert "Temporary failure in name resolution" in ping_fails(laptop, DESK)
    refused = laptop.ntmd("resolve", DESK, check=False)
    assert refused.returncode == 4
    assert f"no way to {DESK}: a coordinator does not answer" in refused.stderr
    assert "(lab.test: the DNS does not answer)" in refused.stderr
    assert "the DNS does not answer" in laptop.ntmd("why", DESK).stdout

    domains.resolver.start()
    wait_for(lambda: reaches(laptop, DESK), 10)
    assert "3 received" in desk.ping("laptop.home.test", "-c3", "-i0.2", "-W2")
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    found = laptop.ntmd("resolve", DESK).stdout
    assert desk.status()["self"]["address"] in found
    assert "dc1.lab.test" in found
    assert "Name or service not known" in ping_fails(laptop, "nobody.lab.test")

    domains.resolver.stop()
    assert "3 received" in laptop.ping(DESK, "-c3", "-i0.2", "-W2")


def test_a_coordinator_met_before_is_found_without_the_resolver(domains: Domains) -> None:
    """What worked is kept, over kill -9 of the coordinator, too."""
    laptop, _ = domains.nodes("laptop.home.test", DESK)
    domains.resolver.start()
    wait_for(lambda: reaches(laptop, DESK), 10)
    domains.resolver.stop()
    home = domains.coordinators["home.test"]
    home.kill()
    home.start()
    (tablet,) = domains.nodes("tablet.home.test")
    assert reaches(tablet, DESK)


def prefix(node: Node) -> list[str]:
    """The domain's /64 that the node's address lies in."""
    return str(node.status()["self"]["address"]).split(":")[:4]
