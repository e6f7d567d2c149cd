"""Noise against the published vectors, and the session keys and macs built on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ntmd.proto import noise
from ntmd.proto.crypto import Aead, PrivateKey, public_key
from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Role, Suite

VECTORS = Path(__file__).parents[2] / "vectors"
CACOPHONY = json.loads((VECTORS / "noise_cacophony.json").read_text())["vectors"]


def suite_of(name: str) -> Suite:
    return Suite.AES_GCM if "AESGCM" in name else Suite.CHACHA


@pytest.mark.parametrize("vector", CACOPHONY, ids=lambda v: v["protocol_name"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    suite = suite_of(vector["protocol_name"])
    get = lambda key: bytes.fromhex(vector[key])  # noqa: E731
    psk = bytes.fromhex(vector["init_psks"][0])
    caller = noise.Initiator(
        suite,
        get("init_prologue"),
        PrivateKey(get("init_static")),
        get("init_remote_static"),
        get("init_ephemeral"),
    )
    called = noise.Responder(suite, get("resp_prologue"), PrivateKey(get("resp_static")))
    first, second, *rest = vector["messages"]
    message1 = caller.write_message1(bytes.fromhex(first["payload"]))
    assert message1.hex() == first["ciphertext"]
    static, payload = called.read_message1(message1)
    assert static == public_key(get("init_static"))
    assert payload.hex() == first["payload"]
    message2, theirs = called.write_message2(
        bytes.fromhex(second["payload"]), psk, get("resp_ephemeral")
    )
    assert message2.hex() == second["ciphertext"]
    payload2, ours = caller.read_message2(message2, psk)
    assert payload2.hex() == second["payload"]
    assert ours == theirs
    assert ours.binding.hex() == vector["handshake_hash"]
    order = "big" if suite == Suite.AES_GCM else "little"
    for number, message in enumerate(rest):
        key = ours.split[number % 2]
        nonce = bytes(4) + (number // 2).to_bytes(8, order)  # type: ignore[arg-type]
        sealed = Aead(suite, key).seal(nonce, bytes.fromhex(message["payload"]))
        assert sealed.hex() == message["ciphertext"]


def pair(suite: Suite = Suite.CHACHA, name: str = "desk.home.test") -> tuple[Any, Any]:
    a, b = bytes([1] * 32), bytes([2] * 32)
    line = noise.prologue(suite, bytes(32), Role.NODE, "desk.home.test")
    other = noise.prologue(suite, bytes(32), Role.NODE, name)
    return (
        noise.Initiator(suite, line, PrivateKey(a), public_key(b), bytes([3] * 32)),
        noise.Responder(suite, other, PrivateKey(b)),
    )


def test_wrong_name_fails_in_noise_itself() -> None:
    caller, called = pair(name="other.home.test")
    with pytest.raises(ProtocolError):
        called.read_message1(caller.write_message1(b"x"))


def test_failed_message2_leaves_the_initiator_unchanged() -> None:
    caller, called = pair()
    called.read_message1(caller.write_message1(b"hello"))
    message2, theirs = called.write_message2(b"ok", bytes([9] * 32), bytes([4] * 32))
    with pytest.raises(ProtocolError):
        caller.read_message2(message2, noise.NO_PSK)
    with pytest.raises(ProtocolError):
        caller.read_message2(message2[:-1] + b"\0", bytes([9] * 32))
    assert caller.read_message2(message2, bytes([9] * 32)) == (b"ok", theirs)


def test_the_five_keys_differ() -> None:
    caller, called = pair()
    called.read_message1(caller.write_message1(b""))
    _, secrets = called.write_message2(b"", noise.NO_PSK, bytes([4] * 32))
    keys = {secrets.data_i, secrets.data_r, secrets.ctl_i, secrets.ctl_r, secrets.resume}
    assert len(keys | set(secrets.split)) == 7


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_low_order_points_abort(point: bytes) -> None:
    _, called = pair()
    with pytest.raises(ProtocolError, match="zero_dh"):
        called.read_static(point + bytes(80))


def test_mac1_ignores_the_index_and_nothing_else() -> None:
    key = noise.mac1_key(bytes(32))
    body = bytes(range(64))
    datagram = body + noise.mac1(key, body) + bytes(16)
    assert noise.check_mac1(key, datagram)
    assert noise.check_mac1(key, datagram[:4] + b"abcd" + datagram[8:])
    assert not noise.check_mac1(key, datagram[:8] + b"x" + datagram[9:])
    assert not noise.check_mac1(key, b"short")


def test_cookie_round_trip_needs_the_trigger() -> None:
    public = public_key(bytes([7] * 32))
    cookie = noise.make_cookie(bytes(32), b"\x0a\0\0\1\0\1", 5)
    sealed = noise.seal_cookie(bytes(16), public, cookie, bytes([1] * 16), bytes(16))
    assert len(sealed) == noise.COOKIE_SIZE
    assert noise.open_cookie(sealed, public, bytes([1] * 16)) == cookie
    with pytest.raises(ProtocolError):
        noise.open_cookie(sealed, public, bytes([2] * 16))


def test_secrets_do_not_print_themselves() -> None:
    caller, called = pair()
    called.read_message1(caller.write_message1(b""))
    _, secrets = called.write_message2(b"", noise.NO_PSK, bytes([4] * 32))
    shown = repr(secrets)
    for key in (secrets.data_i, secrets.ctl_r, secrets.resume, *secrets.split):
        assert repr(key) not in shown


@pytest.mark.parametrize("suite", list(Suite))
def test_a_changed_message_fails_wherever_it_was_changed(suite: Suite) -> None:
    caller, called = pair(suite)
    message1 = caller.write_message1(b"hello")
    for at in range(len(message1)):
        bent = message1[:at] + bytes((message1[at] ^ 1,)) + message1[at + 1 :]
        with pytest.raises(ProtocolError):
            pair(suite)[1].read_message1(bent)
    called.read_message1(message1)
    message2, _ = called.write_message2(b"ok", noise.NO_PSK, bytes([4] * 32))
    for at in range(len(message2)):
        bent = message2[:at] + bytes((message2[at] ^ 1,)) + message2[at + 1 :]
        with pytest.raises(ProtocolError):
            caller.read_message2(bent)
    assert caller.read_message2(message2)[0] == b"ok"


@pytest.mark.parametrize("size", [0, 31, 32, 47, 48, 95])
def test_short_messages(size: int) -> None:
    caller, called = pair()
    caller.write_message1(b"")
    with pytest.raises(ProtocolError):
        called.read_message1(bytes(size))
    with pytest.raises(ProtocolError):
        caller.read_message2(bytes(min(size, 47)))
