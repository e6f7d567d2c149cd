"""One coordinator process on real sockets: refreshes per second, and what a restart costs.

    python -m tests.bench.dc_process_bench [--nodes 100] [--rounds 5] [--count 6000] [--recall 2000]

The coordinator is the production server (driver, sockets, SQLite) in a process of its own; this
process plays the nodes. Sealed keep-alives are made beforehand, at most 128 are under way, answers
are counted as they come and all are opened afterwards. The second figure is the processor time that
a restarted coordinator spends on each node that it calls back, in this process. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import select
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path as FilePath

from ntm_dc.core import DcCore
from ntm_dc.shell import DcServer
from ntm_dc.values import DcState
from ntmd.proto import messages as m
from ntmd.proto.events import Established, MessageReceived, OpenPolicy, Replied
from ntmd.proto.io import SendDatagram
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Endpoint, Path, Peer, Role
from ntmd.runtime.clock import boot_clock, wall_ms
from ntmd.runtime.enrolment import Enrolment
from ntmd.runtime.udp import open_udp
from tests.bench.dc_bench import build
from tests.sim.clock import EPOCH_MS, Clock
from tests.sim.platform import Platform

WINDOW = 128  # keep-alives under way


def serve(directory: str, enrolment: str, pipe: Connection) -> None:
    """The coordinator's process."""

    async def run() -> None:
        server = DcServer(FilePath(directory), Enrolment.from_json(enrolment), ["127.0.0.1"], 0)
        await server.start()
        pipe.send(server.endpoints[0])
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), stopped.set)
        await stopped.wait()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send((usage.ru_utime + usage.ru_stime, usage.ru_maxrss))
        await server.stop()

    asyncio.run(run())


class Node:
    """A node on a socket of its own."""

    def __init__(self, world: Platform, number: int, dc: Peer, at: Endpoint) -> None:
        self.socket = open_udp("127.0.0.1", 0)
        self.socket.connect(at)
        self.registered = False
        self.answers = 0
        offset = wall_ms() - int(boot_clock() * 1000)
        self.engine = SessionEngine(
            world.node(f"n{number}.home.test", "home.test"),
            world.trust,
            OpenPolicy((Role.DC,)),
            random=os.urandom,
            platform_ms=lambda now: offset + int(now * 1000),
            sequencer=Sequencer(0, lambda mark: None),
        )
        self.at = at
        self.handle = self.engine.call(dc, [Path(1, at)], boot_clock())

    def outgoing(self) -> list[bytes]:
        """What the engine wants sent; its events are noted."""
        found = []
        for output in self.engine.take_outputs():
            if isinstance(output, SendDatagram):
                found.append(output.data)
            elif isinstance(output, Established):
                self.engine.set_primary(output.handle, output.path)
                self.engine.ask(output.handle, m.Register(0, (), m.NatView()), boot_clock())
                found += self.outgoing()
            elif isinstance(output, Replied) and isinstance(output.reply, m.Registered):
                self.registered = output.reply.status == m.Status.OK
            elif isinstance(output, MessageReceived):
                self.answers += isinstance(output.message, m.Answer)
        return found

    def join(self) -> None:
        """Shake hands and register."""
        end = time.monotonic() + 10
        while not self.registered:
            for data in self.outgoing():
                self.socket.send(data)
            if select.select([self.socket], [], [], 0.02)[0]:
                self.engine.receive(self.socket.recv(65_536), 1, self.at, boot_clock())
            elif (self.engine.deadline() or 0) <= boot_clock():
                self.engine.handle_deadline(boot_clock())
            assert time.monotonic() < end, "a node could not register"


def one_round(nodes: list[Node], count: int) -> float:
    """Keep-alives answered per second."""
    now = boot_clock()
    sealed = []
    for number in range(count):
        node = nodes[number % len(nodes)]
        node.engine.tell(node.handle, m.Probe(number + 1), now)
        sealed += [(node, data) for data in node.outgoing()]
    poll = select.epoll()
    by_number = {node.socket.fileno(): node for node in nodes}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    got: list[tuple[Node, bytes]] = []
    sent, began = 0, time.perf_counter()
    while len(got) < len(sealed):
        while sent < len(sealed) and sent - len(got) < WINDOW:
            node, data = sealed[sent]
            node.socket.send(data)
            sent += 1
        ready = poll.poll(1.0)
        assert ready, f"{len(sealed) - len(got)} keep-alives were not answered"
        for number, _ in ready:
            node = by_number[number]
            try:
                while True:
                    got.append((node, node.socket.recv(2048)))
            except BlockingIOError:
                continue
    took = time.perf_counter() - began
    before = sum(node.answers for node in nodes)
    for node, data in got:
        node.engine.receive(data, 1, node.at, boot_clock())
    for node in nodes:
        node.outgoing()
    assert sum(node.answers for node in nodes) - before == count
    return count / took


def recall(count: int) -> dict[str, float]:
    """Processor time of a restarted core for each node it calls and hears."""
    core, clients = build(count)
    rows = tuple(node.stored for node in core.registry.nodes() if node.stored is not None)
    common = core._common
    began = time.process_time()
    again = DcCore(
        core.settings,
        common.identity,
        common.sign_private,
        common.sign_certificate,
        common.prefix,
        common.trust,
        DcState(rows),
        random=os.urandom,
        now=2000.0,
        wall_ms=EPOCH_MS + 60_000,
    )
    now, calls = 2000.0, 0
    while again.recall.waiting():
        now += 0.01
        again.handle_deadline(now)
        calls += sum(isinstance(command, SendDatagram) for command in again.take_commands())
    took = time.process_time() - began
    assert calls >= count == len(clients)
    return {
        "nodes": count,
        "virtual_s": round(now - 2000.0, 3),
        "cpu_ms_per_node": round(took / count * 1000, 3),
    }


def measure(nodes: int, rounds: int, count: int, recalled: int) -> dict[str, object]:
    """Both figures."""
    world = Platform(Clock(1), epoch_ms=wall_ms())
    own = world.dc("dc1.home.test", "home.test")
    with tempfile.TemporaryDirectory() as directory:
        (FilePath(directory) / "static.key").write_bytes(own.identity.private_key)
        (FilePath(directory) / "sign.key").write_bytes(own.sign_private)
        enrolment = Enrolment(
            name="dc1.home.test",
            domain="home.test",
            platform_id=world.id,
            ca=world.ca,
            certificates=own.identity.certificates,
            as_url="https://127.0.0.1:9",
            prefix=str(world.anchor.network),
            dc=None,
            domains=("home.test",),
            role="dc",
            delegation=str(own.prefix),
            sign_certificate=own.sign_certificate,
        )
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (directory, enrolment.to_json(), theirs)
        process = context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        at = Endpoint(*ours.recv())
        players = [Node(world, number, own.peer, at) for number in range(nodes)]
        for node in players:
            node.join()
        raw = [round(one_round(players, count)) for _ in range(rounds)]
        ours.send("stop")
        cpu, rss = ours.recv()
        process.join()
        for node in players:
            node.socket.close()
    return {
        "what": "keep-alives answered per second by one coordinator process, loopback sockets",
        "nodes": nodes,
        "count": count,
        "median": statistics.median(raw),
        "range": [min(raw), max(raw)],
        "rounds": raw,
        "server_cpu_s": round(cpu, 2),
        "server_rss_kib": rss,
        "recall": recall(recalled),
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--recall", type=int, default=2000)
    given = parser.parse_args()
    print(json.dumps(measure(given.nodes, given.rounds, given.count, given.recall), indent=1))


if __name__ == "__main__":
    main()
