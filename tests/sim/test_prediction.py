"""Symmetric against port-restricted: direct where the NAT counts, within a bound; else relayed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from ntmd.proto.timing import PREDICTED_PORTS
from ntmd.proto.types import CandidateKind, Endpoint
from tests.sim.link import Packet
from tests.sim.machine import Host, Socket
from tests.sim.nat import PORT_RESTRICTED, SEQUENTIAL, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage
from tests.sim.world import Network

SETTLED = 4.0


def met(
    kind: NatKind, *, called: bool = False, neighbour: float = 0.0
) -> tuple[Stage, SimNode, SimNode, Network]:
    """A laptop behind ``kind`` and a desk behind a port-restricted NAT, a while after they met.

    A ``neighbour`` behind the laptop's NAT sends to somebody new so many times a second.
    """
    stage = Stage(keep_trace=False)
    stage.domain()
    network = stage.world.home(kind)
    laptop = stage.node("laptop", network, shape=NODE_LINK)
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED), shape=NODE_LINK)
    if neighbour:
        busy(stage, network, neighbour)
    stage.all_up()
    stage.run(3.0)
    stage.first_answer(*((desk, laptop) if called else (laptop, desk)))
    stage.run(SETTLED)
    return stage, laptop, desk, network


def busy(stage: Stage, network: Network, rate: float) -> None:
    host: Host = stage.world.host("neighbour")
    host.attach("eth0", network)
    socket = host.bind(Socket(4, 5000, lambda *_: None, interface="eth0"))
    for number in range(int(60 * rate)):
        somebody = Endpoint(f"192.0.2.{1 + number % 250}", 5000 + number)
        send = partial(host.send, socket, b"x", somebody)
        stage.world.clock.after(number / rate, send)


def why(stage: Stage, node: SimNode, peer: SimNode) -> str:
    answer = node.ask("why", name=peer.name)[-1].result
    return "\n".join(f"{fact['text']} [{fact.get('evidence')}]" for fact in answer["facts"])


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_nat_that_counts_is_met_directly(step: int, called: bool) -> None:
    stage, laptop, desk, _ = met(replace(SEQUENTIAL, step=step), called=called)
    assert stage.path_kind(laptop, desk) == stage.path_kind(desk, laptop) == "direct"
    assert "gives ports in a row, so the peer was told to try" in why(stage, laptop, desk)
    assert "(predicted): answered" in why(stage, desk, laptop)


def test_although_a_neighbour_takes_ports_of_the_row() -> None:
    stage, laptop, desk, _ = met(SEQUENTIAL, neighbour=0.5)
    assert stage.path_kind(laptop, desk) == "direct"


def test_ports_at_random_are_relayed_and_nobody_guesses() -> None:
    stage, laptop, desk, _ = met(SYMMETRIC)
    assert stage.path_kind(laptop, desk) == stage.path_kind(desk, laptop) == "relay"
    assert laptop.core.tunnels.by_name(desk.name).foretold == ()
    stage.run(10.0)
    assert "gives every destination another port" in why(stage, laptop, desk)


def test_a_wrong_prediction_costs_four_ports_and_the_relay_carries() -> None:
    """The neighbour takes fifty ports a second: no guess can be right."""
    stage, laptop, desk, network = met(replace(SEQUENTIAL, step=1), neighbour=50.0)
    assert stage.path_kind(laptop, desk) == "relay"
    nat = network.gateway.nat.address if network.gateway and network.gateway.nat else ""
    told = desk.core.tunnels.by_name(laptop.name).candidates
    predicted = [e for e, kind in told.items() if kind is CandidateKind.PREDICTED]
    assert len(predicted) <= 2 * PREDICTED_PORTS
    sent: list[Packet] = []
    desk.host.interfaces["eth0"].up.script = lambda packet: sent.append(packet)
    stage.stream(laptop, desk, 6000, 0.05)
    stage.run(300.0)
    guesses = [p for p in sent if p.destination.host == nat]
    assert sum(packet.size for packet in guesses) <= 300 * 120, len(guesses)
