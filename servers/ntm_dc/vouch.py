"""Is a node of another domain who its coordinator says it is? (rules C2, C3, S7)

Certificate of the platform, record signed for that very key by the signing key of the domain that
the certificate names, and that domain the one whose coordinator speaks to us. A binding of name and
address seen before is not given up while the older record is valid.
"""

from __future__ import annotations

from dataclasses import dataclass

from ntm_dc.common import Common
from ntmd.proto.certs import Leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.records import Record, check_record
from ntmd.proto.types import Role

PINS_KEPT = 65_536


@dataclass(frozen=True, slots=True)
class Foreigner:
    """A verified node of another domain, and what proves it."""

    leaf: Leaf
    record: Record
    record_bytes: bytes
    dc_sign: bytes


class Vouching:
    """Checks foreign nodes and remembers their bindings."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._names: dict[str, tuple[bytes, int]] = {}
        self._addresses: dict[bytes, tuple[str, int]] = {}

    def check(
        self, certificate: bytes, record: bytes, dc_sign: bytes, domain: str, now: float
    ) -> Foreigner:
        """The node, if all holds and it belongs to ``domain``; raises ProtocolError."""
        common = self._common
        leaf = common.verified(certificate, Role.NODE, None, now)
        signer = common.verified(dc_sign, Role.DC_SIGN, None, now)
        if leaf.domain != domain or signer.domain != domain:
            raise ProtocolError("record_domain")
        checked = check_record(
            record,
            common.platform_id,
            leaf.name,
            leaf.key,
            signer,
            common.platform_ms(now),
            domain=leaf.domain,
        )
        self._pin(leaf.name, checked, common.platform_ms(now))
        return Foreigner(leaf, checked, record, dc_sign)

    def _pin(self, name: str, record: Record, now_ms: int) -> None:
        address, until = self._names.get(name, (record.address, 0))
        owner, owned_until = self._addresses.get(record.address, (name, 0))
        if (address != record.address and until > now_ms) or (
            owner != name and owned_until > now_ms
        ):
            raise ProtocolError("binding_conflict", name)
        self._names.pop(name, None)
        self._addresses.pop(record.address, None)
        self._names[name] = (record.address, record.expires_ms)
        self._addresses[record.address] = (name, record.expires_ms)
        if len(self._names) > PINS_KEPT:
            gone, _ = self._names.pop(next(iter(self._names)))
            self._addresses.pop(gone, None)
