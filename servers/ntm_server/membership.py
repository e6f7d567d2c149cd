"""The keys and the enrolment of a coordinator or relay: ``DIR/dc`` and ``DIR/rs``.

``static.key`` and ``sign.key`` hold 32 bytes each and never leave the machine; ``enrolment.json``
is what the account server answered last.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ntmd.proto import certs, tlskeys
from ntmd.proto.crypto import public_key
from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Endpoint
from ntmd.runtime import account
from ntmd.runtime.account import ServerTls
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.enrolment import Enrolment
from ntmd.runtime.statefiles import damaged, make_directory, read_file, write_file


class ServerFiles:
    """The directory of one role, "dc" or "rs"; made with mode 0700 if it is not there."""

    def __init__(self, directory: Path, role: str) -> None:
        self.directory = directory
        self.role = role
        self.enrolment_file = directory / "enrolment.json"
        make_directory(directory)

    def enrolled(self) -> bool:
        """Whether this server has been enrolled."""
        return self.enrolment_file.exists()

    def enrolment(self) -> Enrolment:
        """What is kept; Complaint if it is damaged or does not fit the key."""
        try:
            kept = Enrolment.from_json(read_file(self.enrolment_file, 16 << 20))
            leaf = certs.parse_leaf(kept.certificates[0])
        except (ValueError, IndexError, ProtocolError) as error:
            raise damaged(self.enrolment_file, str(error)) from None
        if leaf.key != public_key(self.key()):
            raise damaged(self.directory / "static.key", f"it is not the key of {leaf.name}")
        return kept

    def keep(self, enrolment: Enrolment) -> None:
        """Replace what is kept."""
        write_file(self.enrolment_file, enrolment.to_json().encode())

    def key(self) -> bytes:
        """The X25519 key, made now if this server was never enrolled."""
        return self._key("static.key")

    def sign_key(self) -> bytes:
        """A coordinator's Ed25519 key; empty for a relay."""
        return self._key("sign.key") if self.role == "dc" else b""

    def tls_key(self) -> bytes:
        """The P-256 key of the TLS certificate (PKCS #8), made now if there is none (rule S12)."""
        path = self.directory / "tls.key"
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            write_file(path, der)
        data = read_file(path, 4096)
        try:
            tlskeys.public_of(data)
        except (ValueError, TypeError):
            raise damaged(path, "it does not hold a P-256 key") from None
        return data

    def tls_file(self) -> Path | None:
        """Key and certificate for TLS (PEM), as enrolled; None if no certificate was given."""
        certificate = self.enrolment().tls_certificate
        if not certificate:
            return None
        path = self.directory / "tls.pem"
        write_file(path, _pem("PRIVATE KEY", self.tls_key()) + _pem("CERTIFICATE", certificate))
        return path

    def _key(self, name: str) -> bytes:
        path = self.directory / name
        if not path.exists() and not self.enrolled():
            write_file(path, os.urandom(32))
        key = read_file(path, 64)
        if len(key) != 32:
            raise damaged(path, "it does not hold a key of 32 bytes")
        return key


def _pem(kind: str, der: bytes) -> bytes:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n".encode()


def enrol(
    files: ServerFiles,
    join_url: str,
    domain: str,
    endpoints: Sequence[Endpoint],
    tls: ServerTls,
) -> Enrolment:
    """Enrol at the account server and keep the answer; blocks."""
    given = account.enrol_server(
        join_url, files.role, domain, endpoints, files.key(), files.sign_key(), tls
    )
    files.keep(given)
    return given


def renew(
    files: ServerFiles, kept: Enrolment, endpoints: Sequence[Endpoint], tls: ServerTls
) -> Enrolment:
    """Fetch fresh certificates and directory, and keep them; blocks."""
    given = account.renew_server(kept, files.key(), files.sign_key(), endpoints, tls)
    files.keep(given)
    return given


def check_domain(files: ServerFiles, kept: Enrolment, domain: str) -> None:
    """Complain if the directory belongs to another domain than the one asked for."""
    if domain and kept.domain != domain:
        raise Complaint(
            f"{files.directory.parent} belongs to the domain {kept.domain}, not {domain}.",
            "A coordinator keeps its domain for ever; its nodes have their names in it.",
            f"Start it with --domain {kept.domain}, or use another --data directory.",
        )
