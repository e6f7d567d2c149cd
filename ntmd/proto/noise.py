"""Noise_IKpsk2_25519 with AESGCM or ChaChaPoly and SHA256 (The Noise Protocol Framework, rev. 34).

    <- s
    ...
    -> e, es, s, ss
    <- e, ee, se, psk

On top of it: the session's five keys from the final chaining key (rule C1), the prologue (N6), and
the two macs and the cookie of handshake datagrams (C11).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ntmd.proto.crypto import Aead, PrivateKey, equal, hkdf, hmac256, sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.frame import HEADER_SIZE, INDEX, WIRE_VERSION
from ntmd.proto.types import Role, Suite

NAMES = {
    Suite.AES_GCM: b"Noise_IKpsk2_25519_AESGCM_SHA256",
    Suite.CHACHA: b"Noise_IKpsk2_25519_ChaChaPoly_SHA256",
}
KEY = 32
TAG = 16
MESSAGE1_OVERHEAD = KEY + KEY + TAG + TAG
MESSAGE2_OVERHEAD = KEY + TAG
MAC = 16
COOKIE_SIZE = 64
NO_PSK = bytes(32)


@dataclass(frozen=True, slots=True)
class SessionSecrets:
    """What a finished handshake gives: keys by direction (i: initiator's), resumption, binding."""

    data_i: bytes = field(repr=False)
    data_r: bytes = field(repr=False)
    ctl_i: bytes = field(repr=False)
    ctl_r: bytes = field(repr=False)
    resume: bytes = field(repr=False)
    binding: bytes  # the handshake hash
    split: tuple[bytes, bytes] = field(repr=False)  # Noise's own keys; only test vectors use them


def prologue(suite: Suite, platform_id: bytes, role: Role, name: str) -> bytes:
    """``ntm1`` ‖ version ‖ suite ‖ platform id ‖ responder's role ‖ responder's FQDN (rule N6)."""
    return b"ntm1" + bytes([WIRE_VERSION, suite]) + platform_id + bytes([role]) + name.encode()


class _Symmetric:
    """CipherState and SymmetricState of the Noise specification, copied before it is tried."""

    def __init__(self, suite: Suite, handshake_prologue: bytes) -> None:
        name = NAMES[suite]
        self.suite = suite
        self.hash = name.ljust(32, b"\0") if len(name) <= 32 else sha256(name)
        self.chain = self.hash
        self.aead: Aead | None = None
        self.counter = 0
        self.mix_hash(handshake_prologue)

    def copy(self) -> _Symmetric:
        other = object.__new__(_Symmetric)
        other.__dict__.update(self.__dict__)
        return other

    def mix_hash(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data)

    def _expand(self, material: bytes, count: int) -> list[bytes]:
        temporary = hmac256(self.chain, material)
        outputs, last = [], b""
        for number in range(1, count + 1):
            last = hmac256(temporary, last + bytes([number]))
            outputs.append(last)
        return outputs

    def mix_key(self, material: bytes) -> None:
        self.chain, key = self._expand(material, 2)
        self.aead, self.counter = Aead(self.suite, key), 0

    def mix_key_and_hash(self, material: bytes) -> None:
        self.chain, extra, key = self._expand(material, 3)
        self.mix_hash(extra)
        self.aead, self.counter = Aead(self.suite, key), 0

    def _nonce(self) -> bytes:
        order = "big" if self.suite == Suite.AES_GCM else "little"
        nonce = bytes(4) + self.counter.to_bytes(8, order)  # type: ignore[arg-type]
        self.counter += 1
        return nonce

    def encrypt(self, plaintext: bytes) -> bytes:
        assert self.aead is not None
        sealed = self.aead.seal(self._nonce(), plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        assert self.aead is not None
        opened = self.aead.open(self._nonce(), sealed, self.hash)
        self.mix_hash(sealed)
        return opened

    def secrets(self) -> SessionSecrets:
        first, second = self._expand(b"", 2)
        labels = (b"ntm data i", b"ntm data r", b"ntm ctl i", b"ntm ctl r", b"ntm resume")
        keys = [hkdf(self.chain, b"", label) for label in labels]
        data_i, data_r, ctl_i, ctl_r, resume = keys
        return SessionSecrets(data_i, data_r, ctl_i, ctl_r, resume, self.hash, (first, second))


class Initiator:
    """The side that sends message 1. Never change ``ephemeral_private`` after a message left."""

    def __init__(
        self,
        suite: Suite,
        handshake_prologue: bytes,
        static: PrivateKey,
        remote_static: bytes,
        ephemeral_private: bytes,
    ) -> None:
        self._state = _Symmetric(suite, handshake_prologue)
        self._static = static
        self._remote = remote_static
        self._ephemeral = PrivateKey(ephemeral_private)
        self._state.mix_hash(remote_static)

    def write_message1(self, payload: bytes) -> bytes:
        """e ‖ sealed static key ‖ sealed payload."""
        state, ephemeral = self._state, self._ephemeral.public
        state.mix_hash(ephemeral)
        # IKpsk2 is a psk handshake: the ephemeral key is mixed into the chaining key too.
        state.mix_key(ephemeral)
        state.mix_key(self._ephemeral.exchange(self._remote))
        static = state.encrypt(self._static.public)
        state.mix_key(self._static.exchange(self._remote))
        return ephemeral + static + state.encrypt(payload)

    def read_message2(self, message: bytes, psk: bytes = NO_PSK) -> tuple[bytes, SessionSecrets]:
        """Payload and session keys; on failure the object is as before, so that another psk or
        another copy may be tried."""
        if len(message) < MESSAGE2_OVERHEAD:
            raise ProtocolError("truncated")
        state, ephemeral = self._state.copy(), message[:KEY]
        state.mix_hash(ephemeral)
        state.mix_key(ephemeral)
        state.mix_key(self._ephemeral.exchange(ephemeral))
        state.mix_key(self._static.exchange(ephemeral))
        state.mix_key_and_hash(psk)
        payload = state.decrypt(message[KEY:])
        return payload, state.secrets()


class Responder:
    """The side that answers. Two steps of reading let limits apply before the payload is opened."""

    def __init__(self, suite: Suite, handshake_prologue: bytes, static: PrivateKey) -> None:
        self._state = _Symmetric(suite, handshake_prologue)
        self._static = static
        self._state.mix_hash(static.public)
        self._remote = b""
        self._remote_ephemeral = b""

    def read_static(self, message: bytes) -> bytes:
        """First step, one DH: the caller's static key (authentic only after the second step)."""
        if len(message) < MESSAGE1_OVERHEAD:
            raise ProtocolError("truncated")
        state, ephemeral = self._state, message[:KEY]
        state.mix_hash(ephemeral)
        state.mix_key(ephemeral)
        state.mix_key(self._static.exchange(ephemeral))
        self._remote = state.decrypt(message[KEY : KEY + KEY + TAG])
        self._remote_ephemeral = ephemeral
        return self._remote

    def read_payload(self, message: bytes) -> bytes:
        """Second step, one more DH: the payload; the static key is authentic from here on."""
        self._state.mix_key(self._static.exchange(self._remote))
        return self._state.decrypt(message[KEY + KEY + TAG :])

    def read_message1(self, message: bytes) -> tuple[bytes, bytes]:
        """Both steps: the caller's static key and the payload."""
        return self.read_static(message), self.read_payload(message)

    def write_message2(
        self, payload: bytes, psk: bytes, ephemeral_private: bytes
    ) -> tuple[bytes, SessionSecrets]:
        """e ‖ sealed payload, and the session keys."""
        state, own = self._state, PrivateKey(ephemeral_private)
        state.mix_hash(own.public)
        state.mix_key(own.public)
        state.mix_key(own.exchange(self._remote_ephemeral))
        state.mix_key(own.exchange(self._remote))
        state.mix_key_and_hash(psk)
        message = own.public + state.encrypt(payload)
        return message, state.secrets()


# ------------------------------------------------------------------ macs and cookie (C11)


def mac1_key(receiver_public: bytes) -> bytes:
    """Key of mac1 for a receiver: whoever knows the public key can make it."""
    return sha256(b"ntm mac1" + receiver_public)


def mac1(key: bytes, datagram: bytes) -> bytes:
    """mac1 (16 bytes) over the datagram before the macs, its index taken as zero."""
    return hmac256(key, _zero_index(datagram))[:MAC]


def mac2(cookie: bytes, datagram_with_mac1: bytes) -> bytes:
    """mac2 (16 bytes) keyed by the cookie, over everything before it, index taken as zero."""
    return hmac256(cookie, _zero_index(datagram_with_mac1))[:MAC]


def check_mac1(key: bytes, datagram: bytes) -> bool:
    """Whether a whole handshake datagram ends in the right mac1 (mac2 is not looked at)."""
    if len(datagram) < HEADER_SIZE + 2 * MAC:
        return False
    return equal(mac1(key, datagram[: -2 * MAC]), datagram[-2 * MAC : -MAC])


def check_mac2(cookie: bytes, datagram: bytes) -> bool:
    """Whether a whole handshake datagram ends in the mac2 that ``cookie`` gives."""
    return equal(mac2(cookie, datagram[:-MAC]), datagram[-MAC:])


def make_cookie(secret: bytes, source: bytes, delivery_index: int) -> bytes:
    """The stateless cookie (16 bytes) of a source (packed endpoint) and delivery index."""
    return hmac256(secret, source + delivery_index.to_bytes(4, "big"))[:MAC]


def seal_cookie(
    header: bytes, receiver_public: bytes, cookie: bytes, trigger_mac1: bytes, salt: bytes
) -> bytes:
    """Cookie datagram: header 16 ‖ salt 16 ‖ sealed cookie 32 = 64 bytes."""
    aead = Aead(Suite.CHACHA, hkdf(receiver_public, salt, b"ntm cookie"))
    return header + salt + aead.seal(bytes(12), cookie, trigger_mac1)


def open_cookie(datagram: bytes, receiver_public: bytes, trigger_mac1: bytes) -> bytes:
    """The cookie out of a cookie datagram; only who saw the trigger can have made it."""
    if len(datagram) != COOKIE_SIZE:
        raise ProtocolError("truncated")
    salt = datagram[HEADER_SIZE : HEADER_SIZE + 16]
    aead = Aead(Suite.CHACHA, hkdf(receiver_public, salt, b"ntm cookie"))
    return aead.open(bytes(12), datagram[HEADER_SIZE + 16 :], trigger_mac1)


def _zero_index(datagram: bytes) -> bytes:
    return datagram[: INDEX.start] + bytes(4) + datagram[INDEX.stop :]
