"""Two domains, each server in a place of its own, and a recursive resolver between them (C3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.actors import Node, wait_for
from tests.e2e.domains import Domains
from tests.e2e.lab import Lab

DESK = "desk.lab.test"


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
