"""The world's DNS: who owns ``_ntm._udp.<domain>``; late, silent or poisoned on demand."""

from __future__ import annotations

from dataclasses import dataclass, field

from ntm_dc.values import DomainResolved, DomainTarget, LookupDomain
from ntmd.proto.types import Endpoint


@dataclass
class SimDns:
    """Zones by domain. ``delay`` is of one lookup, seconds; ``silent`` answers nothing at all."""

    delay: float = 0.030
    silent: bool = False
    zones: dict[str, tuple[DomainTarget, ...]] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def publish(self, domain: str, name: str, key: bytes, endpoints: tuple[Endpoint, ...]) -> None:
        """SRV, addresses and key hint of a domain's coordinator (or of whoever says he is it)."""
        self.zones[domain] = (DomainTarget(name, key, endpoints),)

    def answer(self, command: LookupDomain) -> DomainResolved | None:
        """What a resolver says; None: nothing, ever."""
        self.asked.append(command.suffixes)
        if self.silent:
            return None
        for suffix in command.suffixes:
            if suffix in self.zones:
                return DomainResolved(command.token, suffix, self.zones[suffix])
        return DomainResolved(command.token, "", (), "no such domain")
