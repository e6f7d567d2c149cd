from __future__ import annotations

import ipaddress

import pytest

from ntmd.node.candidates import MAX_PER_PEER, ContactBudget, Pauses, acceptable, merge
from ntmd.proto.messages import CandidateField
from ntmd.proto.timing import DIRECTION_BYTES
from ntmd.proto.types import CandidateKind, Endpoint

VIRTUAL = ipaddress.IPv6Network("fd12:3456:789a::/48")


@pytest.mark.parametrize(
    ("host", "port", "good"),
    [
        ("203.0.113.9", 4330, True),
        ("192.168.1.7", 40000, True),
        ("2001:db8::7", 4330, True),
        ("203.0.113.9", 0, False),
        ("203.0.113.9", 53, False),
        ("0.0.0.0", 4330, False),
        ("0.1.2.3", 4330, False),
        ("127.0.0.1", 4330, False),
        ("224.0.0.251", 5353, False),
        ("255.255.255.255", 4330, False),
        ("169.254.1.1", 4330, False),
        ("::", 4330, False),
        ("::1", 4330, False),
        ("fe80::1", 4330, False),
        ("ff02::1", 4330, False),
        ("fd12:3456:789a::5", 4330, False),
        ("::ffff:10.0.0.1", 4330, False),
        ("198.51.100.4", 4330, False),
    ],
)
def test_only_endpoints_of_hosts_are_sent_to(host: str, port: int, good: bool) -> None:
    assert acceptable(Endpoint(host, port), ("198.51.100.4",), VIRTUAL) is good


def test_the_newest_candidates_stay() -> None:
    known: dict[Endpoint, CandidateKind] = {}
    for number in range(40):
        known = merge(known, (CandidateField(1, Endpoint("203.0.113.9", 2000 + number)),))
    assert len(known) == MAX_PER_PEER
    assert Endpoint("203.0.113.9", 2039) in known
    assert Endpoint("203.0.113.9", 2000) not in known
    assert merge({}, (CandidateField(99, Endpoint("203.0.113.9", 2000)),)) == {
        Endpoint("203.0.113.9", 2000): CandidateKind.REFLEXIVE
    }


def test_the_budget_is_per_minute() -> None:
    budget = ContactBudget()
    sent = sum(1200 for _ in range(10_000) if budget.allow(1200, 5.0))
    assert DIRECTION_BYTES - 1200 < sent <= DIRECTION_BYTES
    assert not budget.allow(1200, 64.0)
    assert budget.allow(1200, 65.0)


def test_three_failures_pause_the_prefix_for_a_minute() -> None:
    pauses, one = Pauses(), Endpoint("203.0.113.9", 4330)
    for number in range(3):
        assert not pauses.paused(one, 10.0)
        places = [Endpoint(f"203.0.113.{number}", port) for port in range(4330, 4336)]
        pauses.failed(tuple(places), 10.0)  # one call, wherever it went
    assert pauses.paused(one, 69.0)
    assert not pauses.paused(one, 70.0)
    assert not pauses.paused(Endpoint("203.0.112.9", 4330), 11.0)
    pauses.answered(one)
    assert not pauses.paused(one, 11.0)
