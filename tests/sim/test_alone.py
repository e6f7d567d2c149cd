"""Nobody answers but the peers: the coordinator and the account server are gone for a day and more.

Tunnels live and move, peers met before are reached from what was signed earlier, and ``status``
says what is missing and how old the knowledge is (rules C9 and S8).
"""

from __future__ import annotations

from typing import Any

import pytest

from ntmd.proto.frame import Kind
from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage

HOUR = 3600.0


def three() -> tuple[Stage, SimNode, SimNode, SimNode]:
    """A laptop that talks to a desk, and has met a third node earlier."""
    stage = Stage(1)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    third = stage.node("third", stage.world.home(SYMMETRIC))
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.first_answer(laptop, third)
    stage.run(3.0)
    return stage, laptop, desk, third


def kill(stage: Stage, how: str) -> None:
    """The coordinator is dead, a black hole, or answers what does not verify."""
    dc = stage.domains["home.test"].dc
    eth = dc.host.interfaces["eth0"]
    if how == "killed":
        dc.crash()
    elif how == "black hole":
        eth.up.up = eth.down.up = False
    else:
        network = eth.network

        def mangle(packet: Packet) -> int | None:
            if packet.data[:1] in (bytes((Kind.RESPONSE,)), bytes((Kind.CONTROL,))):
                wrong = packet.data[:16] + bytes(len(packet.data) - 16)
                network.forward(Packet(packet.source, packet.destination, wrong))
            return 0

        eth.up.script = mangle


@pytest.mark.parametrize(
    ("how", "hours"), [("killed", 24), ("black hole", 4), ("wrong answers", 4)]
)
def test_a_day_without_coordinator(how: str, hours: int) -> None:
    stage, laptop, desk, third = three()
    kill(stage, how)
    stage.stream(laptop, desk, hours * 60, interval=60.0)
    stage.run(hours / 2 * HOUR)
    network, _ = stage.place(PORT_RESTRICTED)
    laptop.host.detach("eth0")
    laptop.host.attach("eth0", network, NODE_LINK)
    stage.run(hours / 2 * HOUR + 5.0)
    assert set(desk.inner.times("udp")) == set(range(hours * 60)), "the tunnel lives and moves"
    assert stage.fresh_answer(laptop, third) <= 0.3, "met long ago, asleep since"
    status = stage.status(laptop)
    assert status["state"] == "degraded"
    assert _age(status, "coordinator") == pytest.approx(hours * HOUR, abs=1.1 * HOUR)
    laptop.restart()
    stage.run(2.0)
    assert stage.fresh_answer(laptop, third) <= 1.0, "from signed records on disk"
    status = stage.status(laptop)
    assert status["state"] == "degraded"
    [record] = [p["record_age_s"] for p in status["peers"] if p["name"] == third.name]
    assert record == pytest.approx(hours * HOUR, abs=1.1 * HOUR)
    assert status["coordinator"]["record_age_s"] == pytest.approx(hours * HOUR, abs=1.1 * HOUR)


def _age(status: dict[str, Any], what: str) -> float:
    return float(status[what]["last_seen_s"])


@pytest.mark.parametrize("killed", ["nobody", "laptop"])
def test_thirteen_days_without_any_server(killed: str) -> None:
    """The laptop's certificate runs out after four days, records and grants after seven; what the
    two have shared before stands for them (rule C9). Both are awake for half an hour a day."""
    stage = Stage(3)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED), issued_days_ago=10)
    desk = stage.node("desk")
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(3.0)
    kill(stage, "killed")
    stage.domains["home.test"].rs.crash()
    for day in range(13):
        for node in (laptop, desk):
            node.host.suspend()
        stage.run(23.5 * HOUR)
        for node in (laptop, desk):
            node.host.resume()
        stage.run(1.0)
        if killed == "laptop" and day % 3 == 2:
            laptop.restart()
            stage.run(2.0)
        assert stage.fresh_answer(laptop, desk) <= 1.0
        stage.stream(laptop, desk, 25, interval=60.0)
        stage.run(0.5 * HOUR)
        assert set(desk.inner.times("udp")) == set(range(25 * (day + 1)))
        expired = "certificate-expired" in {h["code"] for h in stage.status(desk)["health"]}
        assert expired is (day >= 4)


@pytest.mark.parametrize("server", ["coordinator", "relay"])
def test_a_server_that_comes_back_knows_where_a_node_has_gone_meanwhile(server: str) -> None:
    """It kept the place told last before it was cut off; the Move of since then reached nobody."""
    stage = Stage(4)
    domain = stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    stranger = stage.node("stranger", stage.world.home(SYMMETRIC))
    stage.all_up()
    if server == "relay":
        stage.first_answer(laptop, stranger)
    laptop.host.move("eth0", stage.world.home(PORT_RESTRICTED), NODE_LINK)
    stage.run(10.0)
    away = domain.dc if server == "coordinator" else domain.rs
    eth = away.host.interfaces["eth0"]
    eth.up.up = eth.down.up = False
    laptop.host.move("eth0", stage.world.home(PORT_RESTRICTED), NODE_LINK)
    stage.run(60.0)
    eth.up.up = eth.down.up = True
    stage.run(60.0)
    assert stage.fresh_answer(stranger, laptop, within=1.0) < 0.3


@pytest.mark.parametrize("after", [number / 10 for number in range(1, 30, 2)])
def test_a_server_that_was_silent_knows_the_mapping_that_a_node_has_now(after: float) -> None:
    """It comes back just long enough to hear the Move, and to be heard. The NAT begins anew; then
    the session is renewed on the very way that was told, from another mapping."""
    stage = Stage(4)
    domain = stage.domain()
    home = stage.world.home(PORT_RESTRICTED)
    laptop = stage.node("laptop")
    stranger = stage.node("stranger", stage.world.home(SYMMETRIC))
    stage.all_up()
    eth = domain.dc.host.interfaces["eth0"]
    eth.up.up = eth.down.up = False
    stage.run(40.0)
    laptop.host.move("eth0", home, NODE_LINK)
    stage.run(after)
    eth.up.up = eth.down.up = True
    moves = domain.dc.core._common.counters
    stage.world.run(2.0, lambda: moves["moves"] > 0)
    stage.run(0.015)
    eth.up.up = eth.down.up = False
    assert home.gateway is not None
    home.gateway.rebind(new_address=True)
    stage.run(20.0)
    eth.up.up = eth.down.up = True
    stage.run(60.0)
    assert stage.fresh_answer(stranger, laptop, within=1.0) < 0.3
