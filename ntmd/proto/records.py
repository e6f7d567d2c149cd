"""What a direction coordinator signs: node records (rule C2) and relay grants (rule C5).

Record, 141 bytes, all numbers big-endian::

    version 1 | capabilities 4 | address 16 | issued 8 | expires 8 | SHA-256 of node key 32
    | signer 8 | signature 64

signed over ``ntm record 1``, platform id, length of the FQDN (1), FQDN, and the fields before the
signature. Grant, 207 bytes::

    version 1 | SHA-256 of relay key 32 | grant id 16 | SHA-256 of node key 32 | of the other 32
    | issued 8 | expires 8 | kbit/s 4 | legs 2 | signer 8 | signature 64

signed over ``ntm grant 1``, platform id, and the fields before the signature. Times on the wire are
platform seconds. The signer is named by the first 8 bytes of the SHA-256 of its Ed25519 key.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ntmd.proto.certs import Leaf
from ntmd.proto.crypto import ed25519_public, ed25519_sign, ed25519_verify, sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Role, Suite

VERSION = 1
SIGNATURE_SIZE = 64
SIGNER_SIZE = 8
_RECORD = struct.Struct(">BI16sQQ32s8s64s")
_GRANT = struct.Struct(">B32s16s32s32sQQIH8s64s")
RECORD_SIZE = _RECORD.size
GRANT_SIZE = _GRANT.size


class Capability(enum.IntFlag):
    """What a node can do, in its signed record and its handshakes. Unknown bits are ignored."""

    AES_HARDWARE = 1 << 0
    TAKES_PARTIAL = 1 << 1  # takes packets with partial checksums (rule C13)
    SUITE_AES_GCM = 1 << 2
    SUITE_CHACHA = 1 << 3
    WIRE_1 = 1 << 4  # speaks wire version 1


GREASE_SHIFT = 24
"""Bits 24-31 mean nothing and never will: a sender sets one of them at random (rule S11)."""


def with_grease(capabilities: int, dice: int) -> int:
    """``capabilities`` with one of the reserved bits set, chosen by ``dice`` (a random byte)."""
    return (capabilities & ~(0xFF << GREASE_SHIFT)) | 1 << (GREASE_SHIFT + dice % 8)


def choose_suite(own: int, peer: int) -> Suite:
    """Suite for a handshake with ``peer``: AES where both have hardware for it, else ChaCha.

    Both are always implemented, so a peer of which nothing is known gets ChaCha.
    """
    both = own & peer
    if both & Capability.AES_HARDWARE and both & Capability.SUITE_AES_GCM:
        return Suite.AES_GCM
    if both & Capability.SUITE_AES_GCM and not both & Capability.SUITE_CHACHA:
        return Suite.AES_GCM
    return Suite.CHACHA


def signer_id(signer: Leaf | bytes) -> bytes:
    """How records and grants name their signer (8 bytes): by its certificate or Ed25519 key."""
    return sha256(signer if isinstance(signer, bytes) else signer.key)[:SIGNER_SIZE]


def _signed(private: bytes, context: bytes, blank: bytes) -> bytes:
    """A statement whose signature was left ``blank`` at its end, signed within ``context``."""
    fields = blank[:-SIGNATURE_SIZE]
    return fields + ed25519_sign(private, context + fields)


def _check_signature(signer: Leaf, context: bytes, data: bytes, kind: str) -> None:
    """ProtocolError ``kind`` unless ``signer`` signed the statement within ``context``."""
    fields, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
    if not ed25519_verify(signer.key, signature, context + fields):
        raise ProtocolError(kind)


# ------------------------------------------------------------------ node records


@dataclass(frozen=True, slots=True)
class Record:
    """A node record as read; nothing in it is true before :func:`check_record`."""

    version: int
    capabilities: int
    address: bytes
    issued_ms: int
    expires_ms: int
    key_hash: bytes
    signer_id: bytes
    signature: bytes

    def pack(self) -> bytes:
        """The 141 bytes."""
        return _RECORD.pack(
            self.version,
            self.capabilities,
            self.address,
            self.issued_ms // 1000,
            self.expires_ms // 1000,
            self.key_hash,
            self.signer_id,
            self.signature,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """Inverse of :meth:`pack`; ProtocolError ``record_format``."""
        if len(data) != RECORD_SIZE or data[0] != VERSION:
            raise ProtocolError("record_format")
        version, capabilities, address, issued, expires, *rest = _RECORD.unpack(data)
        return cls(version, capabilities, address, issued * 1000, expires * 1000, *rest)


def parse_record(data: bytes) -> Record:
    """A record's fields, unchecked; ProtocolError ``record_format``."""
    return Record.unpack(data)


def _record_context(platform_id: bytes, name: str) -> bytes:
    encoded = name.encode("ascii")
    return b"ntm record 1" + platform_id + bytes((len(encoded),)) + encoded


