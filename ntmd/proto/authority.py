"""The CA's own certificate and those that ordinary TLS programs check (rule S12).

Built with ``cryptography.x509``, for OpenSSL, Java and Python to accept: the CA has a
self-signed Ed25519 certificate, a TLS leaf has a P-256 key and is used for nothing else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ntmd.proto.crypto import sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.profile import ROLE_ARC, key_info, to_datetime
from ntmd.proto.types import Role

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NO_USAGE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


def _key_info(key: Ed25519PublicKey | ec.EllipticCurvePublicKey) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(encoding, form)


def _name(platform_id: bytes) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, platform_id.hex()[:16])])


def _serial(serial: bytes) -> int:
    """A positive number of as many bytes, as RFC 5280 wants it."""
    first = serial[0] if 0 < serial[0] < 0x80 else serial[0] & 0x3F | 0x40
    return int.from_bytes(bytes((first,)) + serial[1:], "big")


def _key_id(ca_public: Ed25519PublicKey) -> bytes:
    return sha256(ca_public.public_bytes_raw())[:20]


def make_ca(ca_private: bytes, not_before_ms: int, not_after_ms: int, serial: bytes) -> bytes:
    """Self-signed CA certificate (DER) of an Ed25519 key; its CN is the platform id's first 16 hex.

    ``serial``: 16 random bytes.
    """
    key = Ed25519PrivateKey.from_private_bytes(ca_private)
    public = key.public_key()
    name = _name(sha256(_key_info(public)))
    usage = x509.KeyUsage(**{**_NO_USAGE, "key_cert_sign": True, "crl_sign": True})
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(_serial(serial))
        .not_valid_before(to_datetime(not_before_ms))
        .not_valid_after(to_datetime(not_after_ms))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(_key_id(public)), critical=False)
    )
    return builder.sign(key, None).public_bytes(serialization.Encoding.DER)


def ca_key_of(ca_der: bytes) -> bytes:
    """Ed25519 key (32 bytes) of a CA certificate; ProtocolError ``certificate`` if it is none."""
    try:
        certificate = x509.load_der_x509_certificate(ca_der)
        public = certificate.public_key()
        limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
    except Exception as error:  # the parser's own exceptions are many, and differ by version
        raise ProtocolError("certificate", "not a CA") from error
    if not isinstance(public, Ed25519PublicKey) or not limits.ca:
        raise ProtocolError("certificate", "not a CA")
    return public.public_bytes_raw()


def platform_id_of(ca_der: bytes) -> bytes:
    """Platform id: SHA-256 of the CA's SubjectPublicKeyInfo (rule S9).

    ProtocolError ``certificate`` if it is no self-signed Ed25519 CA.
    """
    return sha256(key_info(True, ca_key_of(ca_der)))


def tls_key(secret: bytes) -> tuple[bytes, bytes]:
    """A P-256 key made from 40 random bytes: PEM (PKCS 8) and SubjectPublicKeyInfo (DER).

    The 64 bits more than the order's make the bias of the reduction negligible (FIPS 186-5, A.2.1).
    """
    if len(secret) < 40:
        raise ValueError("40 random bytes are needed")
    scalar = int.from_bytes(secret, "big") % (P256_ORDER - 1) + 1
    key = ec.derive_private_key(scalar, ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, _key_info(key.public_key())


def issue_tls(
    ca_private: bytes,
    platform_id: bytes,
    *,
    spki: bytes,
    names: Sequence[str],
    addresses: Sequence[str],
    not_before_ms: int,
    not_after_ms: int,
    serial: bytes,
) -> bytes:
    """A server certificate (DER) for a P-256 key, good for ``names`` and IP ``addresses``.

    ValueError if the key is not on P-256 or there is neither name nor address.
    """
    public = serialization.load_der_public_key(spki)
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise ValueError("a TLS certificate has a P-256 key")
    if not (names or addresses):
        raise ValueError("a TLS certificate needs a name or an address")
    key = Ed25519PrivateKey.from_private_bytes(ca_private)
    sans: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    sans += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    role = x509.ObjectIdentifier(f"{ROLE_ARC}.{Role.TLS.value}")
    usage = x509.KeyUsage(**{**_NO_USAGE, "digital_signature": True})
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(_name(platform_id))
        .public_key(public)
        .serial_number(_serial(serial))
        .not_valid_before(to_datetime(not_before_ms))
        .not_valid_after(to_datetime(not_after_ms))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(sans), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, role]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier(_key_id(key.public_key()), None, None), critical=False
        )
    )
    return builder.sign(key, None).public_bytes(serialization.Encoding.DER)
