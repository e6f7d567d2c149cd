"""Addresses that mean something in one network only (RFC 1918, RFC 6598, RFC 4193)."""

from __future__ import annotations

import ipaddress

PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


def is_private(host: str) -> bool:
    """Whether a canonical textual address can be sent to from its own network only."""
    address = ipaddress.ip_address(host)
    return any(address.version == each.version and address in each for each in PRIVATE)
