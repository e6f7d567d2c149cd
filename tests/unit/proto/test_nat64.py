"""RFC 6052 section 2.4 gives the examples; RFC 7050 how they are found."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto.nat64 import LENGTHS, Prefix, discover
from ntmd.proto.types import Endpoint

EXAMPLES = [
    ("2001:db8::", 32, "2001:db8:c000:221::"),
    ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
    ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::", 96, "2001:db8:122:344::c000:221"),
]


def packed(text: str) -> bytes:
    return ipaddress.IPv6Address(text).packed


@pytest.mark.parametrize(("network", "length", "address"), EXAMPLES)
def test_examples_of_the_rfc(network: str, length: int, address: str) -> None:
    prefix = Prefix(packed(network), length)
    four = Endpoint("192.0.2.33", 4330)
    six = Endpoint(str(ipaddress.IPv6Address(address)), 4330)
    assert prefix.synthesise(four) == six
    assert prefix.native(six) == four


@pytest.mark.parametrize(("network", "length", "_"), EXAMPLES)
def test_discovery_finds_the_prefix(network: str, length: int, _: str) -> None:
    prefix = Prefix(packed(network), length)
    answers = [prefix.synthesise(Endpoint(f"192.0.0.{last}", 0)).host for last in (170, 171)]
    assert discover(tuple(packed(answer) for answer in answers)) == prefix


@given(st.binary(min_size=16, max_size=16))
def test_any_address_is_read_without_harm(address: bytes) -> None:
    found = discover((address,))
    assert found is None or found.length in LENGTHS
    host = str(ipaddress.IPv6Address(address))
    native = Prefix(packed("64:ff9b::"), 96).native(Endpoint(host, 1))
    assert (native is not None) == address.startswith(packed("64:ff9b::")[:12])


def test_a_stranger_is_not_of_the_prefix() -> None:
    prefix = Prefix(packed("64:ff9b::"), 96)
    assert prefix.native(Endpoint("2001:db8::1", 1)) is None
    assert prefix.native(Endpoint("192.0.2.1", 1)) is None
