"""Random histories in a world whose networks begin and cease to eat UDP at random (rule S12)."""

from __future__ import annotations

import pytest

from tests.model.test_histories import STEPS, History
from tests.sim.node import SimNode
from tests.sim.story import Stage
from tests.sim.test_udp_blocked import UdpEater
from tests.sim.world import Network

SEEDS = range(16)


class BlockedHistory(History):
    """The same dice, and one more thing that can happen; what is blocked at the end stays so."""

    def __init__(self, seed: int) -> None:
        self.eaters: dict[Network, UdpEater] = {}
        super().__init__(seed)

    def world(self, stage: Stage) -> None:
        """Servers that listen for TLS too."""
        self.domain = stage.domain(tls=True)

    def happenings(self) -> tuple[str, ...]:
        """Networks change their minds about as often as nodes move."""
        return (*super().happenings(), "block", "block", "block")

    def block(self, node: SimNode) -> None:
        """The node's network begins to eat UDP, or ceases to."""
        network = node.host.interfaces["eth0"].network
        if network is self.stage.world.internet:
            return
        if network not in self.eaters:
            self.eaters[network] = UdpEater(network)
        else:
            self.eaters[network].on = not self.eaters[network].on


@pytest.mark.parametrize("seed", SEEDS)
def test_history(seed: int) -> None:
    history = BlockedHistory(seed)
    for _ in range(STEPS):
        history.step()
    history.calm()
    assert history.unreached() == [], (history.done, history.stage.explain(*history.nodes))
    for node, address in zip(history.nodes, history.addresses, strict=True):
        assert node.address == address
        assert node.inner.bad == []
        assert node.inner.copies("udp") == 0, history.done
        assert all(len(bodies) == 1 for bodies in node.sealed.values())
        assert len(node.streams) <= 4
