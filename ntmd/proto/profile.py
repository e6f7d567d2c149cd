"""DER of the leaf profile (rule C8): the one encoding of a certificate that we accept.

A certificate of a node, coordinator or relay is X.509 v3 and holds exactly: serial of 16-20 bytes,
Ed25519 signature, issuer CN = first 16 hex digits of the platform id, validity in whole seconds,
empty subject, X25519 key (``dc-sign``: Ed25519), and five extensions in this order:

1. subjectAltName, critical: one dNSName, lower case, at most 128 octets;
2. keyUsage, critical: keyAgreement (``dc-sign``: digitalSignature);
3. authorityKeyIdentifier: first 20 bytes of the SHA-256 of the CA's Ed25519 key;
4. extendedKeyUsage, critical: ``2.25.U.1.role`` with the number of :class:`ntmd.proto.types.Role`;
5. ``2.25.U.2``, the scope: SEQUENCE of INTEGER (how many last labels of the name are its home
   domain) and, for coordinators, OCTET STRING (the 8 bytes of their /64).

``U`` is the UUID below as a number (ITU-T X.667). Reading proposes values; a certificate counts
only if encoding these values again gives the same bytes, so there is one encoding of each and
nothing hidden in it. Sources: RFC 5280, RFC 8410 (X25519 and Ed25519 in X.509).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Role

UUID = 75283195402015249547476168097211236951
ROLE_ARC = f"2.25.{UUID}.1"  # then the role's number
SCOPE_OID = f"2.25.{UUID}.2"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CERTIFICATE_MAX = 560
NAME_MAX = 128
LABEL_MAX = 63
PREFIX_LENGTH = 64  # of what a coordinator may assign from (rule S9)

_INTEGER, _BITS, _OCTETS, _OID, _UTF8, _SEQ, _SET = 0x02, 0x03, 0x04, 0x06, 0x0C, 0x30, 0x31
_UTC_TIME, _TIME = 0x17, 0x18
_TRUE = b"\x01\x01\xff"


def tlv(tag: int, *parts: bytes) -> bytes:
    """One DER element; lengths up to 65,535."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    if size < 0x100:
        return bytes((tag, 0x81, size)) + body
    return bytes((tag, 0x82)) + size.to_bytes(2, "big") + body


