"""As much of the DNS wire format as a stub resolver needs (RFC 1035, EDNS of RFC 6891).

One question in, one short answer out; everything else passes through as bytes. A complete DNS
library would cost the daemon 12 MiB of memory. Pure; :class:`ValueError` for what is malformed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER = struct.Struct(">HHHHHH")
A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 1, 2, 3, 4
QR, TC, RD, RA, AA = 0x8000, 0x0200, 0x0100, 0x0080, 0x0400
OPCODE = 0x7800
NAME_MAX = 255
UDP_SIZE = 1232
REVERSE = ".ip6.arpa"


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its one question. ``name`` is lower-case without the final dot."""

    id: int
    flags: int
    name: str
    kind: int
    kind_class: int
    raw: bytes  # the question section as it came, with the case the client chose
    edns: bool


def parse_query(data: bytes) -> Question:
    """The question of a query; ValueError if it is no well-formed query with one question."""
    if len(data) < HEADER.size + 5:
        raise ValueError("too short")
    number, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
    if flags & QR or questions != 1 or answers or authority or additional > 2:
        raise ValueError("not a query with one question")
    name, end = _parse_name(data, HEADER.size)
    if end + 4 > len(data):
        raise ValueError("the question is cut short")
    kind, kind_class = struct.unpack_from(">HH", data, end)
    edns = additional > 0 and data[end + 4 : end + 7] == b"\0\0" + bytes([OPT])
    return Question(number, flags, name, kind, kind_class, bytes(data[HEADER.size : end + 4]), edns)


def _parse_name(data: bytes, at: int) -> tuple[str, int]:
    """The name at ``at`` and where it ends; a question has no compression pointers to follow."""
    labels: list[str] = []
    begin = at
    while True:
        if at >= len(data) or at - begin > NAME_MAX:
            raise ValueError("the name is cut short or too long")
        length = data[at]
        at += 1
        if length == 0:
            return ".".join(labels), at
        if length > 63 or at + length > len(data):
            raise ValueError("a label is malformed")
        # other bytes than ASCII can match none of our names; they are passed on unread
        labels.append(data[at : at + length].decode("ascii", "replace").lower())
        at += length


def reply(question: Question, code: int, records: tuple[bytes, ...] = ()) -> bytes:
    """A complete reply; ``records`` are resource records whose owner is the question's name."""
    flags = QR | RA | (question.flags & (RD | OPCODE)) | code
    additional = b"\0" + struct.pack(">HHIH", OPT, UDP_SIZE, 0, 0) if question.edns else b""
    head = HEADER.pack(question.id, flags, 1, len(records), 0, 1 if additional else 0)
    return head + question.raw + b"".join(records) + additional


def record(kind: int, ttl: int, data: bytes) -> bytes:
    """A resource record whose owner is the name asked (a pointer to byte 12)."""
    return struct.pack(">HHHIH", 0xC000 | HEADER.size, kind, IN, ttl, len(data)) + data


def error_reply(data: bytes, code: int) -> bytes | None:
    """A bare header that says ``code``; None for what is too short or itself a reply."""
    if len(data) < HEADER.size:
        return None
    number, flags = struct.unpack_from(">HH", data)
    if flags & QR:
        return None
    return HEADER.pack(number, QR | RA | (flags & (RD | OPCODE)) | code, 0, 0, 0, 0)


def pack_name(name: str) -> bytes:
    """Wire form of a name in ASCII without the final dot."""
    labels = name.encode("ascii").split(b".") if name else []
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def reverse_address(name: str) -> bytes | None:
    """The address that a complete ``ip6.arpa`` name stands for; None for any other name."""
    if not name.endswith(REVERSE):
        return None
    nibbles = name.removesuffix(REVERSE).split(".")
    if len(nibbles) != 32 or any(len(n) != 1 or n not in "0123456789abcdef" for n in nibbles):
        return None
    return bytes.fromhex("".join(reversed(nibbles)))


def answers_question(data: bytes, question: bytes) -> bool:
    """Whether ``data`` is a reply with exactly this question section."""
    return (
        len(data) >= HEADER.size + len(question)
        and bool(data[2] & 0x80)
        and data[HEADER.size : HEADER.size + len(question)].lower() == question.lower()
    )


RECORDS_READ = 32


def addresses(data: bytes) -> tuple[bytes, ...]:
    """The AAAA records of a reply with one question, whoever owns them; empty if malformed."""
    found: list[bytes] = []
    try:
        _, _, questions, answers, _, _ = HEADER.unpack_from(data)
        at = HEADER.size
        for _ in range(min(questions, 1)):
            at = _skip_name(data, at) + 4
        for _ in range(min(answers, RECORDS_READ)):
            at = _skip_name(data, at)
            kind, kind_class, _, length = struct.unpack_from(">HHIH", data, at)
            at += 10
            if kind == AAAA and kind_class == IN and length == 16 and at + 16 <= len(data):
                found.append(bytes(data[at : at + 16]))
            at += length
    except (struct.error, IndexError):
        pass
    return tuple(found)


def _skip_name(data: bytes, at: int) -> int:
    """Where a name ends that may be compressed (RFC 1035 section 4.1.4)."""
    while data[at]:
        if data[at] >= 0xC0:
            return at + 2
        at += 1 + data[at]
    return at + 1
