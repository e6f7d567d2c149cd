"""Port mappings asked of a home router: the bytes of PCP and NAT-PMP (RFC 6887, RFC 6886).

Pure: requests are built and answers read here, :mod:`ntmd.platform.linux.scout` sends them. Both
protocols speak UDP to port 5351 of the default gateway. Only the MAP of one UDP port over IPv4.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from dataclasses import dataclass

from ntmd.proto.types import Endpoint

SERVER_PORT = 5351
LIFETIME = 7200  # seconds asked for (RFC 6887 section 15; routers may grant less)
SHORTEST, LONGEST = 120, 86_400  # a grant outside of these is taken as the nearer one, seconds
UDP = 17
ANSWER = 0x80
MAP = 1
ADDRESS = 0

_PCP_HEAD = struct.Struct(">BBHI16s")  # version, opcode, reserved, lifetime, client address
_PCP_REPLY = struct.Struct(">BBBBII12x")  # version, opcode, reserved, result, lifetime, epoch
_PCP_MAP = struct.Struct(">12sB3xHH16s")  # nonce, protocol, internal port, external port, address
_PMP_ADDRESS = struct.Struct(">BBHI4s")
_PMP_MAP = struct.Struct(">BBHIHHI")


@dataclass(frozen=True, slots=True)
class Granted:
    """A mapping: the outside endpoint and for how many seconds."""

    outside: Endpoint
    lifetime: int


class Refused(Exception):
    """The router speaks the protocol and said no; the text says why."""


def _mapped(address: str) -> bytes:
    return b"\0" * 10 + b"\xff\xff" + ipaddress.IPv4Address(address).packed


def _lifetime(seconds: int) -> int:
    return max(SHORTEST, min(LONGEST, seconds))


def pcp_request(inside: Endpoint, nonce: bytes, lifetime: int = LIFETIME) -> bytes:
    """A MAP request for one UDP port; ``lifetime`` 0 deletes. The outside port wished is ours."""
    head = _PCP_HEAD.pack(2, MAP, 0, lifetime, _mapped(inside.host))
    wished = inside.port if lifetime else 0
    return head + _PCP_MAP.pack(nonce, UDP, inside.port, wished, _mapped("0.0.0.0"))


def pcp_answer(data: bytes, inside: Endpoint, nonce: bytes) -> Granted | None:
    """What a router answered; None if it is no answer to this request. Raises :class:`Refused`."""
    if len(data) < _PCP_REPLY.size or data[0] != 2 or data[1] != ANSWER | MAP:
        if len(data) >= 4 and data[0] == 0 and data[1] & ANSWER:
            raise Refused("it speaks NAT-PMP only")  # RFC 6886 section 9
        return None
    result, lifetime = data[3], int.from_bytes(data[4:8], "big")
    if len(data) < _PCP_REPLY.size + _PCP_MAP.size:
        if result:
            raise Refused(f"PCP result {result}")
        return None
    echoed, protocol, port, outside_port, address = _PCP_MAP.unpack_from(data, _PCP_REPLY.size)
    if echoed != nonce or protocol != UDP or port != inside.port:
        return None
    if result:
        raise Refused(f"PCP result {result}")
    outside = ipaddress.IPv6Address(address).ipv4_mapped
    return _granted(outside, outside_port, lifetime)


def pmp_address_request() -> bytes:
    """Which outside address the router has."""
    return bytes((0, ADDRESS))


def pmp_address(data: bytes) -> str | None:
    """The outside address; None if this is no such answer. Raises :class:`Refused`."""
    if len(data) < 4 or data[0] != 0 or data[1] != ANSWER | ADDRESS:
        return None
    _check_pmp(data)
    if len(data) < _PMP_ADDRESS.size:
        return None
    address = ipaddress.IPv4Address(_PMP_ADDRESS.unpack_from(data)[4])
    if address.is_unspecified:
        raise Refused("the router has no outside address")
    return str(address)


def pmp_request(port: int, lifetime: int = LIFETIME) -> bytes:
    """A mapping of the UDP port ``port``; ``lifetime`` 0 deletes."""
    wished = port if lifetime else 0
    return struct.pack(">BBHHHI", 0, MAP, 0, port, wished, lifetime)


def pmp_answer(data: bytes, port: int, outside: str) -> Granted | None:
    """What a router answered; None if it is no answer to this request. Raises :class:`Refused`."""
    if len(data) < 4 or data[0] != 0 or data[1] != ANSWER | MAP:
        return None
    _check_pmp(data)
    if len(data) < _PMP_MAP.size:
        return None
    _, _, _, _, inside_port, outside_port, lifetime = _PMP_MAP.unpack_from(data)
    if inside_port != port:
        return None
    return _granted(ipaddress.IPv4Address(outside), outside_port, lifetime)


def upnp_answer(said: bytes) -> Granted:
    """What the UPnP helper printed; its words are the router's. Raises :class:`Refused`."""
    try:
        answer = json.loads(said)
        if "why" in answer:
            raise Refused(str(answer["why"])[:200])
        address = ipaddress.IPv4Address(answer["host"])
        port, lifetime = int(answer["port"]), int(answer["lifetime"])
    except (ValueError, KeyError, TypeError):
        raise Refused("no UPnP router gave an answer that can be") from None
    return _granted(address, port, lifetime)


def _check_pmp(data: bytes) -> None:
    result = int.from_bytes(data[2:4], "big")
    if result:
        raise Refused(f"NAT-PMP result {result}")


def _granted(address: ipaddress.IPv4Address | None, port: int, lifetime: int) -> Granted:
    if address is None or address.is_unspecified or not 0 < port <= 0xFFFF:
        raise Refused("the router granted an endpoint that cannot be")
    return Granted(Endpoint(str(address), port), _lifetime(lifetime))
