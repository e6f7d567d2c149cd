"""The golden vectors: bytes that an independent program made from the text of the rules."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from ntmd.proto import certs, codec, crypto, frame, messages, msgpack, noise, records
from ntmd.proto.context import Context, Sequencer
from ntmd.proto.crypto import Aead
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Identity, OpenPolicy
from ntmd.proto.messages import AnswerPayload, CallPayload, Message
from ntmd.proto.types import Endpoint, Role, Suite

VECTORS = Path(__file__).parents[2] / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def h(text: str) -> bytes:
    return bytes.fromhex(text)


# ------------------------------------------------------------------ handshake, frames, flood


@pytest.mark.parametrize("vector", load("handshake.json"))
def test_handshake_and_key_schedule(vector: dict[str, str]) -> None:
    v = {name: h(value) for name, value in vector.items() if name != "suite"}
    suite = Suite(int(vector["suite"]))
    platform = v["prologue"][6:38]
    assert noise.prologue(suite, platform, Role.NODE, "desk.home.test") == v["prologue"]
    caller = noise.Initiator(
        suite,
        v["prologue"],
        crypto.PrivateKey(v["initiator_static"]),
        crypto.public_key(v["responder_static"]),
        v["initiator_ephemeral"],
    )
    called = noise.Responder(suite, v["prologue"], crypto.PrivateKey(v["responder_static"]))
    message1 = caller.write_message1(v["payload1"])
    assert message1 == v["message1"]
    static, payload1 = called.read_message1(message1)
    assert (static, payload1) == (crypto.public_key(v["initiator_static"]), v["payload1"])
    message2, theirs = called.write_message2(v["payload2"], v["psk"], v["responder_ephemeral"])
    assert message2 == v["message2"]
    payload2, ours = caller.read_message2(message2, v["psk"])
    assert payload2 == v["payload2"]
    assert ours == theirs
    assert ours.binding == v["hash"]
    for name in ("data_i", "data_r", "ctl_i", "ctl_r", "resume"):
        assert getattr(ours, name) == v[name]


@pytest.mark.parametrize("vector", load("handshake.json"))
def test_handshake_datagrams(vector: dict[str, str]) -> None:
    suite = int(vector["suite"])
    first, second = h(vector["initiation"]), h(vector["response"])
    for data, kind, index, sender, message, receiver in (
        (first, frame.Kind.INITIATION, 0, 0xA1A2A3A4, "message1", "responder_static"),
        (second, frame.Kind.RESPONSE, 0xA1A2A3A4, 0xB1B2B3B4, "message2", "initiator_static"),
    ):
        header = frame.parse_header(data)
        assert (header.kind, header.slot, header.suite) == (kind, frame.WIRE_VERSION, suite)
        assert (header.index, header.counter) == (index, sender << 32)
        assert data[16:-32] == h(vector[message])
        key = noise.mac1_key(crypto.public_key(h(vector[receiver])))
        assert noise.check_mac1(key, data)
        assert noise.check_mac1(key, frame.with_index(data, 99))
    assert frame.parse_header(second).choice == (vector["psk"] != "00" * 32)


@pytest.mark.parametrize("vector", load("frames.json"))
@pytest.mark.parametrize("hide", [False, True])
def test_sealed_frames(vector: dict[str, Any], hide: bool) -> None:
    v = vector
    header = frame.pack_header(v["kind"], v["slot"], v["flags"], 0, v["index"], v["counter"])
    aead = Aead(Suite(v["suite"]), h(v["key"]))
    if hide:
        aead._into = aead._open_into = None
    assert frame.nonce_of(header) == h(v["nonce"])
    plain, datagram = h(v["plaintext"]), h(v["datagram"])
    out = bytearray(len(plain) + frame.TAG_SIZE)
    assert aead.seal_into(h(v["nonce"]), plain, memoryview(out)) == len(out)
    assert header + bytes(out) == datagram == header + aead.seal(h(v["nonce"]), plain)
    relayed = frame.with_index(datagram, 0)  # a relay may write any index
    assert aead.open(frame.nonce_of(relayed), relayed[16:]) == plain
    bent = datagram[:2] + bytes((datagram[2] ^ 1,)) + datagram[3:]
    with pytest.raises(ProtocolError, match="bad_tag"):
        aead.open(frame.nonce_of(bent), bent[16:])


def test_macs_and_cookies() -> None:
    v = load("flood.json")
    public, body = h(v["responder_public"]), h(v["body"])
    first = noise.mac1(noise.mac1_key(public), body)
    assert first == h(v["mac1"])
    for source in v["sources"]:
        packed = Endpoint(source["host"], source["port"]).pack()
        cookie = noise.make_cookie(h(v["secret"]), packed, source["index"])
        assert cookie == h(source["cookie"])
        datagram = h(source["datagram"])
        assert len(datagram) == noise.COOKIE_SIZE
        assert (
            noise.seal_cookie(datagram[:16], public, cookie, first, h(source["salt"])) == datagram
        )
        assert noise.open_cookie(datagram, public, first) == cookie
        assert noise.mac2(cookie, body + first) == h(source["mac2"])
        assert noise.check_mac2(cookie, body + first + h(source["mac2"]))


def test_reset_token() -> None:
    v = load("reset.json")
    made = load("certificates.json")
    platform = h(made["platform_id"])
    trust = certs.Trust((certs.Anchor(platform, (certs.ca_key_of(h(made["ca"])),)),))
    identity = Identity(
        Role.NODE, "desk.home.test", h(v["static"]), (h(made["leaves"][0]["der"]),), b"", 0
    )
    context = Context(
        identity, trust, OpenPolicy((Role.NODE,)), bytes, int, Sequencer(0, lambda _: None)
    )
    assert context.reset_token(v["index"]) == h(v["token"])


# ------------------------------------------------------------------ signed statements


def test_record() -> None:
    v = load("signed.json")["record"]
    made = records.sign_record(
        h(v["sign_private"]),
        h(v["platform_id"]),
        v["name"],
        address=h(v["address"]),
        node_key=h(v["node_key"]),
        capabilities=v["capabilities"],
        issued_ms=v["issued_ms"],
        expires_ms=v["expires_ms"],
    )
    assert made == h(v["record"])


def test_grant() -> None:
    v = load("signed.json")["grant"]
    made = records.sign_grant(
        h(v["sign_private"]),
        h(v["platform_id"]),
        rs_key_hash=h(v["rs_key_hash"]),
        grant_id=h(v["grant_id"]),
        node_a_hash=h(v["node_a_hash"]),
        node_b_hash=h(v["node_b_hash"]),
        issued_ms=v["issued_ms"],
        expires_ms=v["expires_ms"],
        kbit_s=v["kbit_s"],
        legs=v["legs"],
    )
    assert made == h(v["grant"])


def test_possession() -> None:
    v = load("signed.json")["possession"]
    server = crypto.public_key(h(v["server_private"]))
    rest = (h(v["nonce"]), v["name"], h(v["request_hash"]))
    assert certs.pop_proof(h(v["node_private"]), server, *rest) == h(v["proof"])
    node = crypto.public_key(h(v["node_private"]))
    assert certs.pop_check(h(v["server_private"]), node, *rest, h(v["proof"]))


def test_certificates() -> None:
    v = load("certificates.json")
    private, platform = h(v["ca_private"]), h(v["platform_id"])
    times = {name: v[name] for name in ("not_before_ms", "not_after_ms")}
    serial = h(v["serial"])
    ca = certs.make_ca(private, v["not_before_ms"], v["not_after_ms"], serial)
    assert ca == h(v["ca"])
    assert certs.platform_id_of(h(v["ca"])) == platform
    trust = certs.Trust((certs.Anchor(platform, (certs.ca_key_of(h(v["ca"])),)),))
    for item in v["leaves"]:
        role, prefix = Role(item["role"]), None
        if item["prefix"]:
            prefix = ipaddress.IPv6Network((h(item["prefix"]) + bytes(8), 64))
        made = certs.issue(
            private,
            platform,
            public_key=h(item["key"]),
            role=role,
            name=item["name"],
            domain_labels=item["labels"],
            prefix=prefix,
            serial=serial,
            **times,
        )
        assert made == h(item["der"])
        leaf = certs.parse_leaf(made)
        assert (leaf.role, leaf.name, leaf.prefix) == (role, item["name"], prefix)
        assert leaf.key == h(item["key"])
        certs.check_leaf(leaf, trust, role=role, name=leaf.name, now_ms=times["not_before_ms"])
    tls = v["tls"]
    _, spki = certs.tls_key(h(tls["secret"]))
    made = certs.issue_tls(
        private,
        platform,
        spki=spki,
        names=tls["names"],
        addresses=tls["addresses"],
        serial=serial,
        **times,
    )
    assert made == h(tls["der"])


# ------------------------------------------------------------------ messages

MESSAGES = load("messages.json")


def as_json(value: Any) -> Any:
    if isinstance(value, Endpoint):
        value = value.pack()
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, tuple):
        return [as_json(each) for each in value]
    if is_dataclass(value):
        return [as_json(getattr(value, each.name)) for each in fields(value)]
    return value


@pytest.mark.parametrize("provider", ["msgspec", "plain"])
@pytest.mark.parametrize("vector", MESSAGES, ids=lambda v: v["name"])
def test_message(vector: dict[str, Any], provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if provider == "plain":
        monkeypatch.setattr(msgpack, "msgspec", None)
    else:
        assert vars(msgpack)["msgspec"] is not None
    data, cls = h(vector["bytes"]), getattr(messages, vector["name"])
    assert cls.tag == vector["tag"]
    if cls in (CallPayload, AnswerPayload):
        sized = len(data).to_bytes(2, "big") + data
        payload = codec.decode_payload(sized + bytes(20), cls)
        assert as_json(payload) == vector["fields"]
        assert codec.encode_payload(payload) == sized
    else:
        message = codec.decode(data)
        assert type(message) is cls
        assert as_json(message) == vector["fields"]
        assert codec.encode(message) == data


def test_every_message_has_a_vector() -> None:
    names = {cls.__name__ for cls in (*get_args(Message), CallPayload, AnswerPayload)}
    assert names == {vector["name"] for vector in MESSAGES}
