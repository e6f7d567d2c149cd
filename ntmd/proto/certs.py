"""Certificates: who is who, and by whose word (rules C8, C9, S8, S9).

The bytes of a leaf are in :mod:`ntmd.proto.profile`; certificates that ordinary TLS programs must
understand, and the CA's own, are in :mod:`ntmd.proto.authority`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from ntmd.proto.authority import ca_key_of, issue_tls, make_ca, platform_id_of, tls_key
from ntmd.proto.crypto import (
    dh,
    ed25519_public,
    ed25519_sign,
    ed25519_verify,
    equal,
    hkdf,
    hmac256,
    public_key,
    sha256,
)
from ntmd.proto.errors import ProtocolError
from ntmd.proto.profile import Fields, decode_certificate, encode_certificate, encode_tbs
from ntmd.proto.profile import valid_name as is_name
from ntmd.proto.types import Role

__all__ = [
    "Anchor",
    "Leaf",
    "Trust",
    "ca_key_of",
    "anchor_of_ca",
    "check_leaf",
    "in_domain",
    "is_name",
    "issue",
    "issue_tls",
    "make_ca",
    "parse_leaf",
    "platform_id_of",
    "platform_prefix",
    "pop_check",
    "pop_proof",
    "tls_key",
]


KNOWN = 1024
"""Certificates kept as read: the same few are shown at every handshake and registration, and
reading one takes 0.2 ms. Refused bytes are not kept."""


def platform_prefix(platform_id: bytes) -> bytes:
    """The platform's /48 (6 bytes): fd and the first 40 bits of its id (rule S9)."""
    return b"\xfd" + platform_id[:5]


def in_domain(name: str, domain: str) -> bool:
    """Whether ``name`` lies below ``domain``."""
    return name.endswith("." + domain)


def ca_key_id(ca_public: bytes) -> bytes:
    """How a leaf names the CA key that signed it: 20 bytes of the raw key's SHA-256."""
    return sha256(ca_public)[:20]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A platform that is trusted: its CA keys (Ed25519, two during a rollover) and its scope.

    ``suffixes`` empty: every name. ``prefix``: the /48 in which it may delegate, 6 bytes.
    """

    platform_id: bytes
    ca_keys: tuple[bytes, ...]
    suffixes: tuple[str, ...] = ()
    prefix: bytes = b""

    @property
    def issuer(self) -> str:
        """Issuer CN of its certificates."""
        return self.platform_id.hex()[:16]

    @property
    def network(self) -> ipaddress.IPv6Network:
        """Its /48."""
        prefix = self.prefix or platform_prefix(self.platform_id)
        return ipaddress.IPv6Network((prefix.ljust(16, b"\0"), 48))


def anchor_of_ca(ca: bytes) -> Anchor:
    """The anchor of our own platform, from its CA certificate (DER); ProtocolError if unusable."""
    platform_id = platform_id_of(ca)
    return Anchor(platform_id, (ca_key_of(ca),), (), platform_prefix(platform_id))


class Trust:
    """The table of anchors, by platform id; one row today.

    ValueError if two rows have one prefix or one issuer CN: the second is refused.
    """

    def __init__(self, anchors: Iterable[Anchor]) -> None:
        self.anchors: dict[bytes, Anchor] = {}
        self._by_issuer: dict[str, Anchor] = {}
        for anchor in anchors:
            if any(anchor.network == other.network for other in self.anchors.values()):
                raise ValueError("two platforms with one prefix")
            if anchor.issuer in self._by_issuer:
                raise ValueError("two platforms with one issuer name")
            self.anchors[anchor.platform_id] = anchor
            self._by_issuer[anchor.issuer] = anchor

    def anchor_of(self, leaf: Leaf) -> Anchor:
        """The anchor that a leaf names as its issuer; ProtocolError ``certificate_chain``."""
        anchor = self._by_issuer.get(leaf.issuer)
        if anchor is None:
            raise ProtocolError("certificate_chain", "unknown platform")
        return anchor


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate as read; nothing in it is true before :func:`check_leaf`."""

    role: Role
    name: str
    domain: str
    key: bytes
    prefix: ipaddress.IPv6Network | None
    not_before_ms: int
    not_after_ms: int
    serial: bytes
    der: bytes = field(repr=False)
    hash: bytes
    signing: bool
    issuer: str
    ca_id: bytes
    tbs: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@lru_cache(KNOWN)
def parse_leaf(der: bytes) -> Leaf:
    """What a certificate says; ProtocolError ``certificate`` on any deviation of the profile."""
    fields, tbs, signature = decode_certificate(der)
    return Leaf(
        role=fields.role,
        name=fields.name,
        domain=fields.domain,
        key=fields.key,
        prefix=fields.prefix,
        not_before_ms=fields.not_before_ms,
        not_after_ms=fields.not_after_ms,
        serial=fields.serial,
        der=der,
        hash=sha256(der),
        signing=fields.signing,
        issuer=fields.issuer,
        ca_id=fields.ca_id,
        tbs=tbs,
        signature=signature,
    )


