"""The coordinator's zone: golden answers, what the public is not told, hostile queries, limits."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntm_dc.dns import TCP_SIZE, UDP_SIZE, ResponseLimit, Zone, ZoneFacts, answer, truncated
from ntm_dc.dns_server import DnsServer
from ntmd.proto.types import Endpoint
from ntmd.runtime.complaints import Complaint

KEY = bytes(range(32))
FACTS = ZoneFacts(
    "home.test",
    "dc1.home.test",
    KEY,
    (Endpoint("198.51.100.1", 4330), Endpoint("2001:db8::1", 4330)),
    {"rs1.home.test": (Endpoint("198.51.100.1", 4331),), "rs.other.test": ()},
    7,
)
ZONE = Zone(FACTS)


def ask(name: str, kind: str, *, size: int | None = None, **options: Any) -> dns.message.Message:
    query = dns.message.make_query(name, kind, **options)
    reply = answer(query.to_wire(), ZONE, size=size)
    assert reply is not None
    message = dns.message.from_wire(reply)
    assert query.is_response(message)
    return message


def texts(message: dns.message.Message) -> list[str]:
    return [line for rrset in message.answer for line in rrset.to_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (
            "home.test",
            "SOA",
            "home.test. 60 IN SOA dc1.home.test. hostmaster.home.test. 7 3600 600 86400 5",
        ),
        ("home.test", "NS", "home.test. 60 IN NS dc1.home.test."),
        ("_ntm._udp.home.test", "SRV", "_ntm._udp.home.test. 60 IN SRV 10 0 4330 dc1.home.test."),
        ("dc1.home.test", "A", "dc1.home.test. 60 IN A 198.51.100.1"),
        ("dc1.home.test", "AAAA", "dc1.home.test. 60 IN AAAA 2001:db8::1"),
        ("rs1.home.test", "A", "rs1.home.test. 60 IN A 198.51.100.1"),
        (
            "_ntm.dc1.home.test",
            "TXT",
            f'_ntm.dc1.home.test. 60 IN TXT "v=ntm1 k={base64.b64encode(KEY).decode()}"',
        ),
    ],
)
def test_golden_answers(name: str, kind: str, expected: str) -> None:
    message = ask(name, kind)
    assert texts(message) == [expected]
    assert message.flags & dns.flags.AA
    assert message.rcode() == dns.rcode.NOERROR


def test_addresses_come_with_the_service() -> None:
    additional = [r.to_text() for r in ask("_ntm._udp.home.test", "SRV").additional]
    assert additional == [
        "dc1.home.test. 60 IN A 198.51.100.1",
        "dc1.home.test. 60 IN AAAA 2001:db8::1",
    ]


def test_case_does_not_matter_and_is_kept() -> None:
    message = ask("DC1.Home.TEST", "A")
    assert texts(message) == ["DC1.Home.TEST. 60 IN A 198.51.100.1"]


@pytest.mark.parametrize("kind", ["AAAA", "A", "TXT", "SRV"])
def test_a_node_is_as_unknown_as_nobody(kind: str) -> None:
    node, nobody = ask("laptop.home.test", kind), ask("nobody.home.test", kind)
    assert node.rcode() == nobody.rcode() == dns.rcode.NXDOMAIN
    assert node.answer == nobody.answer == []
    assert node.authority == nobody.authority
    assert node.authority[0].ttl == 5


@pytest.mark.parametrize(("name", "kind"), [("_udp.home.test", "SRV"), ("rs1.home.test", "AAAA")])
def test_names_without_such_records_exist(name: str, kind: str) -> None:
    message = ask(name, kind)
    assert message.rcode() == dns.rcode.NOERROR
    assert message.answer == []
    assert message.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(
    ("name", "kind"),
    [("home.test", "ANY"), ("home.test", "AXFR"), ("example.com", "A"), ("test", "SOA")],
)
def test_refused(name: str, kind: str) -> None:
    message = ask(name, kind)
    assert message.rcode() == dns.rcode.REFUSED
    assert message.answer == []


def test_other_opcodes_and_edns_versions() -> None:
    query = dns.message.make_query("home.test", "SOA")
    query.set_opcode(dns.opcode.STATUS)
    reply = answer(query.to_wire(), ZONE)
    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.NOTIMP
    assert ask("home.test", "SOA", use_edns=1).rcode() == dns.rcode.BADVERS


def test_long_answers_are_cut_over_udp_and_whole_over_tcp() -> None:
    many = tuple(Endpoint(f"198.51.{n // 250}.{n % 250 + 1}", 4330) for n in range(120))
    zone = Zone(ZoneFacts("home.test", "dc1.home.test", KEY, many, {}))
    query = dns.message.make_query("dc1.home.test", "A", use_edns=0, payload=65_000).to_wire()
    short, whole = answer(query, zone), answer(query, zone, size=TCP_SIZE)
    assert short is not None
    assert whole is not None
    assert len(short) <= UDP_SIZE
    assert dns.message.from_wire(short).flags & dns.flags.TC
    assert len(dns.message.from_wire(whole).answer[0]) == 120
    plain = answer(dns.message.make_query("dc1.home.test", "A").to_wire(), zone)
    assert plain is not None
    assert len(plain) <= 512
    service = dns.message.make_query("_ntm._udp.home.test", "SRV").to_wire()
    reply = answer(service, zone)
    assert reply is not None
    assert dns.message.from_wire(reply).answer, "additional records leave first"


@given(st.binary(max_size=600))
def test_any_bytes_get_a_short_reply_or_none(data: bytes) -> None:
    reply = answer(data, ZONE)
    assert reply is None or (reply[:2] == data[:2] and reply[2] & 0x80 and len(reply) <= UDP_SIZE)
    slip = truncated(data)
    assert slip is None or len(slip) <= len(data) + 20


@given(st.binary(min_size=1, max_size=60), st.integers(0, 80))
def test_damaged_queries(noise: bytes, at: int) -> None:
    query = dns.message.make_query("_ntm._udp.home.test", "SRV", use_edns=0).to_wire()
    data = query[:at] + noise + query[at + len(noise) :]
    reply = answer(data, ZONE)
    assert reply is None or reply[2] & 0x80


def test_replies_are_never_answered() -> None:
    reply = answer(dns.message.make_query("home.test", "SOA").to_wire(), ZONE)
    assert reply is not None
    assert answer(reply, ZONE) is None


def test_replies_to_one_network_are_limited() -> None:
    limit = ResponseLimit(rate=10.0)
    first = [limit.verdict(f"203.0.113.{n}", 100.0) for n in range(30)]
    assert first.count("answer") == 10
    assert first.count("slip") == first.count("drop") == 10
    assert limit.verdict("203.0.114.1", 100.0) == "answer"
    assert limit.verdict("203.0.113.9", 101.0) == "answer"
    six = [limit.verdict(f"2001:db8:0:{n:x}::1", 100.0) for n in range(30)]
    assert six.count("answer") == 10


async def _tcp(at: Endpoint, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(at.host, at.port)
    writer.write(struct.pack(">H", len(query)) + query)
    (size,) = struct.unpack(">H", await asyncio.wait_for(reader.readexactly(2), 2))
    reply = await reader.readexactly(size)
    writer.close()
    await writer.wait_closed()
    return reply


def test_served_over_udp_and_tcp() -> None:
    query = dns.message.make_query("home.test", "SOA").to_wire()

    async def run() -> tuple[bytes, bytes]:
        server = DnsServer(lambda: ZONE, ("127.0.0.1",), 0)
        await server.start()
        (at,) = server.endpoints
        with pytest.raises(Complaint) as taken:
            await DnsServer(lambda: ZONE, ("127.0.0.1",), at.port).start()
        assert "taken by another program" in str(taken.value)
        loop = asyncio.get_running_loop()
        got: asyncio.Future[bytes] = loop.create_future()

        class Client(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                if not got.done():
                    got.set_result(data)

        transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=(at.host, at.port))
        transport.sendto(b"\x00")
        transport.sendto(query)
        over_udp = await asyncio.wait_for(got, 2)
        over_tcp = await _tcp(at, query)
        transport.close()
        await server.stop()
        return over_udp, over_tcp

    over_udp, over_tcp = asyncio.run(run())
    assert over_udp == over_tcp == answer(query, ZONE)
