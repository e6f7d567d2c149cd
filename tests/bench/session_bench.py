"""How many requests and handshakes a second one engine serves, and what an association weighs.

    python tests/bench/session_bench.py [associations]

Prints one line of JSON: microseconds for a request with its reply in the serving engine,
microseconds of a whole handshake at the called end, and bytes per idle association.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path as File

sys.path.insert(0, str(File(__file__).resolve().parents[2]))

from ntmd.proto import messages as m
from ntmd.proto.events import MessageReceived
from ntmd.proto.io import SendDatagram
from ntmd.proto.types import Endpoint
from tests.unit.proto.engines import EVERYBODY, Bus, Station

REQUESTS = 2000


def rss() -> int:
    """Peak resident bytes of this process."""
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def datagrams(station: Station) -> list[bytes]:
    """What an engine has put out; events are dropped."""
    return [each.data for each in station.engine.take_outputs() if isinstance(each, SendDatagram)]


def serve(server: Station, clients: list[Station]) -> float:
    """Microseconds per request and reply in the serving engine, spread over all clients."""
    request = m.Register(0, (m.CandidateField(1, clients[0].at),) * 4, m.NatView())
    frames: list[tuple[Endpoint, bytes]] = []
    for number in range(REQUESTS):
        client = clients[number % len(clients)]
        client.engine.ask(client.handle(server), request, 1010.0)
        frames.extend((client.at, data) for data in datagrams(client))
    answer = m.Registered(
        0, 0, 0, 1, bytes(16), bytes(141), b"", Endpoint("192.0.2.1", 1), (), (), 20, ()
    )
    begin = time.perf_counter()
    for source, data in frames:
        server.engine.receive(data, 1, source, 1010.0)
        for output in server.engine.take_outputs():
            if isinstance(output, MessageReceived):
                server.engine.reply(output, answer, 1010.0)
    return (time.perf_counter() - begin) / len(frames) * 1e6


def join(server: Station, clients: list[Station]) -> float:
    """Microseconds of a handshake with its Confirm in the serving engine."""
    spent = 0.0
    for number, client in enumerate(clients):
        now = 1000.0 + number * 0.01  # below the load at which cookies are asked for
        client.engine.call(server.peer, [client.to(server)], now)
        (call,) = datagrams(client)
        begin = time.perf_counter()
        server.engine.receive(call, 1, client.at, now)
        (response,) = datagrams(server)
        spent += time.perf_counter() - begin
        client.engine.receive(response, 1, server.at, now)
        (confirm,) = datagrams(client)
        begin = time.perf_counter()
        server.engine.receive(confirm, 1, client.at, now)
        datagrams(server)
        spent += time.perf_counter() - begin
    return spent / len(clients) * 1e6


def main(count: int) -> None:
    """Measure and print."""
    bus = Bus()
    server = bus.add(bus.platform.dc("dc.lab.test", "lab.test").identity, EVERYBODY)
    clients = [bus.node(f"n{number}") for number in range(count)]
    before = rss()
    handshake = join(server, clients)
    grown = rss() - before
    print(
        json.dumps(
            {
                "associations": count,
                "request_reply_us": round(serve(server, clients), 1),
                "handshake_us": round(handshake, 1),
                "bytes_per_association_both_ends": grown // count,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
