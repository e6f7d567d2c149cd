"""Which endpoints may be sent to, and where this node may be reached (rule S7)."""

from __future__ import annotations

import ipaddress

from ntmd.node.underlay import Underlay
from ntmd.proto.messages import CandidateField
from ntmd.proto.types import CandidateKind, Endpoint

MAX_PER_PEER = 16
LOWEST_PORT = 1024


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


def own_candidates(
    underlay: Underlay, reflexive: dict[int, Endpoint], limit: int
) -> tuple[CandidateField, ...]:
    """Host and reflexive candidates of all open sockets, best socket first."""
    found: dict[Endpoint, CandidateKind] = {}
    for socket in underlay.usable():
        local = socket.local
        seen = reflexive.get(socket.number)
        if local is not None:
            found.setdefault(Endpoint(socket.network.address, local.port), CandidateKind.HOST)
        if seen is not None:
            found.setdefault(seen, CandidateKind.REFLEXIVE)
    return tuple(CandidateField(int(k), e) for e, k in list(found.items())[:limit])
