"""Authoritative DNS for the coordinator's zone: who coordinates it, and where (rules C3, N4).

Pure: query bytes in, reply bytes out. The public learns of the coordinator and its relays, never of
nodes: their names do not exist here, so they get the same NXDOMAIN as names that nobody has.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset

from ntm_dc.common import Buckets
from ntmd.proto.types import Endpoint

TTL = 60
NEGATIVE_TTL = 5
UDP_SIZE = 1232  # DNS flag day 2020
PLAIN_SIZE = 512  # without EDNS (RFC 1035 section 4.2.1)
TCP_SIZE = 65_535
ANSWERS_PER_SECOND = 50.0  # for one /24 or /56
IN = dns.rdataclass.IN
_REFUSED_KINDS = (dns.rdatatype.ANY, dns.rdatatype.AXFR, dns.rdatatype.IXFR)

Records = dict[dns.name.Name, dict[dns.rdatatype.RdataType, dns.rdataset.Rdataset]]


@dataclass(frozen=True, slots=True)
class ZoneFacts:
    """What the zone says. ``key`` is the coordinator's X25519 key; ``relays`` by name."""

    domain: str
    coordinator: str
    key: bytes
    endpoints: tuple[Endpoint, ...]
    relays: Mapping[str, tuple[Endpoint, ...]]
    serial: int = 1


class Zone:
    """The records of one zone."""

    def __init__(self, facts: ZoneFacts) -> None:
        self.origin = dns.name.from_text(facts.domain)
        self._records: Records = {}
        target = f"{facts.coordinator}."
        port = facts.endpoints[0].port if facts.endpoints else 4330
        soa = f"{target} hostmaster.{facts.domain}. {facts.serial} 3600 600 86400 {NEGATIVE_TTL}"
        self._add(facts.domain, "SOA", soa)
        self._add(facts.domain, "NS", target)
        self._add(f"_ntm._udp.{facts.domain}", "SRV", f"10 0 {port} {target}")
        hint = base64.b64encode(facts.key).decode()
        self._add(f"_ntm.{facts.coordinator}", "TXT", f'"v=ntm1 k={hint}"')
        for name, endpoints in {**facts.relays, facts.coordinator: facts.endpoints}.items():
            hosts = dict.fromkeys(endpoint.host for endpoint in endpoints)
            for kind, version in (("A", 4), ("AAAA", 6)):
                same = [h for h in hosts if ipaddress.ip_address(h).version == version]
                if same:
                    self._add(name, kind, *same)

    def _add(self, name: str, kind: str, *texts: str) -> None:
        owner = dns.name.from_text(name)
        if not owner.is_subdomain(self.origin):
            return
        made = dns.rdataset.from_text(IN, kind, TTL, *texts)
        self._records.setdefault(owner, {})[made.rdtype] = made

    def find(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.rdataset.Rdataset | None:
        """The records of a name and type."""
        return self._records.get(name, {}).get(kind)

    def exists(self, name: dns.name.Name) -> bool:
        """Whether the name is there, be it as an empty non-terminal (RFC 4592 section 2.2.2)."""
        return any(owner.is_subdomain(name) for owner in self._records)


def answer(query: bytes, zone: Zone, *, size: int | None = None) -> bytes | None:
    """The reply to a query; None: say nothing. ``size`` limits it (TCP); None: UDP's own rule."""
    if len(query) < 12 or query[2] & 0x80:
        return None  # too short for a header, or itself a reply
    try:
        asked = dns.message.from_wire(query)
        reply = _reply(asked, zone)
    except (dns.exception.DNSException, ValueError):
        return query[:2] + b"\x80\x01" + bytes(8)  # FORMERR, whatever it was
    if size is None:
        size = min(max(asked.payload, PLAIN_SIZE), UDP_SIZE) if asked.edns >= 0 else PLAIN_SIZE
    return _wire(reply, size)


def truncated(query: bytes) -> bytes | None:
    """An empty reply that sends the asker to TCP (used beyond the rate limit)."""
    if len(query) < 12 or query[2] & 0x80:
        return None
    try:
        reply = dns.message.make_response(dns.message.from_wire(query), our_payload=UDP_SIZE)
    except (dns.exception.DNSException, ValueError):
        return None
    reply.flags |= dns.flags.TC
    return reply.to_wire()


def _reply(asked: dns.message.Message, zone: Zone) -> dns.message.Message:
    reply = dns.message.make_response(asked, our_payload=UDP_SIZE)
    if asked.edns > 0:
        reply.set_rcode(dns.rcode.BADVERS)
        return reply
    if asked.opcode() != dns.opcode.QUERY:
        reply.set_rcode(dns.rcode.NOTIMP)
        return reply
    if len(asked.question) != 1:
        reply.set_rcode(dns.rcode.FORMERR)
        return reply
    question = asked.question[0]
    name, kind = question.name, question.rdtype
    outside = question.rdclass != IN or not name.is_subdomain(zone.origin)
    if outside or kind in _REFUSED_KINDS:
        reply.set_rcode(dns.rcode.REFUSED)
        return reply
    reply.flags |= dns.flags.AA
    found = zone.find(name, kind)
    if found is None:
        if not zone.exists(name):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        soa = zone.find(zone.origin, dns.rdatatype.SOA)
        assert soa is not None
        reply.authority.append(dns.rrset.from_rdata_list(zone.origin, NEGATIVE_TTL, list(soa)))
        return reply
    reply.answer.append(dns.rrset.from_rdata_list(name, found.ttl, list(found)))
    if kind in (dns.rdatatype.SRV, dns.rdatatype.NS):
        _add_addresses(reply, zone, found)
    return reply


def _add_addresses(reply: dns.message.Message, zone: Zone, found: dns.rdataset.Rdataset) -> None:
    for record in found:
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            extra = zone.find(record.target, kind)
            if extra is not None:
                made = dns.rrset.from_rdata_list(record.target, extra.ttl, list(extra))
                reply.additional.append(made)


def _wire(reply: dns.message.Message, size: int) -> bytes:
    try:
        return reply.to_wire(max_size=size)
    except dns.exception.TooBig:
        pass
    reply.additional = []
    try:
        return reply.to_wire(max_size=size)
    except dns.exception.TooBig:
        reply.answer, reply.authority = [], []
        reply.flags |= dns.flags.TC
        return reply.to_wire(max_size=size)


class ResponseLimit:
    """Limits replies over UDP to one network, so that nobody is flooded through us."""

    def __init__(self, rate: float = ANSWERS_PER_SECOND) -> None:
        self._buckets = Buckets(rate)
        self._slips = 0

    def verdict(self, host: str, now: float) -> str:
        """ "answer", "slip" (answer truncated, every second time beyond the limit) or "drop"."""
        address = ipaddress.ip_address(host)
        network = address.packed[: 3 if address.version == 4 else 7]
        if self._buckets.take(network, now):
            return "answer"
        self._slips += 1
        return "slip" if self._slips % 2 else "drop"
