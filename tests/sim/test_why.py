"""``ntmd why``: the chain of facts ends in the reason that the world has, and in what helps."""

from __future__ import annotations

from typing import Any

import pytest

from ntmd.node.why import nat_words, verdict
from ntmd.proto.messages import NatView
from ntmd.proto.types import NatFiltering, NatMapping
from tests.sim.node import SimNode
from tests.sim.story import Stage
from tests.sim.test_first_contact import PLACES

TIED = (NatMapping.ENDPOINT_INDEPENDENT, NatFiltering.ADDRESS_AND_PORT_DEPENDENT)
SHIFTY = (NatMapping.ADDRESS_AND_PORT_DEPENDENT, NatFiltering.ADDRESS_AND_PORT_DEPENDENT)
UNKNOWN = (NatMapping.UNKNOWN, NatFiltering.UNKNOWN)


def meeting(here: str, there: str, known: bool = True) -> tuple[Stage, SimNode, SimNode]:
    """Two ends that met; ``known``: their NATs had been measured before."""
    stage = Stage(3)
    stage.domain()
    nodes: list[SimNode] = []
    for label, at in (("laptop", here), ("desk", there)):
        network, families = stage.place(PLACES[at])
        nodes.append(stage.node(label, network, families=families))
    stage.all_up()
    stage.run(4.0 if known else 0.0)
    stage.first_answer(nodes[0], nodes[1])
    return stage, nodes[0], nodes[1]


def asked(node: SimNode, name: str) -> dict[str, Any]:
    answer = node.ask("why", name=name)[-1]
    assert isinstance(answer.result, dict), answer.error
    return answer.result


def texts(answer: dict[str, Any]) -> list[str]:
    return [fact["text"] for fact in answer["facts"]]


@pytest.mark.parametrize(
    ("here", "there", "conclusion", "advice"),
    [
        ("port-restricted", "port-restricted", "so it goes direct", ""),
        ("symmetric", "port-restricted", "the NAT here gives every destination", "router here"),
        ("port-restricted", "symmetric", "the NAT at desk.home.test gives", "at desk.home.test"),
        ("symmetric", "symmetric", "the NAT here and at desk.home.test gives", "router here"),
        ("public", "v6", "no address family in common", "get IPv6 here"),
    ],
)
def test_the_reason_and_what_would_help(
    here: str, there: str, conclusion: str, advice: str
) -> None:
    stage, laptop, desk = meeting(here, there)
    stage.stream(laptop, desk, 600)
    stage.run(8.0)
    answer = asked(laptop, desk.name)
    said = texts(answer)
    assert conclusion in said[-1], said
    assert advice in " ".join(answer["advice"])
    assert bool(answer["advice"]) is bool(advice)
    assert any(text.startswith("here, eth0 (IPv") for text in said)
    assert any(text.startswith("there, ") and "candidate" in text for text in said)
    if here != "public":
        assert any("the NAT's mapping is" in text for text in said)
    by_text = {fact["text"]: fact for fact in answer["facts"]}
    chose = next(fact for text, fact in by_text.items() if "the coordinator chose" in text)
    assert 7.5 < chose["age_s"] < 10
    assert "relays granted: rs.home.test" in chose["evidence"]
    keys = by_text["the present keys were agreed"]
    assert keys["evidence"] == "certificates and the coordinator's key for this pair"
    assert any(text.startswith("the peer's record is good for") for text in said)


def test_direct_ways_that_are_still_being_tried_and_those_that_a_firewall_eats() -> None:
    stage, laptop, desk = meeting("symmetric", "symmetric", known=False)
    assert "still being tried" in texts(asked(laptop, desk.name))[-1]
    stage.run(6.0)
    answer = asked(laptop, desk.name)
    tried = [f for f in answer["facts"] if "never answered a challenge" in f["text"]]
    assert tried
    assert all("tried" in f["evidence"] and f["age_s"] >= 0 for f in tried)


def test_a_silent_coordinator_and_a_move_are_in_the_chain() -> None:
    stage, laptop, desk = meeting("port-restricted", "port-restricted")
    stage.domains["home.test"].dc.crash()
    laptop.host.detach("eth0")
    network, families = stage.place(PLACES["port-restricted"])
    laptop.host.attach("eth0", network, families=families)
    stage.run(30.0)
    said = texts(asked(laptop, desk.name))
    assert "the coordinator does not answer" in said
    assert any(text.startswith("the last move went to direct via eth0") for text in said)


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        (SHIFTY, UNKNOWN, "the NAT at x could not be measured"),
        (TIED, UNKNOWN, "the NAT at x could not be measured"),
        (TIED, TIED, "although two such NATs would allow one"),
        (SHIFTY, (NatMapping.NONE, NatFiltering.NONE), "although two such NATs would allow one"),
        (SHIFTY, SHIFTY, "so neither can be told where to send"),
    ],
)
def test_verdicts(
    here: tuple[NatMapping, NatFiltering], there: tuple[NatMapping, NatFiltering], words: str
) -> None:
    text, advice = verdict(here, there, "x")
    assert words in text
    assert advice


def test_words_that_a_newer_peer_may_use_are_unknown() -> None:
    assert nat_words(NatView(200, 200)) == UNKNOWN
