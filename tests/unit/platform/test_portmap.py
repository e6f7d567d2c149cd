"""PCP and NAT-PMP, against the layouts of RFC 6887 section 11 and RFC 6886 section 3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.platform import portmap
from ntmd.platform.portmap import Granted, Refused
from ntmd.proto.types import Endpoint

INSIDE = Endpoint("192.168.1.7", 4330)
NONCE = bytes(range(12))
V4 = "00000000000000000000ffff"
REQUEST = (
    "02010000" "00001c20" + V4 + "c0a80107"  # version 2, MAP, 7,200 s, client
    "000102030405060708090a0b" "11000000" "10ea" "10ea" + V4 + "00000000"
)  # fmt: skip
REPLY = (
    "02810000" "00000e10" "00000064" + "00" * 12 +  # result 0, 3,600 s, epoch 100
    "000102030405060708090a0b" "11000000" "10ea" "c350" + V4 + "cb007109"
)  # fmt: skip
GRANTED = Granted(Endpoint("203.0.113.9", 50_000), 3600)


def test_pcp_request_bytes() -> None:
    assert portmap.pcp_request(INSIDE, NONCE).hex() == REQUEST
    given_back = portmap.pcp_request(INSIDE, NONCE, 0)
    assert given_back[4:8] == bytes(4)
    assert given_back[42:44] == bytes(2)


def test_pcp_answer_bytes() -> None:
    assert portmap.pcp_answer(bytes.fromhex(REPLY), INSIDE, NONCE) == GRANTED


@pytest.mark.parametrize(
    "bent",
    [
        REPLY.replace("02810000", "02010000", 1),  # a request, not an answer
        REPLY.replace("000102", "ff0102", 1),  # another nonce
        REPLY.replace("10eac350", "10ebc350", 1),  # another port
        REPLY[:40],
    ],
)
def test_pcp_answers_to_others_are_passed_over(bent: str) -> None:
    assert portmap.pcp_answer(bytes.fromhex(bent), INSIDE, NONCE) is None


@pytest.mark.parametrize(
    "bent",
    [
        REPLY.replace("02810000", "02810002", 1),  # NOT_AUTHORIZED
        REPLY.replace("cb007109", "00000000", 1),
        REPLY.replace(V4 + "cb007109", "20010db8" + "00" * 12, 1),
        "0081000100000064",  # a NAT-PMP server: unsupported version
    ],
)
def test_pcp_refusals(bent: str) -> None:
    with pytest.raises(Refused):
        portmap.pcp_answer(bytes.fromhex(bent), INSIDE, NONCE)


def test_nat_pmp_bytes() -> None:
    assert portmap.pmp_address_request().hex() == "0000"
    assert portmap.pmp_address(bytes.fromhex("0080000000000064cb007109")) == "203.0.113.9"
    assert portmap.pmp_request(4330).hex() == "0001000010ea10ea00001c20"
    answer = bytes.fromhex("008100000000006410eac35000000e10")
    assert portmap.pmp_answer(answer, 4330, "203.0.113.9") == GRANTED
    assert portmap.pmp_answer(answer, 4331, "203.0.113.9") is None


@pytest.mark.parametrize("code", ["0002", "0003", "0005"])
def test_nat_pmp_refusals(code: str) -> None:
    with pytest.raises(Refused):
        portmap.pmp_address(bytes.fromhex(f"0080{code}00000064cb007109"))
    with pytest.raises(Refused):
        portmap.pmp_answer(
            bytes.fromhex(f"0081{code}0000006410eac35000000e10"), 4330, "203.0.113.9"
        )


def test_a_lifetime_that_cannot_be_is_bounded() -> None:
    for seconds, taken in ((0, portmap.SHORTEST), (0xFFFFFFFF, portmap.LONGEST)):
        bent = REPLY.replace("00000e10", f"{seconds:08x}", 1)
        granted = portmap.pcp_answer(bytes.fromhex(bent), INSIDE, NONCE)
        assert granted is not None
        assert granted.lifetime == taken


@given(st.binary(max_size=80), st.integers(0, 3))
def test_any_bytes_are_refused_or_passed_over(data: bytes, kind: int) -> None:
    heads = (b"", b"\x02\x81", b"\x00\x80", b"\x00\x81")
    data = heads[kind] + data
    for read in (
        lambda: portmap.pcp_answer(data, INSIDE, NONCE),
        lambda: portmap.pmp_address(data),
        lambda: portmap.pmp_answer(data, 4330, "203.0.113.9"),
    ):
        try:
            read()
        except Refused:
            pass


def test_upnp_answer() -> None:
    said = b'{"host": "203.0.113.9", "port": 50000, "lifetime": 3600}'
    assert portmap.upnp_answer(said) == GRANTED


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b'{"why": "no UPnP device answers"}',
        b'{"host": "router.lan", "port": 50000, "lifetime": 3600}',  # it says what it likes
        b'{"host": "", "port": 50000, "lifetime": 3600}',
        b'{"host": "2001:db8::1", "port": 50000, "lifetime": 3600}',
        b'{"host": "0.0.0.0", "port": 50000, "lifetime": 3600}',
        b'{"host": "203.0.113.9", "port": 70000, "lifetime": 3600}',
        b'{"host": "203.0.113.9", "port": -1, "lifetime": 3600}',
        b'{"host": "203.0.113.9", "port": null, "lifetime": 3600}',
    ],
)
def test_upnp_answers_that_cannot_be(said: bytes) -> None:
    with pytest.raises(Refused):
        portmap.upnp_answer(said)
