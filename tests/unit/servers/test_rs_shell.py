"""The relay as a program: real sockets on loopback, a coordinator and nodes with real sessions."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path as FilePath
from typing import Any

import pytest

from ntm_rs.home import HomeDc
from ntm_rs.shell import RsEnrolment, RsServer
from ntmd.proto import messages as m
from ntmd.proto.crypto import public_key, sha256
from ntmd.proto.events import Established, Identity, MessageReceived
from ntmd.proto.frame import Kind, pack_header
from ntmd.proto.records import sign_grant
from ntmd.proto.types import Path, Peer, Role
from ntmd.runtime.clock import boot_clock, wall_ms
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.udp import open_udp
from tests.sim.clock import Clock
from tests.sim.platform import Platform
from tests.unit.servers.station import EngineStation

PATIENCE = 5.0


class Station(EngineStation):
    """A node, or the relay's coordinator."""

    def __init__(self, place: Place, identity: Identity) -> None:
        super().__init__(identity, place.platform.trust, Role.RS, place.platform_ms)
        self.place = place
        place.stations.append(self)

    def take(self, output: Any, now: float) -> None:
        match output:
            case Established():
                self.engine.set_primary(output.handle, output.path)
            case MessageReceived(message=m.RelayRegister(id=number)):
                self.engine.reply(output, self.place.registered(number), now)
            case MessageReceived(message=m.Probe(nonce=nonce)):
                self.engine.tell(output.handle, m.Answer(nonce, None), now, output.path)


class Place:
    """A running relay, its coordinator, two nodes; everybody is polled from the loop."""

    def __init__(self, directory: FilePath) -> None:
        self.platform = Platform(Clock(3), epoch_ms=wall_ms())
        self.offset = wall_ms() - int(boot_clock() * 1000)
        self.stations: list[Station] = []
        own = self.own = self.platform.dc("dc.home.test", "home.test")
        self.dc = Station(self, own.identity)
        self.relay_identity = self.platform.rs("rs.home.test", "home.test")
        home = HomeDc(own.peer, (self.dc.at,), own.sign_certificate)
        given = RsEnrolment(self.relay_identity, self.platform.trust, self.platform.id, home)
        self.server = RsServer(directory, given, ["127.0.0.1"], 0)

    def platform_ms(self, now: float) -> int:
        return self.offset + int(now * 1000)

    def registered(self, number: int) -> m.RelayRegistered:
        sign = self.own.sign_certificate
        return m.RelayRegistered(number, m.Status.OK, 0, self.platform_ms(boot_clock()), sign, 60)

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():
                for station in self.stations:
                    station.work()
                await asyncio.sleep(0.001)

    async def ask(self, node: Station, request: Any) -> Any:
        if node.handle < 0:
            key = public_key(self.relay_identity.private_key)
            peer = Peer(Role.RS, self.relay_identity.name, key)
            path = Path(1, self.server.endpoints[0])
            node.handle = node.engine.call(peer, [path], boot_clock())
        number = node.engine.ask(node.handle, request, boot_clock())
        await self.until(lambda: number in node.replies)
        return node.replies[number]

    def grant(self, one: Station, two: Station) -> bytes:
        hashes = [sha256(public_key(node.identity.private_key)) for node in (one, two)]
        now = self.platform_ms(boot_clock())
        return sign_grant(
            self.own.sign_private,
            self.platform.id,
            rs_key_hash=sha256(public_key(self.relay_identity.private_key)),
            grant_id=b"g" * 16,
            node_a_hash=hashes[0],
            node_b_hash=hashes[1],
            issued_ms=now,
            expires_ms=now + 3_600_000,
            kbit_s=0,
        )


def at_place(directory: FilePath, story: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        place = Place(directory)
        await place.server.start()
        try:
            await place.until(lambda: place.server.core.home.registered)
            await story(place)
        finally:
            await place.server.stop()
            for station in place.stations:
                station.socket.close()

    asyncio.run(run())


def test_two_nodes_through_a_running_relay(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        one = Station(place, place.platform.node("one.home.test", "home.test"))
        two = Station(place, place.platform.node("two.home.test", "home.test"))
        grant = place.grant(one, two)
        legs = [
            (await place.ask(node, m.LegOpen(0, grant, delivery))).leg
            for node, delivery in ((one, 0xA1), (two, 0xB1))
        ]
        for number in range(50):
            data = pack_header(Kind.DATA, 1, 0, 0, legs[0], number) + bytes(1000)
            one.socket.sendto(data, place.server.endpoints[0])
            if number % 10 == 9:  # more at once would meet the limit of an unanswered source
                await place.until(lambda so_far=number + 1: len(two.data) == so_far)  # type: ignore[misc]
        assert {data[4:8] for data in two.data} == {(0xB1).to_bytes(4, "big")}
        metrics = place.server.metrics()
        assert metrics["packets"] == 50
        assert (metrics["nodes"], metrics["legs"], metrics["registered"]) == (2, 2, True)

    at_place(tmp_path, story)


def test_junk_and_forged_legs_forward_nothing(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        stranger = open_udp("127.0.0.1", 0)
        for number in range(64):
            stranger.sendto(os.urandom(number * 20), place.server.endpoints[0])
            data = pack_header(Kind.DATA, 1, 0, 0, number + 1, 0) + bytes(100)
            stranger.sendto(data, place.server.endpoints[0])
        await place.until(lambda: place.server.metrics()["drops"].get("unknown_leg", 0) >= 64)
        assert place.server.metrics()["packets"] == 0
        stranger.close()

    at_place(tmp_path, story)


def test_sequence_mark_survives_a_restart(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        assert list(tmp_path.iterdir())

    at_place(tmp_path, story)
    at_place(tmp_path, story)


@pytest.mark.parametrize("killed", [True, False])
def test_a_node_that_says_nothing_hears_of_a_restart(killed: bool, tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        node = Station(place, place.platform.node("one.home.test", "home.test"))
        await place.ask(node, m.LegOpen(0, place.grant(node, node), 1))
        before = place.server
        await place.until(lambda: before.core.recall.deadline() is not None)
        await place.until(lambda: b"places" in kept(tmp_path) or not killed)
        if killed:
            assert before._plane is not None
            before._plane.close()  # nothing else is said or written
        else:
            await before.stop()
        again = (before._enrolment, ["127.0.0.1"], before.endpoints[0].port)
        place.server = RsServer(tmp_path, *again)
        await place.server.start()
        await place.until(lambda: place.server.metrics()["nodes"] == 1)
        assert place.server.metrics()["recalled"] >= 1
        if killed:
            await before.stop()

    at_place(tmp_path, story)


def kept(directory: FilePath) -> bytes:
    """What the relay has written down of its nodes."""
    return b"".join(path.read_bytes() for path in directory.glob("recall/*.value"))


def test_a_taken_port_is_told_clearly(tmp_path: FilePath) -> None:
    taken = open_udp("127.0.0.1", 0)

    async def run() -> None:
        place = Place(tmp_path)
        place.server = RsServer(tmp_path, place.server._enrolment, ["127.0.0.1"], port)
        try:
            with pytest.raises(Complaint, match="taken by another program"):
                await place.server.start()
        finally:
            place.dc.socket.close()

    port = taken.getsockname()[1]
    asyncio.run(run())
    taken.close()
    again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    again.bind(("127.0.0.1", port))
    again.close()
