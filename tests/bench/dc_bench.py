"""Refreshes in established sessions through one coordinator process.

    python -m tests.bench.dc_bench [--nodes 200] [--rounds 5] [--count 4000]

The production core with real sessions; sealed datagrams are made by the nodes' engines beforehand,
so that only the coordinator's own work is timed: opening, deciding, answering, sealing. Answers are
counted, and a sample is opened again by its node afterwards. Prints JSON: keep-alives (Probe) and
registrations (Register) per second, raw rounds and median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time

from ntm_dc.core import DcCore
from ntm_dc.values import DcSettings, DcState, Flush, Flushed
from ntmd.proto import messages as m
from ntmd.proto.events import Established, MessageReceived, OpenPolicy, Replied
from ntmd.proto.io import DatagramReceived, SendDatagram
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import CandidateKind, Endpoint, Path, Role
from tests.sim.clock import EPOCH_MS, Clock
from tests.sim.platform import Platform

DC = Endpoint("198.51.100.1", 4330)


class Client:
    """A node's engine and the coordinator on the other side of a function call."""

    def __init__(
        self, number: int, world: Platform, core: DcCore, now: float, peer: object
    ) -> None:
        self.source = Endpoint(f"203.0.113.{number % 250 + 1}", 5000 + number)
        self.core = core
        self.replies = 0
        self.answers = 0
        self.engine = SessionEngine(
            world.node(f"n{number}.home.test", "home.test"),
            world.trust,
            OpenPolicy((Role.DC,)),
            random=os.urandom,
            platform_ms=lambda _: EPOCH_MS,
            sequencer=Sequencer(0, lambda mark: None),
        )
        self.handle = self.engine.call(peer, [Path(1, DC)], now)  # type: ignore[arg-type]

    def outgoing(self) -> list[bytes]:
        """Datagrams to send; answers that came are counted."""
        found = []
        for output in self.engine.take_outputs():
            if isinstance(output, SendDatagram):
                found.append(output.data)
            elif isinstance(output, Established):
                self.engine.set_primary(output.handle, output.path)
            elif isinstance(output, Replied) and isinstance(output.reply, m.Registered):
                self.replies += output.reply.status == m.Status.OK
            elif isinstance(output, MessageReceived):
                self.answers += isinstance(output.message, m.Answer)
        return found


def exchange(clients: list[Client], core: DcCore, now: float) -> None:
    """Carry datagrams to and fro until all is quiet."""
    at = {client.source: client for client in clients}
    busy = True
    while busy:
        busy = False
        for client in clients:
            for data in client.outgoing():
                busy = True
                core.handle(DatagramReceived(data, 1, client.source), now)
        for command in core.take_commands():
            if isinstance(command, SendDatagram):
                busy = True
                at[command.path.remote].engine.receive(command.data, 1, DC, now)
            elif isinstance(command, Flush):
                core.handle(Flushed(command.ticket), now)


def build(count: int) -> tuple[DcCore, list[Client]]:
    """A coordinator with ``count`` registered nodes."""
    world = Platform(Clock(1))
    own = world.dc("dc.home.test", "home.test")
    core = DcCore(
        DcSettings("home.test", (DC,), (Endpoint(DC.host, 4332),)),
        own.identity,
        own.sign_private,
        own.sign_certificate,
        own.prefix,
        world.trust,
        DcState(),
        random=os.urandom,
        now=1000.0,
        wall_ms=EPOCH_MS,
    )
    clients = [Client(n, world, core, 1000.0, own.peer) for n in range(count)]
    exchange(clients, core, 1000.0)
    for client in clients:
        client.engine.ask(client.handle, register(client), 1000.0)
    exchange(clients, core, 1000.0)
    assert all(client.replies == 1 for client in clients)
    return core, clients


def register(client: Client) -> m.Register:
    """A refresh as a node behind a NAT sends it."""
    host = m.CandidateField(int(CandidateKind.HOST), Endpoint("192.168.1.5", 5000))
    seen = m.CandidateField(int(CandidateKind.REFLEXIVE), client.source)
    return m.Register(0, (host, seen), m.NatView(1, 1), 5, "", 600)


def one_round(kind: str, core: DcCore, clients: list[Client], now: float, count: int) -> float:
    """Refreshes a second, by the coordinator's own time."""
    inputs = []
    for number in range(count):
        client = clients[number % len(clients)]
        if kind == "probe":
            client.engine.tell(client.handle, m.Probe(number + 1), now)
        else:
            client.engine.ask(client.handle, register(client), now)
        inputs += [DatagramReceived(data, 1, client.source) for data in client.outgoing()]
    assert len(inputs) == count
    sent = []
    began = time.perf_counter()
    for event in inputs:
        core.handle(event, now)
        sent += core.take_commands()
    took = time.perf_counter() - began
    at = {client.source: client for client in clients}
    before = sum(client.answers + client.replies for client in clients)
    for command in sent:
        if isinstance(command, SendDatagram):
            at[command.path.remote].engine.receive(command.data, 1, DC, now)
    for client in clients:
        client.outgoing()
    got = sum(client.answers + client.replies for client in clients) - before
    assert got == count, f"{got} of {count} refreshes were answered"
    return count / took


def measure(nodes: int = 200, rounds: int = 5, count: int = 4000) -> dict[str, object]:
    """Both kinds of refresh, interleaved."""
    core, clients = build(nodes)
    raw: dict[str, list[float]] = {"probe": [], "register": []}
    now = 1001.0
    for _ in range(rounds):
        for kind, rates in raw.items():
            now += 31.0  # beyond the memory for repeated requests
            rates.append(round(one_round(kind, core, clients, now, count)))
    return {
        "what": "refreshes per second in established sessions, one coordinator process",
        "nodes": nodes,
        "refreshes_per_round": count,
        "python": platform.python_version(),
        "median": {kind: statistics.median(rates) for kind, rates in raw.items()},
        "range": {kind: [min(rates), max(rates)] for kind, rates in raw.items()},
        "rounds": raw,
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=4000)
    given = parser.parse_args()
    print(json.dumps(measure(given.nodes, given.rounds, given.count), indent=1))


if __name__ == "__main__":
    main()
