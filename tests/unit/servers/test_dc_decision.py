"""The decision over all pairs of NATs, against what the NATs themselves would let through."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntm_dc.decision import Side, Way, decide, sift, strangers
from ntmd.proto.messages import CandidateField, NatView
from ntmd.proto.types import CandidateKind, Endpoint, NatFiltering, NatMapping

MAPPINGS, FILTERINGS = tuple(NatMapping), tuple(NatFiltering)
KNOWN_MAPPINGS = MAPPINGS[:4]
KNOWN_FILTERINGS = FILTERINGS[:4]
VIRTUAL = ipaddress.IPv6Network("fd12:3456:789a::/48")


def side(mapping: NatMapping, filtering: NatFiltering, host: str = "192.0.2.1") -> Side:
    seen = CandidateField(int(CandidateKind.REFLEXIVE), Endpoint(host, 5000))
    return Side((seen,), NatView(MAPPINGS.index(mapping), FILTERINGS.index(filtering)))


class Nat:
    """A NAT by RFC 4787 sections 4.1 and 5, with one inner endpoint; a reference of its own."""

    def __init__(self, mapping: NatMapping, filtering: NatFiltering, host: str) -> None:
        self.mapping, self.filtering, self.host = mapping, filtering, host
        self.sent: set[tuple[str, int]] = set()

    def outside(self, to: tuple[str, int]) -> tuple[str, int]:
        """Source that ``to`` would see."""
        if self.mapping is NatMapping.ADDRESS_DEPENDENT:
            return self.host, 10_000 + sum(map(ord, to[0]))
        if self.mapping is NatMapping.ADDRESS_AND_PORT_DEPENDENT:
            return self.host, 20_000 + sum(map(ord, to[0])) * 7 + to[1] % 997
        return self.host, 5000

    def send(self, to: tuple[str, int]) -> tuple[str, int]:
        self.sent.add(to)
        return self.outside(to)

    def lets_in(self, source: tuple[str, int], at: tuple[str, int]) -> bool:
        if self.filtering in (NatFiltering.NONE, NatFiltering.ENDPOINT_INDEPENDENT):
            mapped = (
                {5000}
                if self.outside(source)[1] == 5000
                else {p for _, p in map(self.outside, self.sent)}
            )
            return at[1] in mapped
        hit = [to for to in self.sent if self.outside(to)[1] == at[1]]
        if self.filtering is NatFiltering.ADDRESS_DEPENDENT:
            return any(to[0] == source[0] for to in hit)
        return source in hit


def can_meet(one: Nat, two: Nat) -> bool:
    """Both send to what they were told, then to whatever source they saw; some rounds."""
    server = ("198.51.100.1", 4330)
    targets = [{two.send(server)}, {one.send(server)}]
    arrived = [False, False]
    for _ in range(4):
        for me, (own, peer) in enumerate(((one, two), (two, one))):
            for to in sorted(targets[me]):
                source = own.send(to)
                if peer.lets_in(source, to):
                    targets[1 - me].add(source)
                    arrived[1 - me] = True
    return all(arrived)


PAIRS = list(itertools.product(itertools.product(KNOWN_MAPPINGS, KNOWN_FILTERINGS), repeat=2))


@pytest.mark.parametrize("relay", [False, True])
def test_every_pair_of_nats_against_the_reference(relay: bool) -> None:
    wrong = []
    for one, two in PAIRS:
        decision = decide(side(*one), side(*two, host="192.0.2.2"), relay=relay)
        possible = can_meet(Nat(*one, "192.0.2.1"), Nat(*two, "192.0.2.2"))
        if (decision.way is not Way.RELAY) != possible:
            wrong.append((one, two, decision.way, possible))
    assert len(PAIRS) == 256
    assert wrong == []


def test_the_table_of_the_usual_kinds() -> None:
    kinds = {
        "public": (NatMapping.NONE, NatFiltering.NONE),
        "cone": (NatMapping.ENDPOINT_INDEPENDENT, NatFiltering.ENDPOINT_INDEPENDENT),
        "restricted": (NatMapping.ENDPOINT_INDEPENDENT, NatFiltering.ADDRESS_DEPENDENT),
        "port": (NatMapping.ENDPOINT_INDEPENDENT, NatFiltering.ADDRESS_AND_PORT_DEPENDENT),
        "symmetric": (
            NatMapping.ADDRESS_AND_PORT_DEPENDENT,
            NatFiltering.ADDRESS_AND_PORT_DEPENDENT,
        ),
    }
    expected = {
        ("port", "port"): Way.PUNCH,
        ("port", "symmetric"): Way.RELAY,
        ("symmetric", "symmetric"): Way.RELAY,
        ("restricted", "symmetric"): Way.PUNCH,
        ("cone", "symmetric"): Way.DIRECT,
        ("public", "symmetric"): Way.DIRECT,
        ("public", "public"): Way.DIRECT,
    }
    for (one, two), way in expected.items():
        for a, b in ((one, two), (two, one)):
            made = decide(side(*kinds[a]), side(*kinds[b], host="192.0.2.2"), relay=False)
            assert made.way is way, (a, b)


def test_who_starts_without_a_relay() -> None:
    soft = side(NatMapping.ENDPOINT_INDEPENDENT, NatFiltering.ADDRESS_DEPENDENT)
    hard = side(NatMapping.ADDRESS_AND_PORT_DEPENDENT, NatFiltering.ADDRESS_DEPENDENT, "192.0.2.2")
    assert decide(soft, hard, relay=False).called_starts
    assert not decide(hard, soft, relay=False).called_starts
    assert not decide(soft, hard, relay=True).called_starts


def test_families() -> None:
    four = side(NatMapping.NONE, NatFiltering.NONE)
    six = side(NatMapping.UNKNOWN, NatFiltering.UNKNOWN, "2001:db8::1")
    assert decide(four, six, relay=True).way is Way.RELAY
    assert decide(four, six, relay=True).why == "families differ"
    both = Side((*four.candidates, *six.candidates), NatView(3, 3))
    other = Side(
        (
            CandidateField(1, Endpoint("2001:db8::9", 5000)),
            CandidateField(2, Endpoint("192.0.2.9", 5)),
        ),
        NatView(3, 3),
    )
    assert decide(both, other, relay=True).way is Way.PUNCH


def test_private_hosts_only_behind_the_same_address() -> None:
    private = CandidateField(int(CandidateKind.HOST), Endpoint("192.168.1.5", 5000))
    ula = CandidateField(int(CandidateKind.HOST), Endpoint("fd00::5", 5000))
    public = CandidateField(int(CandidateKind.HOST), Endpoint("192.0.2.77", 5000))
    base = side(NatMapping.ENDPOINT_INDEPENDENT, NatFiltering.ENDPOINT_INDEPENDENT)
    one = Side((private, ula, public, *base.candidates), base.nat)
    near = side(NatMapping.ENDPOINT_INDEPENDENT, NatFiltering.ENDPOINT_INDEPENDENT)
    far = side(NatMapping.ENDPOINT_INDEPENDENT, NatFiltering.ENDPOINT_INDEPENDENT, "192.0.2.2")
    assert decide(one, near, relay=False).caller_candidates == one.candidates
    told = decide(one, far, relay=False).caller_candidates
    assert told == (public, *base.candidates)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "0.1.2.3",
        "169.254.1.1",
        "::",
        "::1",
        "ff02::1",
        "fe80::1",
        "fd12:3456:789a::1",
        "::ffff:10.0.0.1",
    ],
)
def test_addresses_that_nobody_may_be_sent_to(host: str) -> None:
    assert sift((CandidateField(1, Endpoint(host, 5000)),), VIRTUAL) == ()


def test_low_ports_unknown_kinds_repetitions_and_excess_are_left_out() -> None:
    good = CandidateField(2, Endpoint("192.0.2.1", 5000))
    bad = (
        CandidateField(2, Endpoint("192.0.2.1", 1023)),
        CandidateField(9, Endpoint("192.0.2.1", 5000)),
    )
    assert sift((good, good, *bad), VIRTUAL) == (good,)
    many = tuple(CandidateField(2, Endpoint("192.0.2.1", 2000 + n)) for n in range(40))
    assert len(sift(many, VIRTUAL)) == 16


endpoints = st.one_of(
    st.builds(Endpoint, st.ip_addresses(v=4).map(str), st.integers(0, 65535)),
    st.builds(Endpoint, st.ip_addresses(v=6).map(str), st.integers(0, 65535)),
)
sides = st.builds(
    Side,
    st.lists(st.builds(CandidateField, st.integers(0, 255), endpoints), max_size=20).map(tuple),
    st.builds(NatView, st.integers(0, 255), st.integers(0, 255)),
)


@given(sides, sides, st.booleans())
def test_any_claims_give_a_decision_that_leaks_nothing(one: Side, two: Side, relay: bool) -> None:
    clean = [Side(sift(each.candidates, VIRTUAL), each.nat) for each in (one, two)]
    made = decide(clean[0], clean[1], relay=relay)
    assert made == decide(clean[0], clean[1], relay=relay)
    if made.why != "same network":
        assert strangers(made.caller_candidates) == made.caller_candidates
        assert strangers(made.called_candidates) == made.called_candidates
    assert not (relay and made.called_starts)


HARD = (NatMapping.ADDRESS_AND_PORT_DEPENDENT, NatFiltering.ADDRESS_AND_PORT_DEPENDENT)


def with_mapping(plain: Side, host: str) -> Side:
    mapped = CandidateField(int(CandidateKind.MAPPED), Endpoint(host, 6000))
    return Side((*plain.candidates, mapped), plain.nat)


def test_a_mapped_port_opens_any_nat() -> None:
    caller, called = side(*HARD), side(*HARD, host="192.0.2.2")
    assert decide(caller, called, relay=True).way is Way.RELAY
    assert decide(caller, with_mapping(called, "198.51.100.7"), relay=True).way is Way.DIRECT
    back = decide(with_mapping(caller, "198.51.100.7"), called, relay=False)
    assert (back.way, back.called_starts) == (Way.DIRECT, True)


def test_a_port_mapped_behind_another_nat_is_for_neighbours_only() -> None:
    """The router that mapped it has a private or shared address itself (RFC 1918, RFC 6598)."""
    caller, called = side(*HARD), side(*HARD, host="192.0.2.2")
    for host in ("10.0.0.5", "100.64.3.2"):
        decision = decide(caller, with_mapping(called, host), relay=True)
        assert decision.way is Way.RELAY
        assert all(item.endpoint.host != host for item in decision.called_candidates)
        near = decide(side(*HARD), with_mapping(side(*HARD), host), relay=True)
        assert any(item.endpoint.host == host for item in near.called_candidates)
