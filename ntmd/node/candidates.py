"""Which endpoints may be sent to, and where this node may be reached (rule S7)."""

from __future__ import annotations

import ipaddress

from ntmd.node.underlay import Underlay
from ntmd.proto.messages import CandidateField
from ntmd.proto.private import is_private
from ntmd.proto.timing import DIRECTION_BYTES
from ntmd.proto.types import CandidateKind, Endpoint

MAX_PER_PEER = 16
LOWEST_PORT = 1024
FAILURES = 3
PAUSE = 60.0  # seconds
PREFIXES_KEPT = 1024


def acceptable(endpoint: Endpoint, own: tuple[str, ...], virtual: ipaddress.IPv6Network) -> bool:
    """Whether a candidate that someone named may be sent to at all.

    Refused: unspecified, loopback, link-local, multicast, broadcast, the virtual prefix, own
    addresses, ports below 1024.
    """
    ip = ipaddress.ip_address(endpoint.host)
    if endpoint.port < LOWEST_PORT or endpoint.host in own:
        return False
    if ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_link_local:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return ip != ipaddress.IPv4Address("255.255.255.255") and not ip.packed.startswith(b"\0")
    return ip not in virtual and ip.ipv4_mapped is None


class ContactBudget:
    """First-contact bytes that directions of one coordinator may cause (rule S7)."""

    def __init__(self) -> None:
        self._since = -1e9
        self._spent = 0

    def allow(self, size: int, now: float) -> bool:
        """Whether ``size`` more bytes may leave in this minute; counts them if so."""
        if now - self._since >= 60.0:
            self._since, self._spent = now, 0
        if self._spent + size > DIRECTION_BYTES:
            return False
        self._spent += size
        return True


class Pauses:
    """Prefixes where calls came to nothing: three failures pause a /24 or /48 for 60 s (S7)."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def failed(self, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """A whole call to these endpoints went unanswered: one failure of each of their prefixes,
        however many of them a peer was said to have there."""
        for prefix in dict.fromkeys(_prefix(endpoint) for endpoint in endpoints):
            count, _ = self._failures.pop(prefix, (0, 0.0))
            self._failures[prefix] = (count + 1, now)
        while len(self._failures) > PREFIXES_KEPT:
            del self._failures[next(iter(self._failures))]

    def answered(self, endpoint: Endpoint) -> None:
        """Something is there."""
        self._failures.pop(_prefix(endpoint), None)

    def paused(self, endpoint: Endpoint, now: float) -> bool:
        """Whether nothing is to be sent there at first contact."""
        count, at = self._failures.get(_prefix(endpoint), (0, 0.0))
        return count >= FAILURES and now - at < PAUSE


def _prefix(endpoint: Endpoint) -> str:
    length = 24 if endpoint.family == 4 else 48
    return str(ipaddress.ip_network((endpoint.host, length), strict=False))


def merge(
    old: dict[Endpoint, CandidateKind], new: tuple[CandidateField, ...]
) -> dict[Endpoint, CandidateKind]:
    """The candidates of a peer after it named ``new``; the newest ones stay when full."""
    merged = dict(old)
    for item in new:
        merged.pop(item.endpoint, None)
        try:
            merged[item.endpoint] = CandidateKind(item.kind)
        except ValueError:
            merged[item.endpoint] = CandidateKind.REFLEXIVE
    while len(merged) > MAX_PER_PEER:
        del merged[next(iter(merged))]
    return merged


def promising(old: dict[Endpoint, CandidateKind], new: tuple[CandidateField, ...]) -> bool:
    """Whether a peer names a way that its coordinator could not weigh: a public address that is
    new, or a port that a router or a NAT64 gave."""
    hosts = {endpoint.host for endpoint in old}
    given = (CandidateKind.MAPPED, CandidateKind.NAT64)
    return any(
        item.endpoint not in old and (item.kind in given or item.endpoint.host not in hosts)
        for item in new
        if not is_private(item.endpoint.host)
    )


def own_candidates(
    underlay: Underlay, reflexive: dict[int, Endpoint], limit: int
) -> tuple[CandidateField, ...]:
    """Host, mapped and reflexive candidates of all open sockets, best socket first."""
    found: dict[Endpoint, CandidateKind] = {}
    for socket in underlay.usable():
        local = socket.local
        seen = reflexive.get(socket.number)
        if local is not None:
            found.setdefault(Endpoint(socket.network.address, local.port), CandidateKind.HOST)
        if socket.mapped is not None:
            found.setdefault(socket.mapped, CandidateKind.MAPPED)
        if seen is not None:
            found.setdefault(seen, CandidateKind.REFLEXIVE)
        if socket.outside is not None:
            found.setdefault(socket.outside, CandidateKind.NAT64)
    return tuple(CandidateField(int(k), e) for e, k in list(found.items())[:limit])
