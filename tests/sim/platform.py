"""A platform for stories: a CA with keys from the seed, and identities issued as in production."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from random import Random

from ntmd.proto import certs, crypto
from ntmd.proto.events import Identity
from ntmd.proto.records import Capability
from ntmd.proto.types import Peer, Role
from tests.sim.clock import EPOCH_MS, Clock

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class DcIdentity:
    """What a coordinator is enrolled with: session identity, signing key, domain and prefix."""

    identity: Identity
    sign_private: bytes
    sign_certificate: bytes
    domain: str
    prefix: ipaddress.IPv6Network

    @property
    def peer(self) -> Peer:
        """Whom to shake hands with."""
        return Peer(Role.DC, self.identity.name, crypto.public_key(self.identity.private_key))


class Platform:
    """One CA and everything it has issued. Deterministic: keys come from the world's seed."""

    def __init__(self, clock: Clock, name: str = "platform", *, epoch_ms: int = EPOCH_MS) -> None:
        self._epoch_ms, self._clock = epoch_ms, clock
        self._dice: Random = clock.stream(f"keys {name}")
        self._ca_private = self._dice.randbytes(32)
        self.ca = certs.make_ca(
            self._ca_private, epoch_ms - DAY_MS, epoch_ms + 3650 * DAY_MS, self._serial()
        )
        self.id = certs.platform_id_of(self.ca)
        self.anchor = certs.Anchor(
            self.id,
            (crypto.ed25519_public(self._ca_private),),
            (),
            certs.platform_prefix(self.id),
        )
        self.trust = certs.Trust((self.anchor,))
        self._prefixes = 0

    def node(
        self,
        name: str,
        domain: str,
        *,
        days: float = 14,
        issued_days_ago: float = 0.0,
        hardware: bool = True,
    ) -> Identity:
        """A node's identity; ``name`` is its FQDN inside ``domain``, ``hardware`` is for AES."""
        private = self._dice.randbytes(32)
        leaf = self._issue(
            crypto.public_key(private), Role.NODE, name, domain, None, days, issued_days_ago
        )
        able = self.capabilities() & ~(0 if hardware else Capability.AES_HARDWARE)
        return Identity(Role.NODE, name, private, (leaf,), b"", able)

    def renew(self, identity: Identity, *, days: float = 14) -> bytes:
        """A fresh certificate (DER) over a node's key, from now on."""
        leaf = certs.parse_leaf(identity.certificates[0])
        ago = -self._clock.now / 86_400
        return self._issue(leaf.key, Role.NODE, leaf.name, leaf.domain, None, days, ago)

    def rs(self, name: str, domain: str) -> Identity:
        """A relay's identity."""
        private = self._dice.randbytes(32)
        leaf = self._issue(crypto.public_key(private), Role.RS, name, domain, None, 30)
        return Identity(Role.RS, name, private, (leaf,), b"", self.capabilities())

    def dc(self, name: str, domain: str) -> DcIdentity:
        """A coordinator's identity with a prefix of its own."""
        self._prefixes += 1
        base = int(self.anchor.network.network_address)
        prefix = ipaddress.IPv6Network((base | (self._prefixes << 64), 64))
        private, sign_private = self._dice.randbytes(32), self._dice.randbytes(32)
        leaf = self._issue(crypto.public_key(private), Role.DC, name, domain, prefix, 30)
        sign = self._issue(
            crypto.ed25519_public(sign_private), Role.DC_SIGN, name, domain, prefix, 30
        )
        identity = Identity(Role.DC, name, private, (leaf,), b"", self.capabilities())
        return DcIdentity(identity, sign_private, sign, domain, prefix)

    def renewed(
        self, key: bytes, role: Role, name: str, domain: str, prefix: ipaddress.IPv6Network | None
    ) -> bytes:
        """A fresh certificate for a key that has one."""
        return self._issue(key, role, name, domain, prefix, 60)

    @staticmethod
    def capabilities() -> int:
        """What every party of a story can do."""
        return int(
            Capability.AES_HARDWARE
            | Capability.SUITE_AES_GCM
            | Capability.SUITE_CHACHA
            | Capability.WIRE_1
        )

    def _issue(
        self,
        key: bytes,
        role: Role,
        name: str,
        domain: str,
        prefix: ipaddress.IPv6Network | None,
        days: float,
        ago: float = 0.0,
    ) -> bytes:
        begin = self._epoch_ms - int(ago * DAY_MS)
        return certs.issue(
            self._ca_private,
            self.id,
            public_key=key,
            role=role,
            name=name,
            domain_labels=domain.count(".") + 1,
            prefix=prefix,
            not_before_ms=begin - 3_600_000,
            not_after_ms=begin + int(days * DAY_MS),
            serial=self._serial(),
        )

    def _serial(self) -> bytes:
        return bytes((self._dice.randint(1, 0x7F),)) + self._dice.randbytes(15)
