"""Random histories of moves, rebindings, crashes and bad links: what must hold after each of them.

Invariants: no packet is delivered twice or damaged; no key and nonce seal two datagrams; a node
keeps its address; and once the world is calm again, everybody reaches everybody.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.sim.link import Shape
from tests.sim.nat import FULL_CONE, PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage

KINDS: tuple[NatKind | str, ...] = ("public v4", FULL_CONE, PORT_RESTRICTED, SYMMETRIC, "v6")
STEPS = 12
CALM = 320.0  # seconds: more than the rarest keep-alive, by which a rebound NAT is noticed
SEEDS = range(24)


class History:
    """One world, three nodes, and a dice that decides what happens next."""

    def __init__(self, seed: int) -> None:
        self.stage = Stage(seed, keep_trace=False)
        self.dice: Random = self.stage.world.clock.stream("history")
        self.world(self.stage)
        self.nodes = [self._node(label) for label in ("a", "b", "c")]
        self.stage.all_up()
        self.addresses = [node.address for node in self.nodes]
        self.done: list[str] = []
        self.pings = 0

    def world(self, stage: Stage) -> None:
        """The servers."""
        self.domain = stage.domain()

    def happenings(self) -> tuple[str, ...]:
        """What the dice choose from."""
        return (
            "move",
            "move",
            "rebind",
            "rough",
            "crash",
            "dc",
            "rs",
            "traffic",
            "traffic",
            "idle",
        )

    def _node(self, label: str) -> SimNode:
        network, families = self.stage.place(self.dice.choice(KINDS))
        return self.stage.node(label, network, families=families)

    def step(self) -> None:
        """One thing happens; packets flow meanwhile."""
        what = self.dice.choice(self.happenings())
        node = self.dice.choice(self.nodes)
        self.done.append(f"{what} {node.host.name}")
        getattr(self, what)(node)
        self.traffic(node)
        self.stage.run(self.dice.uniform(0.05, 3.0))

    def move(self, node: SimNode) -> None:
        network, families = self.stage.place(self.dice.choice(KINDS))
        node.host.detach("eth0")
        self.stage.run(self.dice.choice((0.0, 0.0, 1.5)))
        node.host.attach("eth0", network, NODE_LINK, families=families)

    def rebind(self, node: SimNode) -> None:
        gateway = node.host.interfaces["eth0"].network.gateway
        if gateway is not None:
            gateway.rebind(new_address=self.dice.random() < 0.5)

    def rough(self, node: SimNode) -> None:
        shape = Shape(delay=0.02, jitter=0.02, loss=0.2, duplicate=0.1, reorder=0.1)
        eth = node.host.interfaces["eth0"]
        eth.up.shape = eth.down.shape = shape

    def crash(self, node: SimNode) -> None:
        node.crash()
        self.stage.run(self.dice.uniform(0.0, 2.0))
        node.start()

    def dc(self, _node: SimNode) -> None:
        self.domain.dc.restart()

    def rs(self, _node: SimNode) -> None:
        self.domain.rs.restart()

    def idle(self, _node: SimNode) -> None:
        self.stage.run(self.dice.choice((130.0, 200.0, 700.0)))

    def traffic(self, node: SimNode) -> None:
        for peer in self.nodes:
            if peer is not node and node.address:
                self.stage.stream(node, peer, 20)

    def calm(self) -> None:
        """Links are good again; time for everything to settle."""
        for node in self.nodes:
            eth = node.host.interfaces["eth0"]
            eth.up.shape = eth.down.shape = NODE_LINK
        self.stage.run(CALM)

    def unreached(self) -> list[tuple[str, str]]:
        """Pairs that a ping, repeated for 8 s, does not cross."""
        missing = []
        for one in self.nodes:
            for two in self.nodes:
                if one is not two and not self._reaches(one, two):
                    missing.append((one.name, two.name))
        return missing

    def _reaches(self, one: SimNode, two: SimNode) -> bool:
        first = self.pings + 1
        for _ in range(16):
            self.pings += 1
            one.inner.ping(two.address, self.pings)
            answered = lambda: any(n >= first for n in one.inner.times("echo", two.address))  # noqa: E731
            if self.stage.world.run(0.5, answered):
                return True
        return False


@pytest.mark.parametrize("seed", SEEDS)
def test_history(seed: int) -> None:
    history = History(seed)
    for _ in range(STEPS):
        history.step()
    history.calm()
    assert history.unreached() == [], (history.done, history.stage.explain(*history.nodes))
    for node, address in zip(history.nodes, history.addresses, strict=True):
        assert node.address == address
        assert node.inner.bad == []
        assert node.inner.copies("udp") == 0, history.done
        assert all(len(bodies) == 1 for bodies in node.sealed.values())
