"""Instants at which a difference of floats rounds: no timer is set for the one it stands at."""

from __future__ import annotations

import pytest

from ntmd.proto.timing import DIRECT_IDLE, REST_AFTER
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.story import met_behind


def rounded(begin: float, span: float) -> float:
    """An instant after ``begin`` whose sum with ``span``, less itself, is below ``span``."""
    at = begin
    while at + span - at >= span:
        at += 0.1
    return at


@pytest.mark.parametrize("span", [DIRECT_IDLE, REST_AFTER])
def test_a_tunnel_falls_silent_at_an_instant_that_rounds(span: float) -> None:
    stage, laptop, _ = met_behind(PORT_RESTRICTED)
    stage.run(2.0)
    core = laptop.core
    tunnel, timers = core.tunnels.all()[0], core.common.timers
    tunnel.busy_at = rounded(laptop.host.now, span)
    due = tunnel.busy_at + span
    name, look = (
        (("idle", tunnel.number), core.steering._idle)
        if span == DIRECT_IDLE
        else (("rest", tunnel.number), core.steering.rest._look)
    )
    timers.cancel(name)
    look(tunnel, due)
    assert (timers.pending(name) or due + 1) > due