@cache
def oid(dotted: str) -> bytes:
    """DER of an object identifier."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    out = bytearray()
    for arc in (first * 40 + second, *rest):
        piece = [arc & 0x7F]
        while arc := arc >> 7:
            piece.append(arc & 0x7F | 0x80)
        out += bytes(reversed(piece))
    return tlv(_OID, bytes(out))


_ED25519 = tlv(_SEQ, oid("1.3.101.112"))
_X25519 = tlv(_SEQ, oid("1.3.101.110"))
_COMMON_NAME = oid("2.5.4.3")
_ROLE_OIDS = {role: oid(f"{ROLE_ARC}.{role.value}") for role in Role}
_ROLES = {der: role for role, der in _ROLE_OIDS.items()}


def key_info(signing: bool, key: bytes) -> bytes:
    """SubjectPublicKeyInfo of an Ed25519 (``signing``) or X25519 key."""
    return tlv(_SEQ, _ED25519 if signing else _X25519, tlv(_BITS, b"\0", key))


@dataclass(frozen=True, slots=True)
class Fields:
    """What a leaf says. ``issuer`` is the CN; ``ca_id`` the 20 bytes naming the CA key.

    ``serial`` has 16-20 bytes and a first byte of 1-127; times are platform ms, whole seconds.
    """

    serial: bytes
    issuer: str
    ca_id: bytes
    role: Role
    name: str
    labels: int
    key: bytes
    prefix: ipaddress.IPv6Network | None
    not_before_ms: int
    not_after_ms: int

    @property
    def signing(self) -> bool:
        """Whether the key is an Ed25519 key."""
        return self.role is Role.DC_SIGN

    @property
    def domain(self) -> str:
        """Home domain: the last ``labels`` labels of the name."""
        return ".".join(self.name.split(".")[-self.labels :])

    def check(self) -> None:
        """Raises ProtocolError ``certificate`` if the profile does not allow these values."""
        names = self.name.split(".")
        coordinator = self.role in (Role.DC, Role.DC_SIGN)
        allowed = (
            16 <= len(self.serial) <= 20
            and 0 < self.serial[0] < 0x80
            and len(self.ca_id) == 20
            and len(self.key) == 32
            and valid_name(self.name)
            and 1 <= self.labels <= len(names)
            and self.not_before_ms < self.not_after_ms
            and self.role is not Role.TLS
        )
        if not allowed:
            raise ProtocolError("certificate", "outside the profile")
        if coordinator != (self.prefix is not None):
            raise ProtocolError("certificate_prefix", "coordinators, and only they, have a prefix")
        if self.prefix is not None and self.prefix.prefixlen != PREFIX_LENGTH:
            raise ProtocolError("certificate_prefix", "a coordinator has a /64")


def valid_name(name: str) -> bool:
    """Whether ``name`` is a host name as certificates and records carry it (RFC 1123, A-labels)."""
    if not 0 < len(name) <= NAME_MAX or not name.isascii():
        return False
    for label in name.split("."):
        if not 0 < len(label) <= LABEL_MAX or label[0] == "-" or label[-1] == "-":
            return False
        if not all(c.isdigit() or "a" <= c <= "z" or c == "-" for c in label):
            return False
    return True


# ------------------------------------------------------------------ encoding


def to_datetime(ms: int) -> datetime:
    """Platform ms as a date, rounded down to the second."""
    return EPOCH + timedelta(seconds=ms // 1000)


def _time(ms: int) -> bytes:
    moment = to_datetime(ms)
    text = moment.strftime("%m%d%H%M%SZ")
    if moment.year < 2050:  # RFC 5280 section 4.1.2.5
        return tlv(_UTC_TIME, f"{moment.year % 100:02}{text}".encode())
    return tlv(_TIME, f"{moment.year:04}{text}".encode())


def _extension(dotted: str, critical: bool, value: bytes) -> bytes:
    return tlv(_SEQ, oid(dotted), _TRUE if critical else b"", tlv(_OCTETS, value))


def _scope(fields: Fields) -> bytes:
    parts = [tlv(_INTEGER, bytes((fields.labels,)))]
    if fields.prefix is not None:
        parts.append(tlv(_OCTETS, fields.prefix.network_address.packed[: PREFIX_LENGTH // 8]))
    return tlv(_SEQ, *parts)


def encode_tbs(fields: Fields) -> bytes:
    """The part of a certificate that is signed."""
    usage = b"\x03\x02\x07\x80" if fields.signing else b"\x03\x02\x03\x08"
    common_name = tlv(_SEQ, _COMMON_NAME, tlv(_UTF8, fields.issuer.encode("ascii")))
    extensions = tlv(
        _SEQ,
        _extension("2.5.29.17", True, tlv(_SEQ, tlv(0x82, fields.name.encode("ascii")))),
        _extension("2.5.29.15", True, usage),
        _extension("2.5.29.35", False, tlv(_SEQ, tlv(0x80, fields.ca_id))),
        _extension("2.5.29.37", True, tlv(_SEQ, _ROLE_OIDS[fields.role])),
        _extension(SCOPE_OID, False, _scope(fields)),
    )
    return tlv(
        _SEQ,
        tlv(0xA0, tlv(_INTEGER, b"\x02")),
        tlv(_INTEGER, fields.serial),
        _ED25519,
        tlv(_SEQ, tlv(_SET, common_name)),
        tlv(_SEQ, _time(fields.not_before_ms), _time(fields.not_after_ms)),
        tlv(_SEQ),
        key_info(fields.signing, fields.key),
        tlv(0xA3, extensions),
    )


def encode_certificate(tbs: bytes, signature: bytes) -> bytes:
    """The whole certificate."""
    return tlv(_SEQ, tbs, _ED25519, tlv(_BITS, b"\0", signature))


# ------------------------------------------------------------------ reading


class _Reader:
    """DER elements one after the other; ValueError for anything out of place."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, tag: int) -> bytes:
        """Contents of the next element, which must have ``tag``."""
        data, at = self.data, self.at
        if len(data) < at + 2 or data[at] != tag:
            raise ValueError("unexpected element")
        size, at = data[at + 1], at + 2
        if size & 0x80:
            octets = size & 0x7F
            if octets not in (1, 2) or len(data) < at + octets:
                raise ValueError("length")
            size, at = int.from_bytes(data[at : at + octets], "big"), at + octets
        if len(data) < at + size:
            raise ValueError("truncated")
        self.at = at + size
        return data[at : at + size]

    def inside(self, *tags: int) -> _Reader:
        """Reader of the contents of the next element, or of the first one nested in it, ..."""
        reader = self
        for tag in tags:
            reader = _Reader(reader.take(tag))
        return reader

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self.at < len(self.data)


