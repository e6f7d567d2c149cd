"""Port mappings and NAT64: ways that a network offers beside plain sending."""

from __future__ import annotations

import pytest

from tests.sim.nat import FULL_CONE, PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.story import Stage, met_behind
from tests.sim.world import NAT64_PREFIX


@pytest.mark.parametrize("caller", ["a", "b"])
def test_symmetric_nats_meet_directly_at_a_mapped_port(caller: str) -> None:
    stage = Stage(3)
    stage.domain()
    granting, other = stage.world.home(SYMMETRIC), stage.world.home(SYMMETRIC)
    assert granting.gateway is not None
    granting.gateway.grants_ports = True
    nodes = {"a": stage.node("a", granting), "b": stage.node("b", other)}
    stage.all_up()
    one, two = nodes[caller], nodes["b" if caller == "a" else "a"]
    stage.first_answer(one, two)
    stage.run(2.0)
    assert stage.path_kind(one, two) == stage.path_kind(two, one) == "direct"


def test_without_a_mapping_the_same_pair_is_relayed() -> None:
    stage, one, two = met_behind(SYMMETRIC, 3)
    stage.run(2.0)
    assert stage.path_kind(one, two) == "relay"


def test_neighbours_behind_one_carrier_meet_at_a_mapped_port() -> None:
    """Two homes behind one carrier NAT without hairpin: the mapping is their only direct way."""
    stage = Stage(5)
    stage.domain()
    carrier = stage.world.home(PORT_RESTRICTED)
    homes = [stage.world.home(PORT_RESTRICTED, outside=carrier) for _ in range(2)]
    for home in homes:
        assert home.gateway is not None
        home.gateway.grants_ports = True
    one, two = stage.node("a", homes[0]), stage.node("b", homes[1])
    stage.all_up()
    stage.first_answer(one, two)
    stage.run(3.0)
    assert stage.path_kind(one, two) == "direct"


@pytest.mark.parametrize("kind", [FULL_CONE, PORT_RESTRICTED, SYMMETRIC])
def test_v6_only_behind_nat64_reaches_a_v4_only_world(kind: NatKind) -> None:
    """Coordinator and relay have IPv4 only too: without NAT64 there would be no way at all."""
    stage = Stage(6)
    domain = stage.domain()
    for server in (domain.dc, domain.rs):
        for endpoint in [e for e in server.host.interfaces["eth0"].addresses.values() if ":" in e]:
            stage.world.internet.leave(endpoint)
    network = stage.world.home(None, v6=True)
    assert network.gateway is not None
    network.gateway.add_nat64(kind)
    six = stage.node("six", network, families=(6,))
    four = stage.node("four", stage.world.internet, families=(4,))
    stage.all_up()
    stage.first_answer(six, four)
    stage.run(2.0)
    assert stage.path_kind(six, four) == "direct"
    assert stage.path_kind(four, six) == "direct"
    literal = [r for r in six.sent_to if r.family == 4]
    assert literal == [], "a literal IPv4 address was handed to a host without IPv4"
    assert any(NAT64_PREFIX.native(remote) for remote in six.sent_to)


@pytest.mark.parametrize("kind", [FULL_CONE, PORT_RESTRICTED])
def test_nat64_is_punched_although_the_servers_speak_ipv6(kind: NatKind) -> None:
    """The coordinator sees the caller's IPv6 address only, unless it is asked over IPv4."""
    stage = Stage(7)
    stage.domain()
    network = stage.world.home(None, v6=True)
    assert network.gateway is not None
    network.gateway.add_nat64(kind)
    six = stage.node("six", network, families=(6,))
    four = stage.node("four", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    stage.first_answer(six, four)
    stage.run(3.0)
    assert stage.path_kind(six, four) == stage.path_kind(four, six) == "direct"
