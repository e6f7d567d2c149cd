"""The coordinator as a program: real sockets on loopback, a real database, nodes with sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import dns.message
import dns.rdatatype
import pytest

from ntm_dc.shell import DcServer
from ntmd.proto import messages as m
from ntmd.proto.events import Established, Identity, MessageReceived, Replied
from ntmd.proto.types import Endpoint, Path, Role
from ntmd.runtime.clock import boot_clock, wall_ms
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.enrolment import Coordinator, Enrolment
from ntmd.runtime.udp import open_udp
from tests.sim.clock import Clock
from tests.sim.platform import Platform
from tests.unit.servers.station import EngineStation

PATIENCE = 8.0


class Station(EngineStation):
    """A node; registers at each new association."""

    def __init__(self, place: Place, identity: Identity) -> None:
        super().__init__(identity, place.platform.trust, Role.DC, place.platform_ms)
        self.place = place
        self.registered: m.Registered | None = None
        self.called = 0
        self.directed: list[m.RouteDirection] = []
        place.stations.append(self)

    def call(self) -> None:
        path = Path(1, self.place.server.endpoints[0])
        self.handle = self.engine.call(self.place.own.peer, [path], boot_clock())

    def take(self, output: Any, now: float) -> None:
        match output:
            case Replied(reply=m.Registered() as reply):
                self.registered = reply
            case Established(handle=handle, path=path, initiator=initiator):
                self.handle = handle
                self.called += not initiator
                self.engine.set_primary(handle, path)
                seen = m.CandidateField(2, Endpoint("203.0.113.5", self.at.port))
                self.engine.ask(handle, m.Register(0, (seen,), m.NatView(1, 1)), now)
            case MessageReceived(message=m.RouteDirection() as request):
                self.directed.append(request)
                self.engine.reply(output, m.RouteDirectionResponse(request.id, 0), now)


class Place:
    """A coordinator that can be started again and again, and its nodes, polled from the loop."""

    def __init__(self, directory: FilePath) -> None:
        self.directory = directory
        self.platform = Platform(Clock(5), epoch_ms=wall_ms())
        self.offset = wall_ms() - int(boot_clock() * 1000)
        self.stations: list[Station] = []
        own = self.own = self.platform.dc("dc1.home.test", "home.test")
        (directory / "static.key").write_bytes(own.identity.private_key)
        (directory / "sign.key").write_bytes(own.sign_private)
        other = self.platform.dc("dc1.lab.test", "lab.test")
        listed = Coordinator(
            "dc1.lab.test",
            "lab.test",
            other.identity.certificates[0],
            other.sign_certificate,
            (Endpoint("127.0.0.1", 9),),
        )
        self.enrolment = Enrolment(
            name="dc1.home.test",
            domain="home.test",
            platform_id=self.platform.id,
            ca=self.platform.ca,
            certificates=own.identity.certificates,
            as_url="https://127.0.0.1:9",
            prefix=str(self.platform.anchor.network),
            dc=None,
            domains=("home.test", "lab.test"),
            role="dc",
            delegation=str(own.prefix),
            sign_certificate=own.sign_certificate,
            directory=(listed,),
        )
        self.port = 0
        self.server = self.new_server()

    def new_server(self, **changes: Any) -> DcServer:
        enrolment = replace(self.enrolment, **changes)
        dead = open_udp("127.0.0.1", 0)
        resolver = f"127.0.0.1:{dead.getsockname()[1]}"
        dead.close()
        self.server = DcServer(
            self.directory, enrolment, ["127.0.0.1"], self.port, resolver=resolver
        )
        return self.server

    async def start(self) -> None:
        await self.server.start()
        self.port = self.server.endpoints[0].port

    def platform_ms(self, now: float) -> int:
        return self.offset + int(now * 1000)

    def node(self, name: str) -> Station:
        return Station(self, self.platform.node(name, "home.test"))

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():
                for station in self.stations:
                    station.work()
                await asyncio.sleep(0.001)

    async def ask(self, node: Station, request: Any) -> Any:
        number = node.engine.ask(node.handle, request, boot_clock())
        await self.until(lambda: number in node.replies)
        return node.replies[number]

    def close(self) -> None:
        for station in self.stations:
            station.socket.close()


def play(directory: FilePath, story: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        place = Place(directory)
        try:
            await story(place)
        finally:
            await place.server.stop()
            place.close()

    asyncio.run(run())


def test_nodes_register_and_are_directed_over_real_sockets(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        await place.start()
        laptop, desk = place.node("laptop.home.test"), place.node("desk.home.test")
        for station in (laptop, desk):
            station.call()
        await place.until(lambda: bool(laptop.registered and desk.registered))
        assert laptop.registered is not None
        assert laptop.registered.status == m.Status.OK
        assert laptop.registered.observed == laptop.at
        assert laptop.registered.domains == ("home.test", "lab.test")
        reply = await place.ask(laptop, m.DirectionRequest(0, "desk.home.test"))
        assert reply.status == m.Status.OK
        assert desk.directed[0].route.psk == reply.route.psk
        views = await place.server.ask("nodes")
        assert {each["name"] for each in views} == {"laptop.home.test", "desk.home.test"}
        assert place.server.metrics()["online"] == 2
        with pytest.raises(Complaint, match=r"knows no node 'x\.home\.test'"):
            await place.server.ask("node", name="x.home.test")

    play(tmp_path, story)


def test_a_restarted_coordinator_calls_its_nodes(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        await place.start()
        laptop = place.node("laptop.home.test")
        laptop.call()
        await place.until(lambda: laptop.registered is not None)
        assert laptop.registered is not None
        before, called = laptop.registered.address, laptop.called
        await place.server.stop()
        laptop.registered = None
        place.new_server()
        began = boot_clock()
        await place.start()
        await place.until(lambda: laptop.registered is not None)
        assert boot_clock() - began < 3.0
        assert laptop.called == called + 1
        assert laptop.registered is not None
        assert laptop.registered.address == before

    play(tmp_path, story)


def test_a_domain_that_dns_cannot_find_is_said(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        await place.start()
        laptop = place.node("laptop.home.test")
        laptop.call()
        await place.until(lambda: laptop.registered is not None)
        reply = await place.ask(laptop, m.DirectionRequest(0, "desk.lab.test"))
        assert reply.status == m.Status.COORDINATOR_UNREACHABLE
        assert reply.text == "lab.test: the DNS does not answer"

    play(tmp_path, story)


def test_the_zone_names_the_coordinator(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        await place.start()
        zone = place.server._current_zone()
        origin = dns.message.make_query("_ntm._udp.home.test", "SRV").question[0].name
        found = zone.find(origin, dns.rdatatype.SRV)
        assert found is not None
        assert f"{place.port} dc1.home.test." in found.to_text()

    play(tmp_path, story)


def test_a_taken_port_is_a_complaint(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        await place.start()
        first = place.server
        try:
            with pytest.raises(Complaint, match="taken by another program"):
                await place.new_server().start()
        finally:
            await first.stop()

    play(tmp_path, story)


@pytest.mark.parametrize("name", ["static.key", "sign.key"])
@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_named(tmp_path: FilePath, name: str, content: bytes) -> None:
    async def story(place: Place) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Complaint, match=name):
            await place.start()

    play(tmp_path, story)


def test_an_enrolment_for_another_key_or_domain_is_refused(tmp_path: FilePath) -> None:
    async def story(place: Place) -> None:
        other = place.platform.dc("dc1.far.test", "far.test")
        for changes in (
            {"sign_certificate": other.sign_certificate},
            {"delegation": str(other.prefix)},
        ):
            with pytest.raises(Complaint, match=r"enrolment\.json"):
                await place.new_server(**changes).start()

    play(tmp_path, story)
