"""Every primitive of the protocol: X25519, Ed25519, HKDF/HMAC-SHA256 and the two AEADs.

The only module that imports them. The core of the protocol needs nothing newer than what Android's
builds of ``cryptography`` have; ``encrypt_into``/``decrypt_into`` (47 and newer) are used where
present and replaced by a copy where not.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Suite

KEY_SIZE = 32
TAG_SIZE = 16
VERIFIED = 1024
"""Verdicts kept, by all that they depend on: certificates, records and grants are shown again and
again, and a verification takes 0.1 ms. At most 1 MB (a statement has up to 560 bytes)."""


def sha256(data: bytes) -> bytes:
    """SHA-256 digest (32 bytes)."""
    return hashlib.sha256(data).digest()


def hmac256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256 (32 bytes)."""
    return hmac.digest(key, data, "sha256")


def equal(a: bytes, b: bytes) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(a, b)


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869): extract with ``salt``, expand with ``info`` to ``length`` bytes."""
    key = hmac256(salt or bytes(32), secret)
    block, out, counter = b"", b"", 1
    while len(out) < length:
        block = hmac256(key, block + info + bytes([counter]))
        out += block
        counter += 1
    return out[:length]


class PrivateKey:
    """A loaded X25519 key with its public one (32 bytes).

    Loading computes the public key and takes longer than an exchange (48 against 31 us), so what
    uses a key more than once loads it once.
    """

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytes:
        """X25519 shared secret; an all-zero result (a low-order point) is a ProtocolError."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise ProtocolError("zero_dh") from error


def public_key(private: bytes) -> bytes:
    """X25519 public key (32 bytes) of a private one."""
    return PrivateKey(private).public


def dh(private: bytes, public: bytes) -> bytes:
    """X25519 shared secret; an all-zero result (a low-order point) is a ProtocolError."""
    return PrivateKey(private).exchange(public)


def ed25519_public(private: bytes) -> bytes:
    """Ed25519 public key (32 bytes) of a private one."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def ed25519_sign(private: bytes, data: bytes) -> bytes:
    """Ed25519 signature (64 bytes)."""
    return Ed25519PrivateKey.from_private_bytes(private).sign(data)


@lru_cache(VERIFIED)
def ed25519_verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` is one of ``data`` by ``public``; False for malformed keys too."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


class Aead:
    """One key of one suite. Nonces are 12 bytes; the caller never uses one twice."""

    __slots__ = ("_cipher", "_into", "_open_into")

    def __init__(self, suite: Suite, key: bytes) -> None:
        cipher: Any = AESGCM(key) if suite == Suite.AES_GCM else ChaCha20Poly1305(key)
        self._cipher = cipher
        self._into = getattr(cipher, "encrypt_into", None)
        self._open_into = getattr(cipher, "decrypt_into", None)

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Ciphertext followed by the 16-byte tag."""
        sealed: bytes = self._cipher.encrypt(nonce, plaintext, aad or None)
        return sealed

    def open(self, nonce: bytes, ciphertext: bytes | memoryview, aad: bytes = b"") -> bytes:
        """The plaintext; ProtocolError("bad_tag") if anything was changed or is too short."""
        try:
            opened: bytes = self._cipher.decrypt(nonce, ciphertext, aad or None)
        except (InvalidTag, ValueError) as error:
            raise ProtocolError("bad_tag") from error
        return opened

    def seal_into(self, nonce: bytes, plaintext: bytes | memoryview, out: memoryview) -> int:
        """Seal straight into ``out`` (exactly plaintext + 16 bytes); returns that length."""
        if self._into is not None:
            length: int = self._into(nonce, plaintext, None, out)
            return length
        sealed = self._cipher.encrypt(nonce, bytes(plaintext), None)
        out[: len(sealed)] = sealed
        return len(sealed)

    def open_into(self, nonce: bytes, ciphertext: bytes | memoryview, out: memoryview) -> int:
        """Open straight into ``out`` (exactly ciphertext - 16 bytes); ProtocolError("bad_tag")."""
        try:
            if self._open_into is not None:
                length: int = self._open_into(nonce, ciphertext, None, out)
                return length
            opened = self._cipher.decrypt(nonce, bytes(ciphertext), None)
        except (InvalidTag, ValueError) as error:
            raise ProtocolError("bad_tag") from error
        out[: len(opened)] = opened
        return len(opened)