def check_leaf(
    leaf: Leaf,
    trust: Trust,
    *,
    role: Role,
    name: str | None,
    now_ms: int,
    slack_ms: int = 0,
    grace_ms: int = 0,
) -> None:
    """Whether ``leaf`` entitles its key's holder to be ``role`` (and ``name``) now.

    ``slack_ms`` widens validity at both ends while the clock is unsure (rule S8), ``grace_ms``
    after the end only (rule C9). ProtocolError: ``certificate_chain``, ``certificate_expired``,
    ``certificate_role``, ``certificate_name``, ``certificate_prefix``.
    """
    anchor = trust.anchor_of(leaf)
    _check_signature(leaf, anchor)
    if now_ms < leaf.not_before_ms - slack_ms:
        raise ProtocolError("certificate_expired", "not yet valid")
    if now_ms > leaf.not_after_ms + max(slack_ms, grace_ms):
        raise ProtocolError("certificate_expired")
    if leaf.role is not role:
        raise ProtocolError("certificate_role", leaf.role.name)
    if name is not None and leaf.name != name:
        raise ProtocolError("certificate_name")
    if anchor.suffixes and not any(_within(leaf.domain, suffix) for suffix in anchor.suffixes):
        raise ProtocolError("certificate_name", "outside the platform's suffixes")
    if leaf.prefix is not None and not leaf.prefix.subnet_of(anchor.network):
        raise ProtocolError("certificate_prefix")


def _check_signature(leaf: Leaf, anchor: Anchor) -> None:
    for key in anchor.ca_keys:
        if ca_key_id(key) == leaf.ca_id:
            if ed25519_verify(key, leaf.signature, leaf.tbs):
                return
            raise ProtocolError("certificate_chain", "signature")
    raise ProtocolError("certificate_chain", "unknown CA key")


def _within(domain: str, suffix: str) -> bool:
    return domain == suffix or domain.endswith("." + suffix)


def issue(
    ca_private: bytes,
    platform_id: bytes,
    *,
    public_key: bytes,
    role: Role,
    name: str,
    domain_labels: int,
    prefix: ipaddress.IPv6Network | None,
    not_before_ms: int,
    not_after_ms: int,
    serial: bytes,
) -> bytes:
    """A leaf (DER) for a key whose possession was proved.

    ``serial``: 16 to 20 random bytes (the first is brought into 1-127 if it is not, as DER wants);
    ``prefix``: for ``dc`` and ``dc-sign`` only. What does not fit the profile is a ProtocolError
    ``certificate`` here already, never at the first call.
    """
    first = serial[0] if 0 < serial[0] < 0x80 else serial[0] & 0x3F | 0x40
    fields = Fields(
        serial=bytes((first,)) + serial[1:],
        issuer=platform_id.hex()[:16],
        ca_id=ca_key_id(ed25519_public(ca_private)),
        role=role,
        name=name,
        labels=domain_labels,
        key=public_key,
        prefix=prefix,
        not_before_ms=not_before_ms,
        not_after_ms=not_after_ms,
    )
    fields.check()
    tbs = encode_tbs(fields)
    der = encode_certificate(tbs, ed25519_sign(ca_private, tbs))
    decode_certificate(der)
    return der


# ------------------------------------------------------------------ proof of possession (C8)


def _pop(
    shared: bytes, node: bytes, server: bytes, nonce: bytes, fqdn: str, digest: bytes
) -> bytes:
    info = b"ntm pop 1" + node + server + fqdn.encode("ascii")
    return hmac256(hkdf(shared, nonce, info), digest)


def pop_proof(
    node_private: bytes, server_public: bytes, nonce: bytes, fqdn: str, request_hash: bytes
) -> bytes:
    """Proof (32 bytes) that the applicant holds an X25519 key.

    ``server_public`` and ``nonce`` (32 bytes each) are the AS's, fresh for this enrolment. An
    unusable key of the AS is a ProtocolError ``zero_dh``. An Ed25519 key proves by signature.
    """
    shared = dh(node_private, server_public)
    return _pop(shared, public_key(node_private), server_public, nonce, fqdn, request_hash)


def pop_check(
    server_private: bytes,
    node_public: bytes,
    nonce: bytes,
    fqdn: str,
    request_hash: bytes,
    proof: bytes,
) -> bool:
    """The AS's side: whether ``proof`` is right for ``node_public`` and this very request."""
    try:
        shared = dh(server_private, node_public)
    except ProtocolError:
        return False
    server = public_key(server_private)
    return equal(proof, _pop(shared, node_public, server, nonce, fqdn, request_hash))
