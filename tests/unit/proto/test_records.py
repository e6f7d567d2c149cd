"""Node records and relay grants: each way to lie is refused by name."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto import certs, crypto, records
from ntmd.proto.certs import Leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.records import Capability, check_grant, check_record, choose_suite, signer_id
from ntmd.proto.types import Role, Suite

DAY = 86_400_000
NOW = 1_767_225_600_000
CA_PRIVATE, SIGN_PRIVATE = b"\x11" * 32, b"\x12" * 32
PLATFORM = certs.platform_id_of(certs.make_ca(CA_PRIVATE, NOW, NOW + DAY, b"\x42" * 16))
BASE = int(ipaddress.IPv6Address(certs.platform_prefix(PLATFORM).ljust(16, b"\0")))
NODE_KEY = crypto.public_key(b"\x13" * 32)
NAME = "desk.home.test"


def signer(private: bytes = SIGN_PRIVATE, domain: str = "home.test", subnet: int = 7) -> Leaf:
    der = certs.issue(
        CA_PRIVATE,
        PLATFORM,
        public_key=crypto.ed25519_public(private),
        role=Role.DC_SIGN,
        name="dc." + domain,
        domain_labels=domain.count(".") + 1,
        prefix=ipaddress.IPv6Network((BASE | subnet << 64, 64)),
        not_before_ms=NOW,
        not_after_ms=NOW + DAY,
        serial=b"\x42" * 16,
    )
    return certs.parse_leaf(der)


def address(subnet: int = 7, host: int = 5) -> bytes:
    return (BASE | subnet << 64 | host).to_bytes(16, "big")


def record(name: str = NAME, private: bytes = SIGN_PRIVATE, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "address": address(),
        "node_key": NODE_KEY,
        "capabilities": 0x0500001F,
        "issued_ms": NOW,
        "expires_ms": NOW + 7 * DAY,
        **changes,
    }
    return records.sign_record(private, PLATFORM, name, **values)


def refusal(data: bytes, **changes: Any) -> str:
    values: dict[str, Any] = {
        "platform_id": PLATFORM,
        "name": NAME,
        "node_key": NODE_KEY,
        "dc_sign": signer(),
        "now_ms": NOW + DAY,
        "domain": "home.test",
        **changes,
    }
    with pytest.raises(ProtocolError) as caught:
        check_record(data, **values)
    return caught.value.kind


def test_a_good_record() -> None:
    data = record()
    assert len(data) == records.RECORD_SIZE == 141
    checked = check_record(data, PLATFORM, NAME, NODE_KEY, signer(), NOW + DAY, domain="home.test")
    assert checked.address == address()
    assert (checked.issued_ms, checked.expires_ms) == (NOW, NOW + 7 * DAY)
    assert checked.capabilities == 0x0500001F
    assert checked.key_hash == crypto.sha256(NODE_KEY)
    assert checked.pack() == data


def test_each_lie_is_refused_by_name() -> None:
    good = record()
    assert refusal(record(address=address(subnet=8))) == "record_prefix"
    assert refusal(good, node_key=crypto.public_key(b"\x77" * 32)) == "record_key"
    assert refusal(good, now_ms=NOW + 7 * DAY + 1) == "record_expired"
    assert refusal(good, name="other.home.test") == "record_signature"
    assert refusal(good, platform_id=bytes(32)) == "record_signature"
    assert refusal(good, domain="sub.home.test") == "record_domain"
    assert refusal(good, dc_sign=signer(private=b"\x55" * 32)) == "record_signer"
    assert refusal(good, dc_sign=replace(signer(), role=Role.DC)) == "record_signer"
    assert refusal(good[:-1]) == "record_format"
    assert refusal(b"\2" + good[1:]) == "record_format"


def test_a_parent_domain_does_not_speak_for_its_children() -> None:
    """The signer of ``test`` may not state names of ``home.test``."""
    parent = signer(domain="platform.test")
    assert refusal(record(), dc_sign=parent) == "record_domain"
    wide = replace(signer(), domain="test")
    assert refusal(record(), dc_sign=wide) == "record_domain"
    beside = replace(signer(), domain="ome.test")  # a suffix, but not at a dot
    assert refusal(record(), dc_sign=beside, domain=None) == "record_domain"


@given(st.integers(0, 140), st.integers(1, 255))
def test_no_bent_record_is_accepted(at: int, flip: int) -> None:
    bent = bytearray(record())
    bent[at] ^= flip
    refusal(bytes(bent))


def grant(private: bytes = SIGN_PRIVATE, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "rs_key_hash": b"\x01" * 32,
        "grant_id": b"\x02" * 16,
        "node_a_hash": b"\x03" * 32,
        "node_b_hash": b"\x04" * 32,
        "issued_ms": NOW,
        "expires_ms": NOW + 7 * DAY,
        "kbit_s": 100_000,
        "legs": 2,
        **changes,
    }
    return records.sign_grant(private, PLATFORM, **values)


SIGNERS = {signer_id(signer()): signer()}


def grant_refusal(data: bytes, now_ms: int = NOW + DAY, platform: bytes = PLATFORM) -> str:
    with pytest.raises(ProtocolError) as caught:
        check_grant(data, platform, SIGNERS, now_ms)
    return caught.value.kind


def test_a_good_grant() -> None:
    data = grant()
    assert len(data) == records.GRANT_SIZE == 207
    checked = check_grant(data, PLATFORM, SIGNERS, NOW + DAY)
    assert (checked.rs_key_hash, checked.grant_id) == (b"\x01" * 32, b"\x02" * 16)
    assert (checked.node_a_hash, checked.node_b_hash) == (b"\x03" * 32, b"\x04" * 32)
    assert (checked.kbit_s, checked.legs, checked.expires_ms) == (100_000, 2, NOW + 7 * DAY)
    assert checked.pack() == data


def test_each_bad_grant_is_refused_by_name() -> None:
    assert grant_refusal(grant(private=b"\x55" * 32)) == "grant_signer"
    assert grant_refusal(grant(), now_ms=NOW + 8 * DAY) == "grant_expired"
    assert grant_refusal(grant(), platform=bytes(32)) == "grant_signature"
    assert grant_refusal(grant()[:-1]) == "grant_format"
    assert grant_refusal(b"\2" + grant()[1:]) == "grant_format"


@given(st.integers(0, 206), st.integers(1, 255))
def test_no_bent_grant_is_accepted(at: int, flip: int) -> None:
    bent = bytearray(grant())
    bent[at] ^= flip
    grant_refusal(bytes(bent))


@given(st.binary(max_size=260))
def test_noise_is_a_protocol_error(data: bytes) -> None:
    refusal(data)
    grant_refusal(data)


AES = Capability.AES_HARDWARE | Capability.SUITE_AES_GCM | Capability.SUITE_CHACHA
SOFT = Capability.SUITE_AES_GCM | Capability.SUITE_CHACHA


@pytest.mark.parametrize(
    ("own", "peer", "suite"),
    [
        (AES, AES, Suite.AES_GCM),
        (AES, SOFT, Suite.CHACHA),
        (SOFT, SOFT, Suite.CHACHA),
        (AES, 0, Suite.CHACHA),
        (SOFT, Capability.SUITE_AES_GCM, Suite.AES_GCM),
        (AES | 0xFF << 24, AES | 0x7F << 24, Suite.AES_GCM),
    ],
)
def test_suite(own: int, peer: int, suite: Suite) -> None:
    assert choose_suite(own, peer) is choose_suite(peer, own) is suite


@given(st.integers(0, 2**32 - 1), st.integers(0, 255))
def test_grease_sets_one_reserved_bit(capabilities: int, dice: int) -> None:
    greased = records.with_grease(capabilities, dice)
    assert (greased >> records.GREASE_SHIFT).bit_count() == 1
    assert greased & 0xFFFFFF == capabilities & 0xFFFFFF
    assert all(int(each) < 1 << records.GREASE_SHIFT for each in Capability)
