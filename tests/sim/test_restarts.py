"""Both ends of a tunnel restart (rule S4): new sessions, and no loop of resets between them."""

from __future__ import annotations

import pytest

from ntmd.proto.frame import Kind
from ntmd.proto.types import Endpoint
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage


class Heard:
    """Counts the resets that nodes send, and their calls to each other."""

    def __init__(self, servers: frozenset[Endpoint], *nodes: SimNode) -> None:
        self.servers = servers
        self.resets = self.initiations = 0
        for node in nodes:
            self._wrap(node)

    def _wrap(self, node: SimNode) -> None:
        send = node.send

        def sent(number: int, data: bytes, remote: object) -> int:
            self.resets += data[0] == Kind.RESET
            to_peer = remote not in self.servers or data[4:8] != bytes(4)  # or over a leg
            self.initiations += data[0] == Kind.INITIATION and to_peer
            return send(number, data, remote)  # type: ignore[arg-type]

        node.send = sent  # type: ignore[method-assign]


@pytest.mark.parametrize("apart", [0.0, 0.03, 3.0])
@pytest.mark.parametrize("servers", [True, False], ids=["servers live", "servers dead"])
@pytest.mark.parametrize("at", ["public v4", PORT_RESTRICTED, SYMMETRIC], ids=str)
def test_two_restarted_nodes_do_not_loop(at: NatKind | str, servers: bool, apart: float) -> None:
    stage = Stage(5)
    domain = stage.domain()
    nodes = []
    for label in ("one", "two"):
        network, families = stage.place(at)
        nodes.append(stage.node(label, network, families=families))
    stage.all_up()
    one, two = nodes
    stage.first_answer(one, two)
    stage.run(5.0)
    if not servers:
        domain.dc.crash()
        if at != SYMMETRIC:  # there the relay is the only way
            domain.rs.crash()
    one.restart()
    stage.run(apart)
    two.restart()
    ports = (*domain.dc.ports.values(), *domain.rs.ports.values())
    heard = Heard(frozenset(ports), one, two)
    stage.fresh_answer(one, two, within=4.0)
    stage.fresh_answer(two, one, within=1.0)
    stage.run(15.0)  # what was begun is settled
    heard.resets = heard.initiations = 0
    for number in range(60):
        one.inner.ping(two.address, 5000 + number)
        stage.run(0.5)
    assert heard.resets == 0
    assert heard.initiations == 0
    assert len([n for n in one.inner.times("echo") if 5000 <= n < 5060]) == 60
