"""Servers that lie about the source that they see: the own flows pay next to nothing for it.

What a server says it saw is a hint, and a mapping that is new means doubt at once. A source that
changes all the time must not cost a datagram, nor lead anybody in circles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from ntmd.proto.types import Endpoint
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.story import Stage, met_behind

SECONDS = 20.0
LYING = ("198.51.100.66", 1024)  # nobody's address, and the first of many ports


def talking() -> tuple[Stage, SimNode, SimNode]:
    stage, laptop, desk = met_behind(PORT_RESTRICTED, after=2.0)
    stage.run(2.0)
    for node, other in ((laptop, desk), (desk, laptop)):
        stage.stream(node, other, int(SECONDS / 0.02), 0.02)
    return stage, laptop, desk


def lies(stage: Stage, to: SimNode) -> list[int]:
    """From now on, each time another port; the list counts what was told."""
    told: list[int] = []

    def false(message: Any, remote: Endpoint) -> Any:
        here = to.host.interfaces["eth0"].network.gateway
        assert here is not None
        assert here.nat is not None
        if getattr(message, "observed", None) is None or remote.host != here.nat.address:
            return message
        told.append(len(told))
        return dataclasses.replace(message, observed=Endpoint(LYING[0], LYING[1] + len(told)))

    domain = stage.domains["home.test"]
    for engine in (domain.dc.core._common.engine, domain.rs.core.engine):
        _corrupt(engine, false)
    return told


def _corrupt(engine: Any, false: Callable[[Any, Endpoint], Any]) -> None:
    """What the engine tells and replies passes through ``false``."""
    tell, reply = engine.tell, engine.reply

    def told(handle: int, message: Any, now: float, path: Any = None, **more: Any) -> Any:
        remote = path.remote if path is not None else Endpoint("0.0.0.0", 0)
        return tell(handle, false(message, remote), now, path, **more)

    def replied(event: Any, message: Any, now: float) -> Any:
        return reply(event, false(message, event.path.remote), now)

    engine.tell, engine.reply = told, replied


@pytest.mark.parametrize("rebound", [False, True], ids=["alone", "and a NAT that forgot"])
def test_servers_that_name_another_source_each_time(rebound: bool) -> None:
    stage, laptop, desk = talking()
    told = lies(stage, laptop)
    if rebound:
        gateway = laptop.host.interfaces["eth0"].network.gateway
        assert gateway is not None
        gateway.rebind(new_address=True)
    stage.run(SECONDS)
    assert told
    assert len(told) <= 100, "each lie makes the node ask again"
    assert laptop.core.common.counters["path_doubted"] <= 5
    for node in (laptop, desk):
        assert node.inner.longest_gap("udp") <= (2.0 if rebound else 0.1)
