"""Ports foretold: right for a NAT that counts, none for one that does not, never many."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ntmd.node.prediction import Allocations
from ntmd.proto.timing import PREDICTED_PORTS, PREDICTION_DESTINATIONS, PREDICTION_SPREAD
from ntmd.proto.types import Endpoint, Path

OUTSIDE = "198.51.100.9"
PEER = Path(1, Endpoint("203.0.113.77", 4330))


def server(number: int) -> Path:
    return Path(1, Endpoint(f"203.0.113.{number}", 4330))


@given(
    st.integers(-3, 3).filter(bool),
    st.integers(5_000, 60_000),
    st.lists(st.integers(0, 3), min_size=2, max_size=6),
)
def test_a_nat_that_counts_is_foretold(step: int, first: int, between: list[int]) -> None:
    """``between``: destinations of this node that nobody tells it of, before each server."""
    nat, ports = Allocations(), dict[Path, int]()
    order: list[Path] = []
    for number, others in enumerate(between):
        order += [server(100 + 10 * number + n) for n in range(others)] + [server(number)]
    for place, path in enumerate([*order, PEER]):
        nat.sent(path)
        nat.sent(path)  # the second datagram takes no port
        ports[path] = first + step * place
    for number in range(len(between)):
        nat.saw(server(number), Endpoint(OUTSIDE, ports[server(number)]))
    found = nat.foretell(PEER)
    assert found[0] == Endpoint(OUTSIDE, ports[PEER])
    assert len(found) == PREDICTED_PORTS


@given(st.integers(0, 2**32), st.integers(3, 8))
def test_ports_at_random_are_not(seed: int, servers: int) -> None:
    dice, nat = Random(seed), Allocations()
    ports = [dice.randint(1024, 65_535) for _ in range(servers)]
    for number, port in enumerate(ports):
        nat.sent(server(number))
        nat.saw(server(number), Endpoint(OUTSIDE, port))
    nat.sent(PEER)
    in_a_row = all(abs(b - a) <= PREDICTION_SPREAD for a, b in pairwise(ports))
    assert nat.foretell(PEER) == () or in_a_row


def test_one_port_for_all_or_too_little_known_is_no_row() -> None:
    nat = Allocations()
    nat.sent(server(1))
    nat.saw(server(1), Endpoint(OUTSIDE, 7000))
    nat.sent(PEER)
    assert nat.foretell(PEER) == ()
    nat.sent(server(2))
    nat.saw(server(2), Endpoint(OUTSIDE, 7000))
    assert nat.foretell(PEER) == ()


def test_what_is_remembered_is_bounded_and_goes_with_the_socket() -> None:
    nat = Allocations()
    for number in range(3 * PREDICTION_DESTINATIONS):
        nat.sent(Path(1, Endpoint("203.0.113.1", 1024 + number)))
    assert len(nat._places) == PREDICTION_DESTINATIONS
    nat.forget(1)
    assert not nat._places