def sign_record(
    dc_sign_private: bytes,
    platform_id: bytes,
    name: str,
    *,
    address: bytes,
    node_key: bytes,
    capabilities: int,
    issued_ms: int,
    expires_ms: int,
) -> bytes:
    """The statement that ``name`` has ``address`` (16 bytes) and X25519 key ``node_key``."""
    signer = signer_id(ed25519_public(dc_sign_private))
    blank = bytes(SIGNATURE_SIZE)
    unsigned = Record(
        VERSION, capabilities, address, issued_ms, expires_ms, sha256(node_key), signer, blank
    )
    return _signed(dc_sign_private, _record_context(platform_id, name), unsigned.pack())


def check_record(
    data: bytes,
    platform_id: bytes,
    name: str,
    node_key: bytes,
    dc_sign: Leaf,
    now_ms: int,
    *,
    domain: str | None = None,
) -> Record:
    """The record if ``dc_sign`` (itself checked by the caller) may and did state it (rule C2).

    ``domain`` is that of the node's own certificate. ProtocolError: ``record_format``,
    ``record_signer``, ``record_domain``, ``record_key``, ``record_prefix``, ``record_expired``,
    ``record_signature``.
    """
    record = Record.unpack(data)
    if dc_sign.role is not Role.DC_SIGN or record.signer_id != signer_id(dc_sign):
        raise ProtocolError("record_signer")
    if not name.endswith("." + dc_sign.domain) or domain not in (None, dc_sign.domain):
        raise ProtocolError("record_domain")
    if record.key_hash != sha256(node_key):
        raise ProtocolError("record_key")
    if dc_sign.prefix is None or ipaddress.IPv6Address(record.address) not in dc_sign.prefix:
        raise ProtocolError("record_prefix")
    if now_ms > record.expires_ms:
        raise ProtocolError("record_expired")
    _check_signature(dc_sign, _record_context(platform_id, name), data, "record_signature")
    return record


# ------------------------------------------------------------------ relay grants


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as read; nothing in it is true before :func:`check_grant`.

    The relay with key hash ``rs_key_hash`` may forward between nodes a and b: ``kbit_s`` for the
    pair, at most ``legs`` legs.
    """

    version: int
    rs_key_hash: bytes
    grant_id: bytes
    node_a_hash: bytes
    node_b_hash: bytes
    issued_ms: int
    expires_ms: int
    kbit_s: int
    legs: int
    signer_id: bytes
    signature: bytes

    def pack(self) -> bytes:
        """The 207 bytes."""
        return _GRANT.pack(
            self.version,
            self.rs_key_hash,
            self.grant_id,
            self.node_a_hash,
            self.node_b_hash,
            self.issued_ms // 1000,
            self.expires_ms // 1000,
            self.kbit_s,
            self.legs,
            self.signer_id,
            self.signature,
        )


def parse_grant(data: bytes) -> Grant:
    """A grant's fields, unchecked; ProtocolError ``grant_format``."""
    if len(data) != GRANT_SIZE or data[0] != VERSION:
        raise ProtocolError("grant_format")
    version, relay, grant_id, node_a, node_b, issued, expires, *rest = _GRANT.unpack(data)
    return Grant(version, relay, grant_id, node_a, node_b, issued * 1000, expires * 1000, *rest)


def pair_grant_id(rs_key_hash: bytes, node_a_hash: bytes, node_b_hash: bytes) -> bytes:
    """The grant id (16 bytes) of a pair at a relay: the same in every grant that renews it.

    Thus an end that missed a renewal, or a coordinator that restarted, still means the same leg.
    Arguments are SHA-256 of X25519 keys; the order of the two nodes does not matter.
    """
    first, second = sorted((node_a_hash, node_b_hash))
    return sha256(b"ntm grant id 1" + rs_key_hash + first + second)[:16]


def sign_grant(
    dc_sign_private: bytes,
    platform_id: bytes,
    *,
    rs_key_hash: bytes,
    grant_id: bytes,
    node_a_hash: bytes,
    node_b_hash: bytes,
    issued_ms: int,
    expires_ms: int,
    kbit_s: int,
    legs: int = 2,
) -> bytes:
    """Permission for one pair at one relay; hashes are SHA-256 of X25519 keys."""
    unsigned = Grant(
        VERSION,
        rs_key_hash,
        grant_id,
        node_a_hash,
        node_b_hash,
        issued_ms,
        expires_ms,
        kbit_s,
        legs,
        signer_id(ed25519_public(dc_sign_private)),
        bytes(SIGNATURE_SIZE),
    )
    return _signed(dc_sign_private, b"ntm grant 1" + platform_id, unsigned.pack())


def check_grant(
    data: bytes, platform_id: bytes, signers: Mapping[bytes, Leaf], now_ms: int
) -> Grant:
    """The grant if one of ``signers`` (by :func:`signer_id`; checked by the caller) signed it.

    ProtocolError: ``grant_format``, ``grant_signer``, ``grant_expired``, ``grant_signature``.
    """
    grant = parse_grant(data)
    signer = signers.get(grant.signer_id)
    if signer is None or signer.role is not Role.DC_SIGN:
        raise ProtocolError("grant_signer")
    if now_ms > grant.expires_ms:
        raise ProtocolError("grant_expired")
    _check_signature(signer, b"ntm grant 1" + platform_id, data, "grant_signature")
    return grant
