"""The stub's codec agrees with dnspython, and refuses what is malformed without surprises."""

import ipaddress

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.platform.linux import dnswire

LABEL = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
NAMES = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
KINDS = st.sampled_from(["A", "AAAA", "PTR", "SRV", "TXT", "HTTPS", "ANY"])


@given(NAMES, KINDS, st.booleans(), st.integers(0, 65535))
def test_queries_of_dnspython_are_understood(name: str, kind: str, edns: bool, number: int) -> None:
    query = dns.message.make_query(name, kind, use_edns=0 if edns else -1, id=number)
    question = dnswire.parse_query(query.to_wire())
    assert question.name == name.lower()
    assert (question.id, question.edns) == (number, edns)
    assert question.kind == dns.rdatatype.from_text(kind)


@given(NAMES, st.booleans(), st.integers(0, 3), st.binary(min_size=16, max_size=16))
def test_replies_are_what_dnspython_expects(
    name: str, edns: bool, code: int, address: bytes
) -> None:
    query = dns.message.make_query(name, "AAAA", use_edns=0 if edns else -1)
    question = dnswire.parse_query(query.to_wire())
    records = (dnswire.record(dnswire.AAAA, 30, address),) if code == 0 else ()
    reply = dns.message.from_wire(dnswire.reply(question, code, records))
    assert query.is_response(reply)
    assert reply.rcode() == code
    assert reply.flags & dns.flags.RA
    assert (reply.edns >= 0) == edns
    found = [str(item) for rrset in reply.answer for item in rrset]
    assert found == ([str(ipaddress.IPv6Address(address))] if code == 0 else [])


@given(st.binary(max_size=80))
def test_noise_is_refused_with_valueerror_only(data: bytes) -> None:
    try:
        dnswire.parse_query(data)
    except ValueError:
        assert dnswire.error_reply(data, dnswire.FORMERR) is None or len(data) >= 12


@given(NAMES, st.integers(0, 60), st.integers(0, 255))
def test_a_bent_query_is_read_or_refused(name: str, at: int, value: int) -> None:
    wire = bytearray(dns.message.make_query(name, "AAAA").to_wire())
    wire[at % len(wire)] = value
    try:
        question = dnswire.parse_query(bytes(wire))
    except ValueError:
        return
    assert dnswire.HEADER.size + len(question.raw) <= len(wire)


@pytest.mark.parametrize("cut", range(12, 30))
def test_a_query_cut_short_is_refused(cut: int) -> None:
    wire = dns.message.make_query("desk.home.test", "AAAA", use_edns=-1).to_wire()
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the contract
        dnswire.parse_query(wire[:cut])


def test_a_reply_is_not_a_query_and_gets_no_answer() -> None:
    reply = dns.message.make_response(dns.message.make_query("a.test", "A")).to_wire()
    with pytest.raises(ValueError, match="not a query"):
        dnswire.parse_query(reply)
    assert dnswire.error_reply(reply, dnswire.FORMERR) is None


@given(st.binary(min_size=16, max_size=16))
def test_reverse_names_are_addresses(address: bytes) -> None:
    name = dns.reversename.from_address(str(ipaddress.IPv6Address(address)))
    assert dnswire.reverse_address(str(name).rstrip(".").lower()) == address


@pytest.mark.parametrize("name", ["1.ip6.arpa", "x." * 32 + "ip6.arpa", "desk.home.test", ""])
def test_other_names_are_no_addresses(name: str) -> None:
    assert dnswire.reverse_address(name) is None


def test_names_are_packed_as_dnspython_does() -> None:
    assert dnswire.pack_name("desk.home.test") == dns.name.from_text("desk.home.test").to_wire()
    assert dnswire.pack_name("") == b"\0"


def test_addresses_of_a_reply_are_found() -> None:
    question = dnswire.pack_name("ipv4only.arpa") + b"\x00\x1c\x00\x01"
    one, two = bytes.fromhex("0064ff9b" + "00" * 8 + "c00000aa"), bytes(range(16))
    head = bytes.fromhex("00078180000100030000" + "0000")
    other = dnswire.record(dnswire.A, 30, b"\x01\x02\x03\x04")
    reply = head + question + dnswire.record(28, 30, one) + other + dnswire.record(28, 30, two)
    assert dnswire.addresses(reply) == (one, two)
    for end in range(len(reply)):
        assert dnswire.addresses(reply[:end]) in ((), (one,))


@given(st.binary(max_size=120))
def test_addresses_of_anything(data: bytes) -> None:
    assert all(len(each) == 16 for each in dnswire.addresses(data))
