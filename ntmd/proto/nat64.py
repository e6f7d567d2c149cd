"""IPv4 endpoints behind a NAT64, as an IPv6-only host must write them (RFC 6052, RFC 7050)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from ntmd.proto.types import Endpoint

NAME = "ipv4only.arpa"
KNOWN = (b"\xc0\x00\x00\xaa", b"\xc0\x00\x00\xab")  # 192.0.0.170 and .171, RFC 7050 section 2.2
LENGTHS = (96, 64, 56, 48, 40, 32)  # RFC 6052 section 2.2, the usual one first
RESERVED = 8  # the byte at which bits 64 to 71 stay zero


@dataclass(frozen=True, slots=True)
class Prefix:
    """A NAT64's prefix: 16 bytes with zeros behind ``length`` bits."""

    network: bytes
    length: int

    def synthesise(self, endpoint: Endpoint) -> Endpoint:
        """The IPv6 endpoint that stands for an IPv4 one."""
        address = bytearray(self.network)
        for place, byte in zip(_places(self.length), _packed(endpoint.host), strict=True):
            address[place] = byte
        return Endpoint(str(ipaddress.IPv6Address(bytes(address))), endpoint.port)

    def native(self, endpoint: Endpoint) -> Endpoint | None:
        """The IPv4 endpoint that an IPv6 one stands for; None if it is not of this prefix."""
        if endpoint.family != 6:
            return None
        address = ipaddress.IPv6Address(endpoint.host).packed
        four = bytes(address[place] for place in _places(self.length))
        inside = Endpoint(str(ipaddress.IPv4Address(four)), endpoint.port)
        return inside if self.synthesise(inside) == endpoint else None

    def __str__(self) -> str:
        return f"{ipaddress.IPv6Address(self.network)}/{self.length}"


def discover(addresses: tuple[bytes, ...]) -> Prefix | None:
    """The prefix with which a resolver wrote ``ipv4only.arpa`` (RFC 7050 section 3), or None."""
    for address in addresses:
        for length in LENGTHS:
            if bytes(address[place] for place in _places(length)) in KNOWN:
                kept = (1 << 128) - (1 << (128 - length))
                network = int.from_bytes(address, "big") & kept
                return Prefix(network.to_bytes(16, "big"), length)
    return None


def _packed(host: str) -> bytes:
    return ipaddress.IPv4Address(host).packed


def _places(length: int) -> list[int]:
    """Which bytes of the address hold the IPv4 address."""
    places: list[int] = []
    place = length // 8
    while len(places) < 4:
        if place != RESERVED:
            places.append(place)
        place += 1
    return places