def _read_time(reader: _Reader) -> int:
    tag = reader.data[reader.at] if reader.more else 0
    text = reader.take(tag if tag in (_UTC_TIME, _TIME) else _UTC_TIME).decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    digits = [int(text[at : at + 2]) for at in range(4, 14, 2)]
    moment = datetime(int(text[:4]), *digits, tzinfo=UTC)  # type: ignore[arg-type, misc]
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _read_extension(reader: _Reader) -> _Reader:
    """Reader of the value of the next extension; its OID and flag are seen to by re-encoding."""
    extension = reader.inside(_SEQ)
    extension.take(_OID)
    if extension.more and extension.data[extension.at] == _TRUE[0]:
        extension.take(_TRUE[0])
    return extension.inside(_OCTETS)


def _read_prefix(scope: _Reader) -> ipaddress.IPv6Network | None:
    if not scope.more:
        return None
    value = scope.take(_OCTETS)
    return ipaddress.IPv6Network((value.ljust(16, b"\0"), PREFIX_LENGTH))


def _read(der: bytes) -> tuple[Fields, bytes, bytes]:
    whole = _Reader(der).inside(_SEQ)
    start = whole.at
    tbs = _Reader(whole.take(_SEQ))
    tbs_der = whole.data[start : whole.at]
    whole.take(_SEQ)
    signature = whole.take(_BITS)[1:]
    tbs.take(0xA0)
    serial = tbs.take(_INTEGER)
    tbs.take(_SEQ)
    common_name = tbs.inside(_SEQ, _SET, _SEQ)
    common_name.take(_OID)
    issuer = common_name.take(_UTF8).decode("ascii")
    validity = tbs.inside(_SEQ)
    not_before, not_after = _read_time(validity), _read_time(validity)
    tbs.take(_SEQ)
    info = tbs.inside(_SEQ)
    info.take(_SEQ)
    key = info.take(_BITS)[1:]
    extensions = tbs.inside(0xA3, _SEQ)
    name = _read_extension(extensions).inside(_SEQ).take(0x82).decode("ascii")
    _read_extension(extensions)
    ca_id = _read_extension(extensions).inside(_SEQ).take(0x80)
    role = _ROLES[tlv(_OID, _read_extension(extensions).inside(_SEQ).take(_OID))]
    scope = _read_extension(extensions).inside(_SEQ)
    labels = int.from_bytes(scope.take(_INTEGER), "big")
    fields = Fields(
        serial, issuer, ca_id, role, name, labels, key, _read_prefix(scope), not_before, not_after
    )
    return fields, tbs_der, signature


def decode_certificate(der: bytes) -> tuple[Fields, bytes, bytes]:
    """Fields, signed part and signature (64 bytes) of a leaf.

    ProtocolError ``certificate`` unless ``der`` is byte for byte what the profile prescribes.
    """
    if len(der) > CERTIFICATE_MAX:
        raise ProtocolError("certificate", "too long")
    try:
        fields, tbs, signature = _read(der)
        fields.check()
        same = encode_certificate(encode_tbs(fields), signature) == der
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise ProtocolError("certificate", "not the profile") from error
    if not same or len(signature) != 64:
        raise ProtocolError("certificate", "another encoding")
    return fields, tbs, signature
