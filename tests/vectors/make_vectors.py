"""Makes the golden vectors: the protocol written a second time, from the text of its rules.

Uses hashlib, hmac, struct and the primitives of ``cryptography`` only, and never the code that the
vectors test. Run once: ``python tests/vectors/make_vectors.py``; the tests read the JSON only. A
difference between the two is a defect in one of them, never a reason to run this again.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import json
import struct
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = Path(__file__).parent
PLATFORM = hashlib.sha256(b"golden platform").digest()


def key(label: str) -> bytes:
    return hashlib.sha256(b"golden " + label.encode()).digest()


def mac(secret: bytes, data: bytes) -> bytes:
    return hmac.new(secret, data, hashlib.sha256).digest()


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return mac(mac(salt or bytes(32), secret), info + b"\1")


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, other: bytes) -> bytes:
    ours = X25519PrivateKey.from_private_bytes(private)
    return ours.exchange(X25519PublicKey.from_public_bytes(other))


def cipher(suite: int, secret: bytes) -> AESGCM | ChaCha20Poly1305:
    return AESGCM(secret) if suite == 1 else ChaCha20Poly1305(secret)


# ------------------------------------------------------------------ handshake


def chain_keys(chaining: bytes, material: bytes, count: int) -> list[bytes]:
    """HKDF of the Noise specification, section 4.3."""
    temporary = mac(chaining, material)
    outputs = [b""]
    for number in range(1, count + 1):
        outputs.append(mac(temporary, outputs[-1] + bytes((number,))))
    return outputs[1:]


def handshake(suite: int, psk: bytes) -> dict[str, str]:
    """One IKpsk2 handshake written straight down, both ends at once."""
    name = f"Noise_IKpsk2_25519_{'AESGCM' if suite == 1 else 'ChaChaPoly'}_SHA256".encode()
    fqdn = b"desk.home.test"
    prologue = b"ntm1" + bytes((1, suite)) + PLATFORM + b"\1" + fqdn
    i_static, r_static = key("initiator static"), key("responder static")
    i_ephemeral, r_ephemeral = key("initiator ephemeral"), key("responder ephemeral")
    payload1, payload2 = b"payload of the initiation", b"payload of the response"
    state = {"h": name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()}
    state["ck"], state["k"], counter = state["h"], b"", 0

    def mix_hash(data: bytes) -> None:
        state["h"] = hashlib.sha256(state["h"] + data).digest()

    def mix_key(material: bytes) -> None:
        nonlocal counter
        state["ck"], state["k"] = chain_keys(state["ck"], material, 2)
        counter = 0

    def seal(plain: bytes) -> bytes:
        nonlocal counter
        nonce = bytes(4) + struct.pack(">Q" if suite == 1 else "<Q", counter)
        counter += 1
        sealed = cipher(suite, state["k"]).encrypt(nonce, plain, state["h"])
        mix_hash(sealed)
        return sealed

    mix_hash(prologue)
    mix_hash(public(r_static))
    mix_hash(public(i_ephemeral))
    mix_key(public(i_ephemeral))
    mix_key(dh(i_ephemeral, public(r_static)))
    message1 = public(i_ephemeral) + seal(public(i_static))
    mix_key(dh(i_static, public(r_static)))
    message1 += seal(payload1)
    mix_hash(public(r_ephemeral))
    mix_key(public(r_ephemeral))
    mix_key(dh(r_ephemeral, public(i_ephemeral)))
    mix_key(dh(r_ephemeral, public(i_static)))
    state["ck"], mixed, state["k"] = chain_keys(state["ck"], psk, 3)
    mix_hash(mixed)
    counter = 0
    message2 = public(r_ephemeral) + seal(payload2)
    labels = {"data_i": "data i", "data_r": "data r", "ctl_i": "ctl i", "ctl_r": "ctl r"}
    labels["resume"] = "resume"
    keys = {k: hkdf(state["ck"], b"", b"ntm " + v.encode()).hex() for k, v in labels.items()}
    first = struct.pack(">BBBBIII", 5, 1, suite, 0, 0, 0xA1A2A3A4, 0) + message1
    choice = 0 if psk == bytes(32) else 1
    second = struct.pack(">BBBBIII", 6, 1, suite, choice, 0xA1A2A3A4, 0xB1B2B3B4, 0) + message2
    return {
        "suite": str(suite),
        "prologue": prologue.hex(),
        "initiator_static": i_static.hex(),
        "responder_static": r_static.hex(),
        "initiator_ephemeral": i_ephemeral.hex(),
        "responder_ephemeral": r_ephemeral.hex(),
        "psk": psk.hex(),
        "payload1": payload1.hex(),
        "payload2": payload2.hex(),
        "message1": message1.hex(),
        "message2": message2.hex(),
        "hash": state["h"].hex(),
        **keys,
        "initiation": (first + mac1(public(r_static), first) + bytes(16)).hex(),
        "response": (second + mac1(public(i_static), second) + bytes(16)).hex(),
    }


def without_index(datagram: bytes) -> bytes:
    return datagram[:4] + bytes(4) + datagram[8:]


def mac1(receiver: bytes, datagram: bytes) -> bytes:
    secret = hashlib.sha256(b"ntm mac1" + receiver).digest()
    return mac(secret, without_index(datagram))[:16]


def flood() -> dict[str, Any]:
    responder = public(key("responder static"))
    body = struct.pack(">BBBBIII", 5, 1, 2, 0, 0x01020304, 5, 0) + bytes(range(100))
    first = mac1(responder, body)
    secret = key("cookie secret")
    sources = []
    for host, port, index in (("192.0.2.7", 4000, 0), ("2001:db8::7", 65535, 0xC1C2C3C4)):
        packed = ipaddress.ip_address(host).packed + struct.pack(">H", port)
        cookie = mac(secret, packed + struct.pack(">I", index))[:16]
        salt = key("salt")[:16]
        sealing = ChaCha20Poly1305(hkdf(responder, salt, b"ntm cookie"))
        header = struct.pack(">BBBBIII", 7, 1, 2, 0, 5, 0, 0)
        sources.append(
            {
                "host": host,
                "port": port,
                "index": index,
                "cookie": cookie.hex(),
                "salt": salt.hex(),
                "datagram": (header + salt + sealing.encrypt(bytes(12), cookie, first)).hex(),
                "mac2": mac(cookie, without_index(body + first))[:16].hex(),
            }
        )
    return {
        "responder_public": responder.hex(),
        "body": body.hex(),
        "mac1": first.hex(),
        "secret": secret.hex(),
        "sources": sources,
    }


def frames() -> list[dict[str, Any]]:
    made = []
    for suite in (1, 2):
        for kind, flags, plain in ((8, 1, b"\x60" + bytes(39)), (9, 0, b"\1\1\0\0\0\7\x91\x0a")):
            secret, counter = key(f"frame {kind}"), 0x0102030405060708
            header = struct.pack(">BBBBIQ", kind, 0x2A, flags, 0, 0xD1D2D3D4, counter)
            nonce = header[:4] + header[8:]
            sealed = cipher(suite, secret).encrypt(nonce, plain, None)
            made.append(
                {
                    "suite": suite,
                    "kind": kind,
                    "slot": 0x2A,
                    "flags": flags,
                    "index": 0xD1D2D3D4,
                    "counter": counter,
                    "key": secret.hex(),
                    "plaintext": plain.hex(),
                    "nonce": nonce.hex(),
                    "datagram": (header + sealed).hex(),
                }
            )
    return made


def reset() -> dict[str, Any]:
    static = key("responder static")
    index = 0xE1E2E3E4
    token = mac(hkdf(static, b"", b"ntm reset"), struct.pack(">I", index))[:16]
    return {"static": static.hex(), "index": index, "token": token.hex()}


# ------------------------------------------------------------------ signed statements

PREFIX = b"\xfd" + PLATFORM[:5] + b"\0\7"  # the coordinator's /64
ISSUED, EXPIRES = 1_767_225_600, 1_767_830_400
CA_KEY = Ed25519PrivateKey.from_private_bytes(key("ca"))
SIGN_KEY = Ed25519PrivateKey.from_private_bytes(key("dc-sign"))


def signer() -> bytes:
    return hashlib.sha256(SIGN_KEY.public_key().public_bytes_raw()).digest()[:8]


def record() -> dict[str, Any]:
    name, node = "desk.home.test", public(key("initiator static"))
    address = PREFIX + bytes(7) + b"\5"
    fields = struct.pack(
        ">BI16sQQ32s8s",
        1,
        0x0800001D,
        address,
        ISSUED,
        EXPIRES,
        hashlib.sha256(node).digest(),
        signer(),
    )
    signed = b"ntm record 1" + PLATFORM + bytes((len(name),)) + name.encode() + fields
    return {
        "sign_private": key("dc-sign").hex(),
        "platform_id": PLATFORM.hex(),
        "name": name,
        "node_key": node.hex(),
        "capabilities": 0x0800001D,
        "address": address.hex(),
        "issued_ms": ISSUED * 1000,
        "expires_ms": EXPIRES * 1000,
        "record": (fields + SIGN_KEY.sign(signed)).hex(),
    }


def grant() -> dict[str, Any]:
    hashes = [key(f"hash {number}") for number in range(3)]
    fields = struct.pack(
        ">B32s16s32s32sQQIH8s",
        1,
        hashes[0],
        key("grant")[:16],
        hashes[1],
        hashes[2],
        ISSUED,
        EXPIRES,
        100_000,
        2,
        signer(),
    )
    return {
        "sign_private": key("dc-sign").hex(),
        "platform_id": PLATFORM.hex(),
        "rs_key_hash": hashes[0].hex(),
        "grant_id": key("grant")[:16].hex(),
        "node_a_hash": hashes[1].hex(),
        "node_b_hash": hashes[2].hex(),
        "issued_ms": ISSUED * 1000,
        "expires_ms": EXPIRES * 1000,
        "kbit_s": 100_000,
        "legs": 2,
        "grant": (fields + SIGN_KEY.sign(b"ntm grant 1" + PLATFORM + fields)).hex(),
    }


def possession() -> dict[str, str]:
    node, server = key("initiator static"), key("server ephemeral")
    nonce, digest, name = key("nonce"), key("request"), "desk.home.test"
    info = b"ntm pop 1" + public(node) + public(server) + name.encode()
    return {
        "node_private": node.hex(),
        "server_private": server.hex(),
        "nonce": nonce.hex(),
        "name": name,
        "request_hash": digest.hex(),
        "proof": mac(hkdf(dh(node, public(server)), nonce, info), digest).hex(),
    }


# ------------------------------------------------------------------ certificates

ARC = "2.25.75283195402015249547476168097211236951"
ROLES = {"node": 1, "dc": 2, "rs": 3, "dc-sign": 4}
SERIAL = bytes(range(0x10, 0x20))


def day(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def usage(**given: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def builder(subject: Any, issuer: bytes, common_name: x509.Name | None = None) -> Any:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer.hex()[:16])])
    return (
        x509.CertificateBuilder()
        .subject_name(common_name or x509.Name([]))
        .issuer_name(name)
        .public_key(subject)
        .serial_number(int.from_bytes(SERIAL, "big"))
        .not_valid_before(day(ISSUED))
        .not_valid_after(day(EXPIRES))
    )


def platform_of_ca() -> bytes:
    form = PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(CA_KEY.public_key().public_bytes(Encoding.DER, form)).digest()


def ca_id() -> bytes:
    return hashlib.sha256(CA_KEY.public_key().public_bytes_raw()).digest()[:20]


def sign(unsigned: Any) -> str:
    return str(unsigned.sign(CA_KEY, None).public_bytes(Encoding.DER).hex())


def leaf(role: str, name: str, labels: int) -> dict[str, Any]:
    signing, coordinator = role == "dc-sign", role in ("dc", "dc-sign")
    private = key("dc-sign" if signing else "initiator static")
    subject: Any = X25519PublicKey.from_public_bytes(public(private))
    if signing:
        subject = SIGN_KEY.public_key()
    platform = platform_of_ca()
    prefix = b"\xfd" + platform[:5] + b"\0\7"
    scope = b"\x02\x01" + bytes((labels,)) + (b"\x04\x08" + prefix if coordinator else b"")
    unsigned = (
        builder(subject, platform)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), True)
        .add_extension(usage(digital_signature=signing, key_agreement=not signing), True)
        .add_extension(x509.AuthorityKeyIdentifier(ca_id(), None, None), False)
        .add_extension(
            x509.ExtendedKeyUsage([x509.ObjectIdentifier(f"{ARC}.1.{ROLES[role]}")]), True
        )
        .add_extension(
            x509.UnrecognizedExtension(
                x509.ObjectIdentifier(f"{ARC}.2"), b"\x30" + bytes((len(scope),)) + scope
            ),
            False,
        )
    )
    return {
        "role": ROLES[role],
        "name": name,
        "labels": labels,
        "key": subject.public_bytes_raw().hex(),
        "prefix": prefix.hex() if coordinator else "",
        "der": sign(unsigned),
    }


def ca_certificate() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, platform_of_ca().hex()[:16])])
    identifier = x509.SubjectKeyIdentifier(ca_id())
    return sign(
        builder(CA_KEY.public_key(), platform_of_ca(), name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), True)
        .add_extension(identifier, False)
    )


def tls_certificate() -> dict[str, Any]:
    secret = key("tls") + key("tls more")[:8]
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    scalar = int.from_bytes(secret, "big") % (order - 1) + 1
    subject = ec.derive_private_key(scalar, ec.SECP256R1()).public_key()
    names = [x509.DNSName("as.home.test"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, x509.ObjectIdentifier(f"{ARC}.1.5")]
    der = sign(
        builder(subject, platform_of_ca())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.SubjectAlternativeName(names), True)
        .add_extension(usage(digital_signature=True), True)
        .add_extension(x509.ExtendedKeyUsage(uses), False)
        .add_extension(x509.AuthorityKeyIdentifier(ca_id(), None, None), False)
    )
    return {
        "secret": secret.hex(),
        "names": ["as.home.test"],
        "addresses": ["192.0.2.1"],
        "der": der,
    }


def certificates() -> dict[str, Any]:
    longest = "a" * 60 + "." + "b" * 57 + ".home.test"
    assert isinstance(SIGN_KEY.public_key(), Ed25519PublicKey)
    return {
        "ca_private": key("ca").hex(),
        "platform_id": platform_of_ca().hex(),
        "serial": SERIAL.hex(),
        "not_before_ms": ISSUED * 1000,
        "not_after_ms": EXPIRES * 1000,
        "ca": ca_certificate(),
        "leaves": [
            leaf("node", "desk.home.test", 2),
            leaf("node", longest, 2),
            leaf("rs", "rs1.home.test", 2),
            leaf("dc", "dc.home.test", 2),
            leaf("dc-sign", "dc.home.test", 2),
        ],
        "tls": tls_certificate(),
    }


def write(name: str, content: Any) -> None:
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    psks = (bytes(32), key("psk"))
    write("handshake.json", [handshake(suite, psk) for suite in (1, 2) for psk in psks])
    write("flood.json", flood())
    write("frames.json", frames())
    write("reset.json", reset())
    write("signed.json", {"record": record(), "grant": grant(), "possession": possession()})
    write("certificates.json", certificates())


if __name__ == "__main__":
    main()
