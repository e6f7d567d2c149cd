"""Writing DER: as much of X.690 as certificates of the platform need. Pure."""

from __future__ import annotations

import datetime

UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
LAST_UTC_YEAR = 2049  # later dates are written with four digits (RFC 5280, 4.1.2.5)


def tagged(tag: int, content: bytes) -> bytes:
    """Tag, length, content."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*parts: bytes) -> bytes:
    """SEQUENCE of encoded parts."""
    return tagged(0x30, b"".join(parts))


def integer(value: int) -> bytes:
    """INTEGER, not negative."""
    return tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def boolean(value: bool) -> bytes:
    """BOOLEAN."""
    return b"\x01\x01\xff" if value else b"\x01\x01\x00"


def octets(value: bytes) -> bytes:
    """OCTET STRING."""
    return tagged(0x04, value)


def bits(value: bytes) -> bytes:
    """BIT STRING of whole bytes."""
    return tagged(0x03, b"\0" + value)


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return tagged(0x06, b"".join(_base128(arc) for arc in (first * 40 + second, *rest)))


def time(seconds: int) -> bytes:
    """UTCTime or GeneralizedTime of an instant, seconds since the epoch."""
    instant = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    if 1950 <= instant.year <= LAST_UTC_YEAR:
        return tagged(UTC_TIME, instant.strftime("%y%m%d%H%M%SZ").encode())
    return tagged(GENERALIZED_TIME, instant.strftime("%Y%m%d%H%M%SZ").encode())


def _base128(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))
