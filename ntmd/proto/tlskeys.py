"""P-256 keys of TLS certificates (rule S12), and the proof that one holds the private half.

A key is kept and handed around as PKCS #8 (private) and SubjectPublicKeyInfo (public), both DER.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TLS_PROOF = b"ntm pop tls 1"  # label of what a P-256 key signs to prove its possession
_ECDSA = ec.ECDSA(hashes.SHA256())


def _private(pkcs8: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_der_private_key(pkcs8, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError("not a P-256 key")
    return key


def public_of(pkcs8: bytes) -> bytes:
    """The public half; ValueError if this is no P-256 key."""
    public = _private(pkcs8).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def prove(pkcs8: bytes, nonce: bytes, name: str, digest: bytes) -> bytes:
    """The signature that proves possession to whoever drew ``nonce``."""
    return _private(pkcs8).sign(TLS_PROOF + nonce + name.encode() + b"\0" + digest, _ECDSA)


def proven(spki: bytes, proof: bytes, nonce: bytes, name: str, digest: bytes) -> bool:
    """Whether the proof holds; False for anything that is no P-256 key or no signature."""
    try:
        public = serialization.load_der_public_key(spki)
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
            return False
        public.verify(proof, TLS_PROOF + nonce + name.encode() + b"\0" + digest, _ECDSA)
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
