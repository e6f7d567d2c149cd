"""``ntmd rehearse`` in virtual time: what is blocked, what survives, and what is left blocked."""

from __future__ import annotations

from typing import Any

import pytest

from ntmd.proto.io import UserAnswered
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage


def pair(*, two_links: bool = True) -> tuple[Stage, SimNode, SimNode]:
    """Laptop with eth0 and perhaps wlan0, each behind a NAT, connected to the desk."""
    stage = Stage(7)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    if two_links:
        laptop.host.attach("wlan0", stage.world.home(PORT_RESTRICTED), NODE_LINK, metric=600)
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(3.0)
    return stage, laptop, desk


def last(answers: list[UserAnswered]) -> dict[str, Any]:
    assert answers
    assert answers[-1].last
    assert answers[-1].error is None, answers[-1].error
    assert isinstance(answers[-1].result, dict)
    return answers[-1].result


def test_a_tunnel_survives_on_the_other_link() -> None:
    stage, laptop, desk = pair()
    answers = laptop.ask("rehearse", seconds=5)
    stage.run(14.0)
    result = last(answers)
    assert [a.result["phase"] for a in answers if isinstance(a.result, dict)] == [
        "listening", "blocked", "unblocked", "done",
    ]  # fmt: skip
    assert result["interface"] == "eth0"
    assert result["other_links"] == ["wlan0"]
    assert result["survived"], result
    (peer,) = result["peers"]
    assert peer["peer"] == desk.name
    assert peer["verdict"] == "survived"
    assert "eth0" in peer["before"]
    assert "wlan0" in peer["during"]
    assert 0 < peer["gap_ms"] < 2500, peer
    assert 0 < peer["lost"] < peer["sent"] / 2, peer


def test_without_another_link_it_is_cut_off_and_comes_back() -> None:
    stage, laptop, _ = pair(two_links=False)
    answers = laptop.ask("rehearse", seconds=3)
    stage.run(2.0)
    notes = [item["code"] for item in stage.status(laptop)["health"]]
    assert "rehearsal" in notes
    stage.run(12.0)
    result = last(answers)
    assert not result["survived"]
    assert result["other_links"] == []
    (peer,) = result["peers"]
    assert peer["verdict"] == "cut off, and back after the block"
    assert peer["gap_ms"] > 2900
    assert peer["lost"] == peer["sent"]
    assert "rehearsal" not in [item["code"] for item in stage.status(laptop)["health"]]


def test_a_link_that_nobody_uses_harms_nothing() -> None:
    stage, laptop, _ = pair()
    answers = laptop.ask("rehearse", seconds=2, block="wlan0")
    stage.run(10.0)
    result = last(answers)
    assert result["survived"]
    (peer,) = result["peers"]
    assert peer["verdict"] == "survived: it did not use that link"
    assert peer["lost"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seconds": 0}, "lasts from 1 s"),
        ({"seconds": "x"}, "lasts from 1 s"),
        ({"block": "wwan7"}, "wwan7 carries nothing of ntmd now. Links that do: eth0"),
    ],
)
def test_what_cannot_be_rehearsed_is_said(arguments: dict[str, Any], words: str) -> None:
    stage, laptop, _ = pair(two_links=False)
    answers = laptop.ask("rehearse", **arguments)
    stage.run(0.1)
    assert words in str(answers[-1].error)
    assert answers[-1].exit_code


def test_one_at_a_time_and_a_client_that_hangs_up_ends_it() -> None:
    stage, laptop, desk = pair(two_links=False)
    token = laptop._tokens + 1
    laptop.ask("rehearse", seconds=60)
    stage.run(1.0)
    assert "under way" in str(laptop.ask("rehearse")[-1].error)
    laptop.inner.ping(desk.address, 77)
    stage.run(0.5)
    assert 77 not in laptop.inner.times("echo", desk.address)
    laptop.ask("cancel", of=token)
    stage.run(3.0)
    laptop.inner.ping(desk.address, 78)
    stage.run(1.0)
    assert 78 in laptop.inner.times("echo", desk.address)


def test_without_peers_or_without_answers_nothing_is_blocked() -> None:
    stage = Stage(8)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    assert "nothing that could survive" in str(laptop.ask("rehearse")[-1].error)
    stage.first_answer(laptop, desk)
    desk.crash()
    answers = laptop.ask("rehearse")
    stage.run(2.0)
    assert "no peer answers now" in str(answers[-1].error)
    assert answers[-1].exit_code == 4
    assert not laptop._blocked
