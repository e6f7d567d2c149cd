"""First contact in each pair of places: answered at once, direct wherever RFC 4787 allows it."""

from __future__ import annotations

import itertools

import pytest

from ntmd.proto.plane import InstallTunnel
from ntmd.proto.types import NatFiltering, NatMapping
from tests.sim.nat import (
    ADDRESS_RESTRICTED,
    ADDRESS_SYMMETRIC,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    NatKind,
)
from tests.sim.node import SimNode
from tests.sim.story import Stage

Place = NatKind | str
PLACES: dict[str, Place] = {
    "public": "public v4",
    "full-cone": FULL_CONE,
    "address-restricted": ADDRESS_RESTRICTED,
    "port-restricted": PORT_RESTRICTED,
    "address-symmetric": ADDRESS_SYMMETRIC,
    "symmetric": SYMMETRIC,
    "v6": "v6",
}
RTT = 0.040  # node to node: four links of 10 ms
ANSWER_WITHIN = 4 * RTT + 0.100
DIRECT_WITHIN = 1.0


def reachable(place: Place) -> bool:
    """Whether its mapped endpoint takes packets from any port of a host that was sent to."""
    if isinstance(place, str):
        return True
    return (
        place.mapping is NatMapping.ENDPOINT_INDEPENDENT
        and place.filtering is not NatFiltering.ADDRESS_AND_PORT_DEPENDENT
    )


def one_mapping(place: Place) -> bool:
    """Whether the endpoint that a coordinator sees is the one towards everybody."""
    return isinstance(place, str) or place.mapping is NatMapping.ENDPOINT_INDEPENDENT


def direct_possible(one: Place, two: Place) -> bool:
    """What RFC 4787 behaviour leaves possible without relay, port prediction or port mapping."""
    if (one == "v6") is not (two == "v6"):
        return False
    return reachable(one) or reachable(two) or (one_mapping(one) and one_mapping(two))


def pair(one: Place, two: Place, seed: int = 1) -> tuple[Stage, SimNode, SimNode]:
    stage = Stage(seed)
    stage.domain()
    nodes = []
    for label, place in (("mn", one), ("cn", two)):
        network, families = stage.place(place)
        nodes.append(stage.node(label, network, families=families))
    stage.all_up()
    return stage, nodes[0], nodes[1]


@pytest.mark.parametrize(("one", "two"), list(itertools.product(PLACES, PLACES)))
def test_first_contact(one: str, two: str) -> None:
    stage, mn, cn = pair(PLACES[one], PLACES[two])
    took = stage.first_answer(mn, cn)
    assert took <= ANSWER_WITHIN, stage.explain(mn, cn)
    begun = stage.world.clock.now
    stage.stream(mn, cn, 150)
    stage.stream(cn, mn, 150)
    stage.run(DIRECT_WITHIN)
    expected = "direct" if direct_possible(PLACES[one], PLACES[two]) else "relay"
    assert stage.path_kind(mn, cn) == expected, stage.explain(mn, cn)
    assert stage.path_kind(cn, mn) == expected, stage.explain(mn, cn)
    stage.run(1.0)
    relay = stage.domains["home.test"].rs.core.table
    before = relay.packets
    stage.stream(mn, cn, 50)
    stage.stream(cn, mn, 50)
    stage.run(1.0)
    carried = relay.packets - before
    assert carried == 0 if expected == "direct" else carried >= 100
    for sender, receiver in ((mn, cn), (cn, mn)):
        got = receiver.inner.times("udp", sender.address)
        assert set(got) == set(range(200)), f"lost after {begun}"
        assert receiver.inner.bad == []
        assert receiver.inner.copies("udp") == 0


@pytest.mark.parametrize(
    ("mine", "theirs", "cipher"),
    [
        (True, True, "AES-256-GCM"),
        (True, False, "ChaCha20-Poly1305"),
        (False, True, "ChaCha20-Poly1305"),
    ],
)
def test_the_first_session_follows_what_both_ends_can_do(
    mine: bool, theirs: bool, cipher: str
) -> None:
    """The peer's signed record says it before anything was heard of the peer."""
    stage = Stage()
    stage.domain()
    house = stage.world.home(PORT_RESTRICTED)
    mn, cn = stage.node("mn", house, hardware=mine), stage.node("cn", hardware=theirs)
    stage.all_up()
    stage.first_answer(mn, cn)
    for node in (mn, cn):
        (peer,) = stage.status(node)["peers"]
        assert peer["cipher"] == cipher


@pytest.mark.parametrize("hairpin", [True, False])
def test_two_behind_one_nat_talk_inside_the_house(hairpin: bool) -> None:
    stage = Stage(2)
    stage.domain()
    house = stage.world.home(NatKind(hairpin=hairpin))
    mn, cn = stage.node("mn", house), stage.node("cn", house)
    stage.all_up()
    assert stage.first_answer(mn, cn) <= ANSWER_WITHIN
    stage.run(1.5)
    assert stage.path_kind(mn, cn) == "direct"
    (peer,) = stage.status(mn)["peers"]
    assert peer["path"]["remote"].startswith("10."), peer["path"]


def test_behind_a_cascade_of_nats() -> None:
    stage = Stage(3)
    stage.domain()
    provider = stage.world.home(PORT_RESTRICTED)
    mn = stage.node("mn", stage.world.home(PORT_RESTRICTED, outside=provider))
    cn = stage.node("cn", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    stage.first_answer(mn, cn)
    stage.run(1.5)
    assert stage.path_kind(mn, cn) == "direct"


def test_a_name_is_answered_only_when_the_way_is_known() -> None:
    stage, mn, cn = pair(PORT_RESTRICTED, PORT_RESTRICTED)
    token = mn.resolve(cn.name)
    assert stage.world.run(4.5, lambda: token in mn.names)
    answer = mn.names[token]
    assert answer.address == cn.address
    begun = stage.world.clock.now
    mn.inner.ping(cn.address, 1)
    assert stage.world.run(1.0, lambda: bool(mn.inner.times("echo")))
    assert stage.world.clock.now - begun <= 2 * RTT


def test_unknown_and_absent_names_are_answered_honestly() -> None:
    stage, mn, cn = pair(PORT_RESTRICTED, PORT_RESTRICTED)
    unknown = mn.resolve("nobody.home.test")
    cn.crash()
    stage.run(5.0)
    answer = mn.names[unknown]
    assert (answer.address, answer.exists) == (None, False)


def test_no_private_address_is_sent_to_before_the_peer_is_verified() -> None:
    stage, mn, cn = pair(PORT_RESTRICTED, PORT_RESTRICTED)
    begun = stage.world.clock.now
    stage.first_answer(mn, cn)
    stage.run(1)
    verified: dict[str, float] = {}
    strangers = 0
    for line in stage.world.trace.lines:
        if line.at < begun or line.where not in (mn.name, cn.name):
            continue
        if line.what == "command" and isinstance(line.value, InstallTunnel):
            verified.setdefault(line.where, line.at)
        elif line.what == "send" and line.where not in verified:
            strangers += 1
            assert not line.value.destination.host.startswith("10."), line
    assert len(verified) == 2
    assert strangers >= 4
