"""The 16 bytes that every datagram starts with (``docs/protocol.md``, Wire skeleton).

====== ======= ==========================================================================
bytes  name    rule
====== ======= ==========================================================================
0      kind    :class:`Kind`; everything else: count, drop
1      slot    data/control: key slot, chosen by the receiver; handshake: wire version
2      suite   handshake: suite id; data: flags (bit 0 checksum partial); control: zero
3      choice  response: psk choice; otherwise zero
4-7    index   the only bytes a relay rewrites; in no nonce, no AAD; 0 = direct initiation
8-15   counter big-endian u64; handshake: sender's index (4), zero (4)
====== ======= ==========================================================================

Nonce of a sealed frame = bytes 0-3 followed by bytes 8-15 as they stand.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from ntmd.proto.errors import ProtocolError

HEADER = struct.Struct(">BBBBIQ")
HEADER_SIZE = 16
TAG_SIZE = 16
OVERHEAD = HEADER_SIZE + TAG_SIZE
INDEX = slice(4, 8)
WIRE_VERSION = 1
FLAG_PARTIAL = 0x01  # data, byte 2: L4 checksum holds the pseudo-header sum only (rule C13)
FRAGMENT = 0x01  # first plaintext byte of a fragment (rule S5)


class Kind(enum.IntEnum):
    """Datagram kinds; 11-15 are reserved."""

    INITIATION = 5
    RESPONSE = 6
    COOKIE = 7
    DATA = 8
    CONTROL = 9
    RESET = 10


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header."""

    kind: int
    slot: int
    suite: int
    choice: int
    index: int
    counter: int


def pack_header(kind: int, slot: int, suite: int, choice: int, index: int, counter: int) -> bytes:
    """The 16 header bytes."""
    return HEADER.pack(kind, slot, suite, choice, index, counter)


def parse_header(datagram: bytes | memoryview) -> Header:
    """Header of a datagram; raises ProtocolError for a short one or an unknown kind."""
    if len(datagram) < HEADER_SIZE:
        raise ProtocolError("truncated")
    header = Header(*HEADER.unpack_from(datagram))
    if not Kind.INITIATION <= header.kind <= Kind.RESET:
        raise ProtocolError("unknown_kind")
    return header


def nonce_of(header: bytes | memoryview) -> bytes:
    """AEAD nonce (12 bytes) of a sealed frame, from its header."""
    return bytes(header[0:4]) + bytes(header[8:16])


def with_index(datagram: bytes, index: int) -> bytes:
    """The same datagram with bytes 4-7 overwritten."""
    return datagram[:4] + index.to_bytes(4, "big") + datagram[8:]
