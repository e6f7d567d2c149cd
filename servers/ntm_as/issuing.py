"""What the account server signs and hands out: leaf certificates, delegations, the directory."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ntm_as.admission import TLS_MARK, Wish, tls_endpoints
from ntm_as.refusals import Refused
from ntm_as.tables import Member, Tables
from ntmd.proto import certs, timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Role
from ntmd.runtime.enrolment import Coordinator, encode, parse_endpoint

BACKDATED_MS = int(timing.CLOCK_COMPLAINT * 1000)  # clocks up to an hour behind are served
GRACE_MS = int(timing.EXPIRY_GRACE * 1000)
ROLES: Mapping[str, Role] = {"node": Role.NODE, "dc": Role.DC, "rs": Role.RS}


@dataclass(frozen=True, slots=True)
class Platform:
    """The certificate authority: its Ed25519 private key (32 bytes), certificate (DER) and id."""

    ca_private: bytes
    ca: bytes
    id: bytes

    @property
    def prefix(self) -> ipaddress.IPv6Network:
        """The platform's /48 (rule S9)."""
        return ipaddress.IPv6Network((certs.platform_prefix(self.id) + bytes(10), 48))

    def delegation(self, subnet: int) -> ipaddress.IPv6Network:
        """The /64 with this number."""
        return ipaddress.IPv6Network(
            (certs.platform_prefix(self.id) + subnet.to_bytes(2, "big") + bytes(8), 64)
        )


def serial(random: Callable[[int], bytes]) -> bytes:
    """16 random bytes, as a positive number that needs all of them."""
    data = random(16)
    return bytes([data[0] & 0x3F | 0x40]) + data[1:]


def certify(
    platform: Platform,
    wish: Wish,
    tables: Tables,
    random: Callable[[int], bytes],
    wall_ms: int,
) -> Member:
    """The member with fresh certificates; Refused if they cannot be made."""
    life = timing.NODE_CERTIFICATE if wish.role == "node" else timing.SERVER_CERTIFICATE
    expires = wall_ms + int(life * 1000)
    network = None
    if wish.role == "dc":
        domain = tables.domain(wish.domain)
        assert domain is not None, "a coordinator's domain is added before"
        network = platform.delegation(domain.subnet)

    def leaf(key: bytes, role: Role) -> bytes:
        try:
            return certs.issue(
                platform.ca_private,
                platform.id,
                public_key=key,
                role=role,
                name=wish.name,
                domain_labels=wish.domain.count(".") + 1,
                prefix=network,
                not_before_ms=wall_ms - BACKDATED_MS,
                not_after_ms=expires,
                serial=serial(random),
            )
        except (ProtocolError, ValueError) as error:
            raise Refused(
                400, "bad_name", f"no certificate can be made for {wish.name}: {error}."
            ) from None

    before = tables.member(wish.name)
    return Member(
        name=wish.name,
        role=wish.role,
        domain=wish.domain,
        key=wish.key,
        certificate=leaf(wish.key, ROLES[wish.role]),
        joined_ms=before.joined_ms if before else wall_ms,
        renewed_ms=wall_ms,
        expires_ms=expires,
        user=wish.user,
        sign_key=wish.sign_key,
        sign_certificate=leaf(wish.sign_key, Role.DC_SIGN) if wish.sign_key else b"",
        endpoints=(
            *(str(endpoint) for endpoint in wish.endpoints),
            *(TLS_MARK + str(endpoint) for endpoint in wish.tls),
        ),
    )


def tls_certificate(
    platform: Platform, wish: Wish, random: Callable[[int], bytes], wall_ms: int
) -> bytes:
    """A server's TLS certificate (rule S12), good for where it listens; Refused if impossible."""
    try:
        return certs.issue_tls(
            platform.ca_private,
            platform.id,
            spki=wish.tls_key,
            names=[wish.name],
            addresses=list(dict.fromkeys(endpoint.host for endpoint in wish.tls)),
            not_before_ms=wall_ms - BACKDATED_MS,
            not_after_ms=wall_ms + int(timing.SERVER_CERTIFICATE * 1000),
            serial=serial(random),
        )
    except ValueError as error:
        raise Refused(400, "bad_request", f"no TLS certificate can be made: {error}.") from None


def answer(platform: Platform, member: Member, tables: Tables, wall_ms: int) -> dict[str, Any]:
    """The body of an enrolment (``ntmd.runtime.enrolment``), but for what the client knows."""
    coordinator = next(iter(tables.members("dc", member.domain)), None)
    domain = tables.domain(member.domain)
    is_dc = member.role == "dc"
    return {
        "schema": 1,
        "role": member.role,
        "name": member.name,
        "domain": member.domain,
        "platform_id": platform.id.hex(),
        "certificates": [encode(member.certificate)],
        "prefix": str(platform.prefix),
        "dc": plain(coordinator) if coordinator and not is_dc else None,
        "domains": [each.name for each in tables.domains()],
        "delegation": str(platform.delegation(domain.subnet)) if is_dc and domain else "",
        "sign_certificate": encode(member.sign_certificate),
        "directory": directory(tables) if member.role != "node" else [],
        "time_ms": wall_ms,
    }


def plain(member: Member) -> dict[str, Any]:
    """A coordinator as the directory shows it."""
    return Coordinator(
        member.name,
        member.domain,
        member.certificate,
        member.sign_certificate,
        tuple(parse_endpoint(e) for e in member.endpoints if not e.startswith(TLS_MARK)),
        tls_endpoints(member),
    ).plain()


def directory(tables: Tables) -> list[dict[str, Any]]:
    """All coordinators."""
    return [plain(member) for member in tables.members("dc")]


def revoked(tables: Tables) -> dict[str, Any]:
    """The revocation list: epoch, and SHA-256 of each key with the end of its interest."""
    entries = tables.revocations()
    return {
        "epoch": entries[-1].epoch if entries else 0,
        "keys": [[encode(entry.key_hash), entry.not_after_ms] for entry in entries],
    }
