"""What the account server hands out at enrolment and renewal, and how it is kept on disk.

The same JSON object is the body of the server's answer and the content of ``enrolment.json``;
bytes are base64 (RFC 4648 section 4). Unknown members are ignored.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntmd.proto.types import Endpoint

SCHEMA = 1
NAME_MAX = 128  # octets of an FQDN (rule C8)
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
ROLES = ("node", "dc", "rs")
SIGN_PROOF = b"ntm pop sign 1"  # label of what an Ed25519 key signs to prove its possession
DIRECTORY_PROOF = b"ntm directory 1"  # label of what a coordinator signs to get the directory


def is_domain(name: str) -> bool:
    """Whether ``name`` is a lower-case ASCII domain name of at most 128 octets (rule C8)."""
    labels = name.split(".")
    good = len(name) <= NAME_MAX and all(LABEL.match(label) for label in labels)
    return good and not labels[-1].isdigit()


def encode(data: bytes) -> str:
    """Base64 text of ``data``."""
    return base64.b64encode(data).decode("ascii")


def decode(text: object, size: int | None = None, limit: int = 8192) -> bytes:
    """Bytes of a base64 text, strictly; ValueError if it is none, or not ``size`` bytes."""
    if not isinstance(text, str) or len(text) > limit * 4 // 3 + 4:
        raise ValueError("base64 text expected")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64") from error
    if len(data) > limit or (size is not None and len(data) != size):
        raise ValueError("wrong length")
    return data


def parse_endpoint(text: object) -> Endpoint:
    """An endpoint from ``192.0.2.1:4330`` or ``[2001:db8::1]:4330``; ValueError if it is none."""
    if not isinstance(text, str) or len(text) > 64:
        raise ValueError("endpoint expected")
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError("endpoint without a port")
    bracketed = host.startswith("[") and host.endswith("]")
    address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    if bracketed != (address.version == 6):
        raise ValueError("only IPv6 addresses are bracketed")
    return Endpoint(str(address), int(port))


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A direction coordinator: its FQDN, domain, certificates (DER) and where it listens.

    ``certificate`` is that of its session key, ``dc_sign`` that of its signing key; ``tls`` is
    where it listens for TLS (rule S12).
    """

    name: str
    domain: str
    certificate: bytes
    dc_sign: bytes
    endpoints: tuple[Endpoint, ...]
    tls: tuple[Endpoint, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "domain": self.domain,
            "certificate": encode(self.certificate),
            "dc_sign": encode(self.dc_sign),
            "endpoints": [str(endpoint) for endpoint in self.endpoints],
            "tls": [str(endpoint) for endpoint in self.tls],
        }

    @classmethod
    def read(cls, given: Any) -> Coordinator:
        """Inverse of :meth:`plain`; ValueError for anything else."""
        given = _object(given)
        return cls(
            _domain(given.get("name")),
            _domain(given.get("domain")),
            decode(given.get("certificate")),
            decode(given.get("dc_sign")),
            tuple(parse_endpoint(item) for item in _list(given.get("endpoints"), 32)),
            tuple(parse_endpoint(item) for item in _list(given.get("tls", []), 32)),
        )


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A member of the platform: a node, or a server of a domain.

    ``platform_id`` (32 bytes), ``ca`` and the certificates are DER; ``prefix`` is the platform's
    /48. ``dc`` is the coordinator of the own domain (None for the coordinator itself) and
    ``domains`` are all domains of the platform. ``as_hosts`` are all addresses of the
    account server, at the port of ``as_url``. Of servers only: ``delegation`` (a coordinator's
    /64), ``sign_certificate`` (its ``dc-sign`` leaf), ``directory`` (all coordinators) and
    ``tls_certificate`` (if it asked for one).
    """

    name: str
    domain: str
    platform_id: bytes
    ca: bytes
    certificates: tuple[bytes, ...]
    as_url: str
    prefix: str
    dc: Coordinator | None
    domains: tuple[str, ...]
    role: str = "node"
    delegation: str = ""
    sign_certificate: bytes = b""
    directory: tuple[Coordinator, ...] = ()
    tls_certificate: bytes = b""
    as_hosts: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "schema": SCHEMA,
            "role": self.role,
            "name": self.name,
            "domain": self.domain,
            "platform_id": self.platform_id.hex(),
            "ca": encode(self.ca),
            "certificates": [encode(certificate) for certificate in self.certificates],
            "as_url": self.as_url,
            "as_hosts": list(self.as_hosts),
            "prefix": self.prefix,
            "dc": self.dc.plain() if self.dc else None,
            "domains": list(self.domains),
            "delegation": self.delegation,
            "sign_certificate": encode(self.sign_certificate),
            "directory": [entry.plain() for entry in self.directory],
            "tls_certificate": encode(self.tls_certificate),
        }

    def to_json(self) -> str:
        """Text for ``enrolment.json``."""
        return json.dumps(self.plain(), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Enrolment:
        """Inverse of :meth:`to_json`; ValueError, saying why, for anything else."""
        try:
            return cls.read(json.loads(text))
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    @classmethod
    def read(cls, given: Any) -> Enrolment:
        """Inverse of :meth:`plain`; ValueError for anything else."""
        given = _object(given)
        if given.get("schema") != SCHEMA:
            raise ValueError(f"schema {given.get('schema')!r} is not known")
        role = given.get("role", "node")
        if role not in ROLES:
            raise ValueError("unknown role")
        directory = _list(given.get("directory", []), 4096)
        return cls(
            name=_domain(given.get("name")),
            domain=_domain(given.get("domain")),
            platform_id=_platform(given.get("platform_id")),
            ca=decode(given.get("ca")),
            certificates=tuple(decode(item) for item in _list(given.get("certificates"), 2)),
            as_url=_text(given.get("as_url")),
            prefix=_prefix(given.get("prefix"), 48),
            dc=Coordinator.read(given["dc"]) if given.get("dc") is not None else None,
            domains=tuple(_domain(item) for item in _list(given.get("domains"), 4096)),
            role=role,
            delegation=_prefix(given["delegation"], 64) if given.get("delegation") else "",
            sign_certificate=decode(given.get("sign_certificate") or ""),
            directory=tuple(Coordinator.read(item) for item in directory),
            tls_certificate=decode(given.get("tls_certificate") or ""),
            as_hosts=tuple(_text(item, 253) for item in _list(given.get("as_hosts", []), 16)),
        )


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return value


def _list(value: Any, longest: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > longest:
        raise ValueError("a list is expected")
    return value


def _text(value: Any, longest: int = 512) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise ValueError("a text is expected")
    return value


def _domain(value: Any) -> str:
    if not isinstance(value, str) or not is_domain(value):
        raise ValueError("a domain name is expected")
    return value


def _platform(value: Any) -> bytes:
    platform = bytes.fromhex(_text(value))
    if len(platform) != 32:
        raise ValueError("a platform id has 32 bytes")
    return platform


def _prefix(value: Any, length: int) -> str:
    network = ipaddress.IPv6Network(_text(value))
    if network.prefixlen != length:
        raise ValueError(f"a /{length} is expected")
    return str(network)
