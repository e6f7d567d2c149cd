"""What ends the rule that a pair goes by the relay alone: a new way that is named, a datagram that
came through, a relay that is silent. What names nothing new does not end it."""

from __future__ import annotations

import pytest

from ntmd.node.tunnels import Tunnel
from ntmd.node.uplink import Link
from ntmd.proto.messages import CandidateField
from ntmd.proto.types import CandidateKind, Endpoint, Path
from tests.sim.nat import SYMMETRIC
from tests.sim.node import SimNode
from tests.sim.story import Stage, met_behind


def relayed() -> tuple[Stage, SimNode, Tunnel]:
    """Two nodes behind NATs that map by destination, and the tunnel of one of them."""
    stage, laptop, _ = met_behind(SYMMETRIC, 3, after=5.0)
    stage.run(2.0)
    (tunnel,) = laptop.core.tunnels.all()
    assert tunnel.relay_only
    return stage, laptop, tunnel


def test_a_peer_that_names_a_port_of_its_router() -> None:
    _, laptop, tunnel = relayed()
    known = tuple(CandidateField(int(kind), at) for at, kind in tunnel.candidates.items())
    laptop.core.steering.candidates_came(tunnel, known, laptop.host.now)
    assert tunnel.relay_only
    fresh = CandidateField(int(CandidateKind.MAPPED), Endpoint("198.51.100.9", 7000))
    laptop.core.steering.candidates_came(tunnel, (fresh,), laptop.host.now)
    assert not tunnel.relay_only


def test_a_datagram_of_the_peer_that_came_through() -> None:
    _, laptop, tunnel = relayed()
    way = tunnel.paths.primary
    assert way is not None
    assert way.relayed
    laptop.core.steering.noticed(tunnel, way, laptop.host.now)
    assert tunnel.relay_only
    direct = Path(way.socket, Endpoint("198.51.100.9", 7000))
    laptop.core.steering.noticed(tunnel, direct, laptop.host.now)
    assert not tunnel.relay_only


@pytest.mark.parametrize("silent", [False, True])
def test_a_direction_to_a_relay_that_is_silent(silent: bool) -> None:
    stage, laptop, tunnel = relayed()
    if silent:
        for relay in laptop.core.relays.by_name.values():
            relay.uplink.state = Link.SILENT
    laptop.core.directions.ask(tunnel.peer.name, b"", laptop.host.now)
    laptop.resolve(tunnel.peer.name)  # an input, so that what was asked leaves
    stage.run(0.2)
    assert tunnel.relay_only is not silent
