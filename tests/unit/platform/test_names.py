"""The stub resolver: holds platform names, forwards the rest, survives nonsense."""

import asyncio
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import dns.message
import dns.rcode
import dns.reversename
import pytest

from ntmd.node.commands import NameAnswered
from ntmd.node.inputs import NameAsked
from ntmd.platform.linux import dnswire, forward, names
from ntmd.platform.linux.forward import Forwarder
from ntmd.platform.linux.names import StubResolver
from ntmd.proto.types import Endpoint, parse_address
from ntmd.runtime.udp import UdpPort
from tests.unit.ports import free_port

ADDRESS = parse_address("fd5e:1:2:3::7")


class Lab:
    """A stub on loopback with an upstream that answers everything with 192.0.2.1."""

    def __init__(self) -> None:
        self.asked: list[NameAsked] = []
        self.stub = StubResolver("127.0.0.1", self.asked.append, port=free_port())
        self.upstream_saw: list[bytes] = []
        self.upstream = UdpPort(1, "127.0.0.1", 0, self._upstream)
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()
        self.client = UdpPort(2, "127.0.0.1", 0, lambda data, *_: self.replies.put_nowait(data))
        self.stub._forward._port = self.upstream.local.port
        self.stub.serve(("home.test", "Lab.Test."), ("127.0.0.1",))
        self.stub._forward.upstreams = ("127.0.0.1",)  # its own address is left out otherwise

    def _upstream(self, data: bytes, _number: int, source: Endpoint) -> None:
        self.upstream_saw.append(data)
        reply = dns.message.make_response(dns.message.from_wire(data))
        self.upstream.send(reply.to_wire(), source)

    def send(self, data: bytes) -> None:
        self.client.send(data, Endpoint("127.0.0.1", self.stub.port))

    async def ask(self, name: str, kind: str = "AAAA") -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        self.send(query.to_wire())
        reply = dns.message.from_wire(await asyncio.wait_for(self.replies.get(), 10))
        assert query.is_response(reply)
        return reply

    async def wait_asked(self, count: int = 1) -> NameAsked:
        async with asyncio.timeout(10):
            while len(self.asked) < count:
                await asyncio.sleep(0.001)
        return self.asked[-1]

    def close(self) -> None:
        self.stub.close()
        self.upstream.close()
        self.client.close()


def story(tell: Callable[[Lab], Awaitable[None]]) -> None:
    async def run() -> None:
        lab = Lab()
        await lab.stub.start()
        try:
            await tell(lab)
        finally:
            lab.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "code", "addresses"),
    [
        ({"address": ADDRESS}, dns.rcode.NOERROR, ["fd5e:1:2:3::7"]),
        ({"address": None, "exists": False}, dns.rcode.NXDOMAIN, []),
        ({"address": None}, dns.rcode.SERVFAIL, []),
    ],
)
def test_a_platform_name_is_held_until_the_core_answers(
    answer: dict[str, Any], code: int, addresses: list[str]
) -> None:
    async def tell(lab: Lab) -> None:
        asking = asyncio.create_task(lab.ask("Desk.HOME.test"))
        asked = await lab.wait_asked()
        assert asked.name == "desk.home.test"
        assert not asking.done()
        lab.stub.answered(NameAnswered(asked.token, **answer))
        reply = await asking
        assert reply.rcode() == code
        assert [str(item) for rrset in reply.answer for item in rrset] == addresses
        assert lab.upstream_saw == []

    story(tell)


def test_two_questions_for_one_name_ask_the_core_once_and_get_both_answers() -> None:
    async def tell(lab: Lab) -> None:
        first = dns.message.make_query("desk.lab.test", "AAAA", id=1).to_wire()
        second = dns.message.make_query("desk.lab.test", "AAAA", id=2).to_wire()
        lab.send(first)
        lab.send(second)
        asked = await lab.wait_asked()
        while len(lab.stub._held[asked.token].waiting) < 2:
            await asyncio.sleep(0.001)
        lab.stub.answered(NameAnswered(asked.token, ADDRESS))
        ids = {struct.unpack(">H", (await lab.replies.get())[:2])[0] for _ in range(2)}
        assert ids == {1, 2}
        assert len(lab.asked) == 1

    story(tell)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"address": ADDRESS}, dns.rcode.NOERROR),
        ({"address": None, "exists": False}, dns.rcode.NXDOMAIN),
        ({"address": None}, dns.rcode.SERVFAIL),
    ],
)
def test_a_question_for_ipv4_gets_the_same_verdict_and_no_address(
    answer: dict[str, Any], code: int
) -> None:
    async def tell(lab: Lab) -> None:
        four = asyncio.create_task(lab.ask("desk.home.test", "A"))
        asked = await lab.wait_asked()
        assert not four.done()
        lab.stub.answered(NameAnswered(asked.token, **answer))
        reply = await four
        assert reply.rcode() == code
        assert not reply.answer
        assert len(lab.asked) == 1

    story(tell)


@pytest.mark.parametrize("kind", ["MX", "HTTPS", "SSHFP", "SRV"])
def test_other_types_of_a_platform_name_are_empty_at_once(kind: str) -> None:
    async def tell(lab: Lab) -> None:
        reply = await lab.ask("desk.home.test", kind)
        assert reply.rcode() == dns.rcode.NOERROR
        assert not reply.answer
        assert not lab.asked
        assert not lab.upstream_saw

    story(tell)


