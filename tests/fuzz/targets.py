"""What must hold for any bytes. A target takes bytes and raises only if it does not.

Everything a stranger or a peer can send passes one of these: the answer to bad bytes is a
ProtocolError, never another exception, and what is accepted is the same when written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ntmd.platform.linux import dnswire
from ntmd.proto import certs, codec, frame, msgpack, noise, records
from ntmd.proto.crypto import PrivateKey, public_key
from ntmd.proto.errors import ProtocolError
from ntmd.proto.fragments import HEADER, Reassembly
from ntmd.proto.messages import AnswerPayload, CallPayload
from ntmd.proto.stream import Deframer
from ntmd.proto.types import Role, Suite
from tests.unit.proto.engines import Bus, Station, joined

VECTORS = Path(__file__).parents[1] / "vectors"
REFUSED = object()


def attempt(function: Callable[..., Any], *given: Any) -> Any:
    """Result of a parser, or REFUSED."""
    try:
        return function(*given)
    except ProtocolError:
        return REFUSED


def header(data: bytes) -> None:
    """The 16 bytes of every datagram."""
    parsed = attempt(frame.parse_header, data)
    if parsed is not REFUSED:
        again = frame.pack_header(
            parsed.kind, parsed.slot, parsed.suite, parsed.choice, parsed.index, parsed.counter
        )
        assert again == data[:16]


def packing(data: bytes) -> None:
    """Both providers of MessagePack agree, and what is accepted has one form."""
    fast, plain = attempt(msgpack.unpack, data), attempt(msgpack.unpack_plain, data)
    assert (fast is REFUSED) == (plain is REFUSED)
    if fast is not REFUSED:
        assert fast == plain
        assert msgpack.pack(fast) == msgpack.pack_plain(fast) == data


def message(data: bytes) -> None:
    """Control messages; unknown trailing fields are the only thing that may get lost."""
    decoded = attempt(codec.decode, data)
    if decoded is not REFUSED:
        assert codec.decode(codec.encode(decoded)) == decoded


def framing(data: bytes) -> None:
    """The inside of a TLS connection: the same datagrams however the bytes are cut."""
    whole = attempt(Deframer().feed, data)
    deframer, pieces = Deframer(), list[bytes]()
    for at in range(0, len(data), 7):
        found = attempt(deframer.feed, data[at : at + 7])
        if found is REFUSED:
            assert whole is REFUSED
            return
        pieces += found
    assert pieces == whole


def payload(data: bytes) -> None:
    """Handshake payloads."""
    for kind in (CallPayload, AnswerPayload):
        decoded: Any = attempt(codec.decode_payload, data, kind)
        if decoded is not REFUSED:
            assert codec.decode_payload(codec.encode_payload(decoded), kind) == decoded


def certificate(data: bytes) -> None:
    """Leaf certificates: one encoding each; and the CA's, which arrives from the account server."""
    leaf = attempt(certs.parse_leaf, data)
    if leaf is not REFUSED:
        assert leaf.der == data
        assert leaf.tbs in data
    attempt(certs.ca_key_of, data)


def statement(data: bytes) -> None:
    """Records and grants."""
    for parse in (records.parse_record, records.parse_grant):
        parsed = attempt(parse, data)
        # Times that do not fit the wire any more cannot have come from it.
        assert parsed is REFUSED or parsed.pack() == data


def fragments(data: bytes) -> None:
    """Any number of fragments, each behind its length (2): memory stays within its bound."""
    box, at, now = Reassembly(), 0, 0.0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        piece = data[at + 2 : at + 2 + size]
        at += 2 + max(size, 1)
        now += 0.01
        whole = attempt(box.add, b"\1" + piece, now)
        assert whole is REFUSED or whole is None or len(whole) <= len(data)
        assert sum(entry.size for entry in box._open.values()) <= 65_536
    assert HEADER.size == 8


