"""Whoever is not answered asks again, but with pauses.

The pauses are bounds on what a node costs others: they are counted here, not timed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.story import Stage
from tests.sim.test_silent_link import fall_silent
from tests.sim.test_soft_move import two_links

HOUR = 3600.0


def asked(node: SimNode) -> Counter[str]:
    """Counts from now on what the node asks of servers and peers, by kind of message."""
    found: Counter[str] = Counter()
    requests = node.core.requests
    ask = requests.ask

    def counted(handle: int, request: Any, *rest: Any, **more: Any) -> Any:
        found[type(request).__name__] += 1
        return ask(handle, request, *rest, **more)

    requests.ask = counted
    return found


def probed(node: SimNode) -> Counter[tuple[str, int]]:
    """Counts from now on the questions that the node begins, by purpose and association."""
    found: Counter[tuple[str, int]] = Counter()
    start = node.core.prober.start

    def counted(handle: int, *rest: Any, purpose: str = "", **more: Any) -> Any:
        found[purpose, handle] += 1
        return start(handle, *rest, purpose=purpose, **more)

    node.core.prober.start = counted
    return found


def met(peers: int) -> tuple[Stage, SimNode, list[SimNode]]:
    """A laptop that met so many peers, of which later on nobody but the coordinator hears."""
    stage = Stage(3, keep_trace=False)
    coordinator = {at.host for at in stage.domain().dc.ports.values()}
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    others = [stage.node(f"peer{number}") for number in range(peers)]
    stage.all_up()
    for other in others:
        stage.first_answer(laptop, other)
    stage.run(400.0)

    def passes(packet: Packet) -> int:
        return int(bool({packet.source.host, packet.destination.host} & coordinator))

    for other in others:
        entry = other.host.interfaces["eth0"]
        entry.up.script = entry.down.script = passes
    return stage, laptop, others


def test_a_call_that_nobody_answers_asks_for_directions_with_growing_pauses() -> None:
    stage, laptop, (peer,) = met(1)
    found = asked(laptop)
    laptop.inner.ping(peer.address, 1)
    stage.run(9.0)
    assert 3 <= found["DirectionRequest"] <= 8, found


def test_many_silent_peers_have_the_own_mappings_looked_at_once_in_a_while() -> None:
    stage, laptop, others = met(6)
    coordinator = laptop.core.registration.uplink.handle
    found = probed(laptop)
    for number, other in enumerate(others):
        stage.world.clock.after(
            0.3 * number,
            lambda at=other.address: laptop.inner.ping(at, 1),  # type: ignore[misc]
        )
    stage.run(8.0)
    assert 2 <= found["keepalive", coordinator] <= 6, found


def test_a_silent_link_is_asked_less_and_less_often() -> None:
    stage, laptop, desk = two_links()
    stage.stream(laptop, desk, 200)
    stage.run(1.0)
    fall_silent(laptop)
    stage.run(4.0)
    assert laptop.core.common.counters["link_silent"] == 1
    found = probed(laptop)
    server = laptop.core.shift.server()
    stage.run(600.0)
    early = found["standby", server.handle]
    stage.run(600.0)
    late = found["standby", server.handle] - early
    assert early <= 60, found
    assert 8 <= late <= 25, found


@pytest.mark.parametrize("seed", [5, 6])
def test_an_idle_node_registers_about_once_an_hour(seed: int) -> None:
    stage = Stage(seed, keep_trace=False)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    stage.run(60.0)
    found = asked(laptop)
    stage.run(6 * HOUR)
    assert 4 <= found["Register"] <= 6, found
