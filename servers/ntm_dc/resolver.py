"""Asking the DNS who coordinates a domain: SRV, then addresses and key hint of its targets.

Nothing here is authenticated, and nothing is believed (rule C3): the core checks certificates.
Whole results are kept for as long as their records live, failures for a few seconds only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
from collections.abc import Callable
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.resolver

from ntm_dc.values import DomainResolved, DomainTarget, LookupDomain
from ntmd.proto.types import Endpoint
from ntmd.runtime.clock import boot_clock
from ntmd.runtime.complaints import Complaint, Exit

TRY_TIMEOUT = 0.8  # for one answer of one name server, seconds
LIFETIME = 2.4  # for one question
LONGEST = 300.0  # results are asked for again after this at the latest
NEGATIVE = 3.0
KEPT = 4096
TARGETS = 4
SILENT = "the DNS does not answer"
BROKEN = "the DNS cannot resolve it"
ABSENT = "no such domain"


class DomainResolver:
    """Resolves through ``server``: ``ADDR[:PORT]``, IPv6 in brackets; empty: the system's."""

    def __init__(self, server: str = "", clock: Callable[[], float] = boot_clock) -> None:
        self._clock = clock
        self._cache: dict[tuple[str, ...], tuple[float, DomainResolved]] = {}
        self._resolver = _configured(server)
        self.asked = 0

    async def lookup(self, wish: LookupDomain) -> DomainResolved:
        """What the DNS says; never raises."""
        now = self._clock()
        until, kept = self._cache.get(wish.suffixes, (now, None))
        if kept is None or until <= now:
            self.asked += 1
            kept, ttl = await self._ask(wish.suffixes)
            self._cache.pop(wish.suffixes, None)
            self._cache[wish.suffixes] = (now + ttl, kept)
            if len(self._cache) > KEPT:
                del self._cache[next(iter(self._cache))]
        return DomainResolved(wish.token, kept.domain, kept.targets, kept.error)

    async def _ask(self, suffixes: tuple[str, ...]) -> tuple[DomainResolved, float]:
        error = ABSENT
        if self._resolver is None:
            return DomainResolved(0, "", (), "no DNS resolver is configured"), NEGATIVE
        for suffix in suffixes:
            try:
                answer = await self._resolve(f"_ntm._udp.{suffix}.", "SRV")
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
            except dns.resolver.NoNameservers as failure:
                error = BROKEN if _heard(failure) else SILENT
                continue
            except (dns.exception.DNSException, OSError):
                return DomainResolved(0, "", (), SILENT), NEGATIVE
            records = sorted(answer, key=lambda each: (each.priority, -each.weight))
            found = await asyncio.gather(*(self._target(each) for each in records[:TARGETS]))
            targets = tuple(target for target in found if target.endpoints)
            if targets:
                ttl = min(float(answer.rrset.ttl), LONGEST)
                return DomainResolved(0, suffix, targets), max(ttl, 1.0)
            return DomainResolved(0, "", (), "its coordinator has no address"), NEGATIVE
        return DomainResolved(0, "", (), error), NEGATIVE

    async def _target(self, record: Any) -> DomainTarget:
        name = record.target.to_text(omit_final_dot=True).lower()
        a, aaaa, hints = await asyncio.gather(
            self._quietly(f"{name}.", "A"),
            self._quietly(f"{name}.", "AAAA"),
            self._quietly(f"_ntm.{name}.", "TXT"),
        )
        hosts = [each.address for each in (*a, *aaaa)]
        endpoints = tuple(Endpoint(str(ipaddress.ip_address(h)), record.port) for h in hosts)
        keys = [key for key in (key_hint(b"".join(each.strings)) for each in hints) if key]
        return DomainTarget(name, keys[0] if keys else b"", endpoints[:8])

    async def _quietly(self, name: str, kind: str) -> list[Any]:
        try:
            return list(await self._resolve(name, kind))
        except (dns.exception.DNSException, OSError):
            return []

    async def _resolve(self, name: str, kind: str) -> Any:
        assert self._resolver is not None
        return await self._resolver.resolve(name, kind, search=False)


def key_hint(text: bytes) -> bytes:
    """The X25519 key in ``v=ntm1 k=<base64>``, or nothing."""
    fields = text.decode("ascii", "replace").split()
    if not fields or fields[0] != "v=ntm1":
        return b""
    for each in fields[1:]:
        if each.startswith("k="):
            try:
                key = base64.b64decode(each[2:], validate=True)
            except (binascii.Error, ValueError):
                return b""
            return key if len(key) == 32 else b""
    return b""


def _configured(server: str) -> dns.asyncresolver.Resolver | None:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not server)
    except dns.resolver.NoResolverConfiguration:
        return None
    if server:
        host, port = _server(server)
        resolver.nameservers = [host]
        resolver.port = port
    resolver.timeout, resolver.lifetime = TRY_TIMEOUT, LIFETIME
    resolver.use_edns(0, 0, 1232)
    return resolver


def _server(text: str) -> tuple[str, int]:
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, port = text.split(":")
    try:
        address = str(ipaddress.ip_address(host))
        number = int(port)
    except ValueError:
        address, number = "", 0
    if not address or not 0 < number < 65536:
        raise Complaint(
            f"--resolver {text} is not an address of a DNS resolver.",
            "Other domains could not be found.",
            "Give ADDR or ADDR:PORT, an IPv6 address with a port as [ADDR]:PORT.",
            Exit.USAGE,
        )
    return address, number


def _heard(failure: dns.resolver.NoNameservers) -> bool:
    """Whether any name server answered at all (with an error)."""
    errors = failure.kwargs.get("errors") or []
    return any(len(each) > 4 and each[4] is not None for each in errors)