def handshake(data: bytes) -> None:
    """Noise messages, cookies and macs of strangers."""
    static = b"\x11" * 32
    prologue = noise.prologue(Suite.CHACHA, bytes(32), Role.NODE, "desk.home.test")
    attempt(noise.Responder(Suite.CHACHA, prologue, PrivateKey(static)).read_message1, data)
    caller = noise.Initiator(
        Suite.AES_GCM, prologue, PrivateKey(static), public_key(b"\x12" * 32), b"\x13" * 32
    )
    caller.write_message1(b"")
    attempt(caller.read_message2, data)
    attempt(noise.open_cookie, data, public_key(static), bytes(16))
    noise.check_mac1(bytes(32), data)


def question(data: bytes) -> None:
    """DNS questions at the stub on the TUN: ValueError is its refusal."""
    try:
        parsed = dnswire.parse_query(data)
    except ValueError:
        parsed = None
    if parsed is not None:
        assert len(parsed.name) <= 255
    answer = dnswire.error_reply(data, 2)
    assert answer is None or len(answer) <= max(len(data), 12)


@cache
def ends() -> tuple[Bus, Station, Station]:
    """Two nodes with a session; it lives until a peer ends it."""
    return joined()


def datagram(data: bytes) -> None:
    """Anything from anywhere at a session engine: counted, and the session goes on."""
    _, alice, bob = ends()
    for source in (alice.at, alice.at._replace(port=9)):
        bob.engine.receive(data, 1, source, bob.bus.now)
    bob.engine.take_outputs()
    assert bob.engine.established(bob.handle(alice))


def from_peer(data: bytes) -> None:
    """Sealed control frames by a peer with valid keys who keeps no rule; it may end the session."""
    _, alice, bob = ends()
    association = alice.engine._context.by_key[bob.key]
    session = association.sessions[
        max(association.sessions, key=lambda s: association.sessions[s].info.number)
    ]
    alice.engine._channel._seal(association, session, data, alice.to(bob))
    for output in alice.engine.take_outputs():
        bob.engine.receive(output.data, 1, alice.at, bob.bus.now)  # type: ignore[union-attr]
    bob.engine.take_outputs()
    if bob.engine.handle_of(alice.key) is None:
        ends.cache_clear()


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        header,
        packing,
        message,
        payload,
        certificate,
        statement,
        fragments,
        handshake,
        question,
        datagram,
        from_peer,
        framing,
    )
}


def samples(name: str) -> list[bytes]:
    """Where a search begins: golden vectors, and what earlier searches found."""
    kept = Path(__file__).parent / "corpus" / f"{name}.hex"  # one input per line
    lines = kept.read_text(encoding="ascii").splitlines() if kept.is_file() else []
    found = [bytes.fromhex(line) for line in lines]
    return golden().get(name, []) + found


@cache
def golden() -> dict[str, list[bytes]]:
    """Valid input per target."""

    def load(name: str) -> Any:
        return json.loads((VECTORS / name).read_text(encoding="utf-8"))

    def h(text: str) -> bytes:
        return bytes.fromhex(text)

    messages = [h(v["bytes"]) for v in load("messages.json")]
    shakes, signed, made = load("handshake.json"), load("signed.json"), load("certificates.json")
    frames = [h(v["datagram"]) for v in load("frames.json")]
    cookies = [h(v["datagram"]) for v in load("flood.json")["sources"]]
    dns = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\4desk\4home\4test\0\0\x1c\0\1"
    piece = HEADER.pack(1, 1, 0, 7)[1:] + bytes(512), HEADER.pack(1, 0, 64, 7)[1:] + b"end"
    return {
        "header": frames,
        "packing": messages,
        "message": messages[2:],
        "payload": [len(m).to_bytes(2, "big") + m + bytes(9) for m in messages[:2]],
        "certificate": [h(v["der"]) for v in made["leaves"]] + [h(made["ca"])],
        "statement": [h(signed["record"]["record"]), h(signed["grant"]["grant"])],
        "fragments": [b"".join(len(p).to_bytes(2, "big") + p for p in piece)],
        "handshake": [h(v[m]) for v in shakes for m in ("message1", "message2")],
        "question": [dns],
        "datagram": frames
        + cookies
        + [h(v[m]) for v in shakes for m in ("initiation", "response")],
        "from_peer": messages[2:] + [b"\1" + p for p in piece],
    }
