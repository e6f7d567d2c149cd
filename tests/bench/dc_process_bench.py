"""One coordinator process on real sockets: refreshes per second, and what a restart costs.

    python -m tests.bench.dc_process_bench [--nodes 100] [--rounds 5] [--count 6000] [--recall 2000]
    python -m tests.bench.dc_process_bench --restart 3000

The coordinator is the production server (driver, sockets, SQLite) in a process of its own; this
process plays the nodes. Sealed keep-alives are made beforehand, at most 128 are under way, answers
are counted as they come and all are opened afterwards. The second figure is the processor time that
a restarted coordinator spends on each node until it is known again, in this process;
``--restart`` measures that with kill -9, sockets and database. Prints JSON.
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
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path as FilePath
from typing import Any

from ntm_dc.core import DcCore
from ntm_dc.shell import DcServer
from ntm_dc.values import DcState
from ntmd.proto import messages as m
from ntmd.proto.events import (
    CallFailed,
    Established,
    MessageReceived,
    OpenPolicy,
    PeerClosed,
    Replied,
    RequestFailed,
)
from ntmd.proto.io import DatagramReceived, SendDatagram
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Endpoint, Path, Peer, Role
from ntmd.runtime.clock import boot_clock, wall_ms
from ntmd.runtime.enrolment import Enrolment
from ntmd.runtime.udp import open_udp
from tests.bench.dc_bench import DC, build
from tests.sim.clock import EPOCH_MS, Clock
from tests.sim.platform import Platform

WINDOW = 128  # keep-alives under way


def serve(directory: str, enrolment: str, pipe: Connection, port: int) -> None:
    """The coordinator's process."""

    async def run() -> None:
        server = DcServer(FilePath(directory), Enrolment.from_json(enrolment), ["127.0.0.1"], port)
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
        # an address of its own: under load a coordinator takes 20 initiations a second from each
        self.socket = open_udp(f"127.0.{number // 250 + 1}.{number % 250 + 1}", 0)
        self.socket.connect(at)
        self.registered = False
        self.answers = 0
        self.sessions = 0
        offset = wall_ms() - int(boot_clock() * 1000)
        self.engine = SessionEngine(
            world.node(f"n{number}.home.test", "home.test"),
            world.trust,
            OpenPolicy((Role.DC,)),
            random=os.urandom,
            platform_ms=lambda now: offset + int(now * 1000),
            sequencer=Sequencer(0, lambda mark: None),
        )
        self.dc, self.at = dc, at
        self.handle = 0
        self.calls = 0

    def call(self) -> None:
        """Shake hands; what becomes of it is seen in :meth:`outgoing`."""
        self.calls += 1
        self.handle = self.engine.call(self.dc, [Path(1, self.at)], boot_clock())

    def outgoing(self) -> list[bytes]:
        """What the engine wants sent; its events are noted. Whatever failed is begun again."""
        found = []
        for output in self.engine.take_outputs():
            if isinstance(output, SendDatagram):
                found.append(output.data)
            elif isinstance(output, Established):
                self.sessions += 1
                self.engine.set_primary(output.handle, output.path)
                self.engine.ask(output.handle, m.Register(0, (), m.NatView()), boot_clock())
                found += self.outgoing()
            elif isinstance(output, Replied) and isinstance(output.reply, m.Registered):
                self.registered = output.reply.status == m.Status.OK
            elif isinstance(output, MessageReceived):
                self.answers += isinstance(output.message, m.Answer)
            elif isinstance(output, CallFailed | PeerClosed | RequestFailed):
                self.call()
                found += self.outgoing()
        return found

    def join(self) -> None:
        """Shake hands and register."""
        self.call()
        end, poll = time.monotonic() + 10, select.poll()
        poll.register(self.socket, select.POLLIN)
        while not self.registered:
            for data in self.outgoing():
                self.socket.send(data)
            if poll.poll(20):
                self.engine.receive(self.socket.recv(65_536), 1, self.at, boot_clock())
            elif (self.engine.deadline() or 0) <= boot_clock():
                self.engine.handle_deadline(boot_clock())
            assert time.monotonic() < end, f"a node could not register: {self.engine.counters}"


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
    """Processor time of a restarted core until each node is known again: it calls, they answer."""
    core, clients = build(count)
    rows = tuple(node.stored for node in core.registry.nodes() if node.stored is not None)
    common, spent, now = core._common, 0.0, 2000.0

    def timed(work: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal spent
        began = time.process_time()
        result = work(*arguments)
        spent += time.process_time() - began
        return result

    def start() -> DcCore:
        return DcCore(
            core.settings,
            common.identity,
            common.sign_private,
            common.sign_certificate,
            common.prefix,
            common.trust,
            DcState(rows),
            random=os.urandom,
            now=now,
            wall_ms=EPOCH_MS + 60_000,
        )

    again: DcCore = timed(start)
    at = {client.source: client for client in clients}
    while again.status(now)["online"] < count:
        now += 0.01
        assert now < 2000.0 + 3.0 + count / 1000, "not all nodes were reached in time"
        timed(again.handle_deadline, now)
        while sent := timed(again.take_commands):
            for command in sent:
                if not isinstance(command, SendDatagram):
                    continue
                client = at[command.path.remote]
                client.engine.receive(command.data, 1, DC, now)
                for data in client.outgoing():
                    timed(again.handle, DatagramReceived(data, 1, client.source), now)
    return {
        "nodes": count,
        "virtual_s": round(now - 2000.0, 3),
        "cpu_ms_per_node": round(spent / count * 1000, 3),
        "nodes_per_s": round(count / spent),
    }


class Process:
    """The coordinator's process on a port that it keeps over a restart."""

    def __init__(self, world: Platform, directory: str) -> None:
        own = self.own = world.dc("dc1.home.test", "home.test")
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
        self._given = (directory, enrolment.to_json())
        self.port = 0

    def start(self) -> Endpoint:
        """Begin; returns where it listens once it serves."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (*self._given, theirs, self.port)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        at = Endpoint(*self.pipe.recv())
        self.port = at.port
        return at

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.join()

    def stop(self) -> tuple[float, int]:
        """End it; processor time in seconds and peak RSS in KiB."""
        self.pipe.send("stop")
        usage: tuple[float, int] = self.pipe.recv()
        self._process.join()
        return usage


def refreshes(nodes: int, rounds: int, count: int) -> dict[str, Any]:
    """Keep-alives of nodes in session that one coordinator process answers."""
    world = Platform(Clock(1), epoch_ms=wall_ms())
    with tempfile.TemporaryDirectory() as directory:
        process = Process(world, directory)
        at = process.start()
        players = [Node(world, number, process.own.peer, at) for number in range(nodes)]
        for node in players:
            node.join()
        raw = [round(one_round(players, count)) for _ in range(rounds)]
        cpu, rss = process.stop()
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
    }


def restart(count: int) -> dict[str, object]:
    """Seconds from kill -9 and start until all nodes have a session again, sockets and all.

    The nodes send nothing by themselves; what they answer is made by this process.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 256), hard))
    world = Platform(Clock(1), epoch_ms=wall_ms())
    with tempfile.TemporaryDirectory() as directory:
        process = Process(world, directory)
        at = process.start()
        players = [Node(world, number, process.own.peer, at) for number in range(count)]
        for node in players:
            node.join()
            node.sessions = 0
        process.kill()
        began = time.perf_counter()
        process.start()
        ready = time.perf_counter() - began
        played = -time.process_time()
        reached = wait_all(players)
        played += time.process_time()
        cpu, rss = process.stop()
        for node in players:
            node.socket.close()
    return {
        "what": "kill -9 and start of a coordinator process until its nodes are known again",
        "nodes": count,
        "ready_s": round(ready, 2),
        "all_known_s": round(reached - began, 2),
        "goal_s": 3.0 + count / 1000,
        "server_cpu_s": round(cpu, 2),
        "players_cpu_s": round(played, 2),
        "server_rss_kib": rss,
    }


def wait_all(players: list[Node]) -> float:
    """Answer as nodes do until each has a new session; returns when."""
    poll = select.epoll()
    by_number = {node.socket.fileno(): node for node in players}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    waiting, end = len(players), time.perf_counter() + 120
    while waiting:
        assert time.perf_counter() < end, f"{waiting} nodes were not called"
        for number, _ in poll.poll(1.0):
            node = by_number[number]
            before = node.sessions
            try:
                node.engine.receive(node.socket.recv(65_536), 1, node.at, boot_clock())
            except BlockingIOError:
                continue
            for data in node.outgoing():
                node.socket.send(data)
            waiting -= before == 0 and node.sessions > 0
    return time.perf_counter()


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--recall", type=int, default=2000)
    parser.add_argument("--restart", type=int, default=0)
    given = parser.parse_args()
    if given.restart:
        print(json.dumps(restart(given.restart), indent=1))
        return
    told = refreshes(given.nodes, given.rounds, given.count)
    print(json.dumps({**told, "recall": recall(given.recall)}, indent=1))


if __name__ == "__main__":
    main()