@pytest.mark.parametrize("name", ["example.org", "nothome.test", "home.test.example.org"])
def test_everything_else_goes_upstream_with_another_id(name: str) -> None:
    async def tell(lab: Lab) -> None:
        for _ in range(3):
            assert (await lab.ask(name)).rcode() == dns.rcode.NOERROR
        assert not lab.asked
        assert len({data[:2] for data in lab.upstream_saw}) > 1

    story(tell)


def test_without_upstreams_foreign_names_fail_at_once() -> None:
    async def tell(lab: Lab) -> None:
        lab.stub.serve(("home.test",), ())
        assert (await lab.ask("example.org")).rcode() == dns.rcode.SERVFAIL

    story(tell)


def test_malformed_questions_get_formerr_or_nothing_and_the_next_is_served() -> None:
    async def tell(lab: Lab) -> None:
        lab.send(b"")
        lab.send(b"\x00")
        lab.send(b"\x12\x34" + b"\x01\x00" + b"\x00\x02" + b"\x00" * 6)
        formerr = await asyncio.wait_for(lab.replies.get(), 10)
        assert formerr[:2] == b"\x12\x34"
        assert formerr[3] & 0xF == dnswire.FORMERR
        assert (await lab.ask("example.org")).rcode() == dns.rcode.NOERROR
        assert lab.stub.counters["dns_malformed"] == 3

    story(tell)


def test_the_table_of_held_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "HELD_MAX", 3)

    async def tell(lab: Lab) -> None:
        for number in range(3):
            lab.send(dns.message.make_query(f"n{number}.home.test", "AAAA").to_wire())
        await lab.wait_asked(3)
        assert (await lab.ask("one-more.home.test")).rcode() == dns.rcode.SERVFAIL

    story(tell)


def test_a_name_that_the_core_forgets_is_answered_with_servfail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "HELD_SECONDS", 0.01)

    async def tell(lab: Lab) -> None:
        assert (await lab.ask("desk.home.test")).rcode() == dns.rcode.SERVFAIL
        lab.stub.answered(NameAnswered(lab.asked[0].token, ADDRESS))

    story(tell)


def test_an_address_that_was_answered_has_a_name() -> None:
    async def tell(lab: Lab) -> None:
        asking = asyncio.create_task(lab.ask("desk.home.test"))
        asked = await lab.wait_asked()
        lab.stub.answered(NameAnswered(asked.token, ADDRESS))
        await asking
        reverse = str(dns.reversename.from_address("fd5e:1:2:3::7"))
        reply = await lab.ask(reverse, "PTR")
        assert "desk.home.test." in str(reply.answer[0])

    story(tell)


def test_tcp_serves_platform_names_and_forwards() -> None:
    async def tell(lab: Lab) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.stub.port)
        wire = dns.message.make_query("desk.home.test", "AAAA").to_wire()
        writer.write(struct.pack(">H", len(wire)) + wire)
        asked = await lab.wait_asked()
        lab.stub.answered(NameAnswered(asked.token, ADDRESS))
        (length,) = struct.unpack(">H", await asyncio.wait_for(reader.readexactly(2), 10))
        reply = dns.message.from_wire(await reader.readexactly(length))
        assert "fd5e:1:2:3::7" in str(reply.answer[0])
        writer.close()

    story(tell)


def test_a_spoofed_upstream_answer_is_not_taken() -> None:
    async def run() -> None:
        counters: Counter[str] = Counter()
        question_wire = dns.message.make_query("example.org", "A").to_wire()

        def lie(data: bytes, _number: int, source: Endpoint) -> None:
            wrong_id = bytes([data[0] ^ 1]) + data[1:]
            other = dns.message.make_response(dns.message.make_query("evil.test", "A")).to_wire()
            truth = dns.message.make_response(dns.message.from_wire(data))
            upstream.send(
                dns.message.make_response(dns.message.from_wire(wrong_id)).to_wire(), source
            )
            upstream.send(data[:2] + other[2:], source)
            upstream.send(truth.to_wire(), source)

        upstream = UdpPort(1, "127.0.0.1", 0, lie)
        forwarder = Forwarder(counters, upstream.local.port)
        forwarder.upstreams = ("127.0.0.1",)
        answer = asyncio.get_running_loop().create_future()
        question = dnswire.parse_query(question_wire)
        forwarder.ask(question_wire, question, answer.set_result, stream=False)
        reply = dns.message.from_wire(await asyncio.wait_for(answer, 10))
        assert dns.message.from_wire(question_wire).is_response(reply)
        assert counters["dns_foreign_answer"] == 2
        upstream.close()

    asyncio.run(run())


def test_a_dead_upstream_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "WAIT", 0.05)

    async def run() -> None:
        def answer_it(data: bytes, _number: int, source: Endpoint) -> None:
            alive.send(dns.message.make_response(dns.message.from_wire(data)).to_wire(), source)

        alive = UdpPort(1, "127.0.0.3", 0, answer_it)
        silent = UdpPort(2, "127.0.0.2", alive.local.port, lambda *_: None)
        forwarder = Forwarder(Counter(), alive.local.port)
        forwarder.upstreams = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
        done = asyncio.get_running_loop().create_future()
        wire = dns.message.make_query("example.org", "A").to_wire()
        forwarder.ask(wire, dnswire.parse_query(wire), done.set_result, stream=False)
        assert dns.message.from_wire(await asyncio.wait_for(done, 10)).rcode() == 0
        silent.close()
        alive.close()

    asyncio.run(run())
