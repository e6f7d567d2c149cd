"""The two AEADs as bare functions that seal and open from one buffer straight into another.

Imported from ``cryptography`` directly, not through :mod:`ntmd.proto.crypto`: a wrapper costs a
tenth of the time of a small packet, and the hashes that come with that module cost the plane's
process 4 MiB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ntmd.proto.types import Suite

__all__ = ["Into", "InvalidTag", "functions"]

# (nonce of 12 bytes, input, None, output of exactly the right size)
Into = Callable[[Any, Any, None, Any], Any]


def functions(suite: Suite, key: bytes) -> tuple[Into, Into]:
    """``(seal into, open into)`` of a key of 32 bytes; opening raises ``InvalidTag``.

    Where ``cryptography`` is older than 47 both fall back to a copy.
    """
    cipher: Any = AESGCM(key) if suite == Suite.AES_GCM else ChaCha20Poly1305(key)
    if hasattr(cipher, "encrypt_into"):
        return cipher.encrypt_into, cipher.decrypt_into

    def seal(nonce: Any, data: Any, aad: None, out: Any) -> None:
        out[:] = cipher.encrypt(bytes(nonce), bytes(data), aad)

    def open_(nonce: Any, data: Any, aad: None, out: Any) -> None:
        out[:] = cipher.decrypt(bytes(nonce), bytes(data), aad)

    return seal, open_
