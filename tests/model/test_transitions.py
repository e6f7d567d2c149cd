"""Random histories of transitions, and histories that once failed (corpus.json).

What longer runs came to is kept in runs.json (``python -m tests.model --record``).
"""

from __future__ import annotations

import pytest

from tests.model.campaign import chunk, corpus
from tests.model.history import Violation
from tests.model.places import PLACES
from tests.model.shrink import replay, shrink
from tests.model.steps import Step

CHUNKS = [(101001 + 1000 * number, 1000) for number in range(16)]
CHUNKS += [(3002000, 1000), (2007000, 200)]
"""Seed and least number of transitions; 20,000 in all and more. In 3002000 a tunnel falls idle at
an instant at which a difference of floats rounds: its timer was set again for ever. In 2007000 the
servers listen for TLS and a third node is there."""


@pytest.mark.parametrize(("seed", "transitions"), CHUNKS)
def test_histories(seed: int, transitions: int) -> None:
    """A failure is made small by ``python -m tests.model --transitions 1000 --seed SEED``."""
    report = chunk(seed, transitions, small=False)
    assert not report.failures, "\n".join(str(failure) for failure in report.failures)
    assert report.transitions >= transitions


@pytest.mark.parametrize(("name", "seed", "first", "steps"), corpus())
def test_corpus(name: str, seed: int, first: tuple[str, ...], steps: list[Step]) -> None:
    assert replay(seed, first, steps) is None, name


def test_a_way_that_the_reference_sees_and_nobody_finds_is_reported_small() -> None:
    """The oracle can fail: a world that drops every datagram of ours while it claims a way."""
    import tests.model.arena as arena

    genuine = arena.Arena._fate
    arena.Arena._fate = lambda self, wire, way, remote: (  # type: ignore[method-assign]
        0 if wire.since > 0 else genuine(self, wire, way, remote)
    )
    try:
        steps = [Step("wall"), Step("move", 0, "v6"), Step("traffic", value=20.0)]
        found = replay(7, ("public v4", "v6"), steps)
        assert isinstance(found, Violation)
        assert found.kind == "unreached"
        assert [s.what for s in shrink(7, ("public v4", "v6"), steps, "unreached")] == ["move"]
    finally:
        arena.Arena._fate = genuine  # type: ignore[method-assign]


def test_the_reference_knows_its_rfc_4787() -> None:
    punch = {
        (one, two): PLACES[one].punches(PLACES[two], 4)
        for one in PLACES
        for two in PLACES
        if 4 in PLACES[one].families and 4 in PLACES[two].families
    }
    assert all(punch[one, two] == punch[two, one] for one, two in punch)
    assert punch["port restricted", "port restricted"]
    assert punch["symmetric", "address restricted"]
    assert punch["symmetric", "full cone"]
    assert not punch["symmetric", "port restricted"]
    assert not punch["symmetric", "symmetric"]
    assert all(punch["public v4", two] for one, two in punch if one == "public v4")
