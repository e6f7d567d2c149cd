"""Two planes with a tunnel between them, and packets for them to carry."""

from __future__ import annotations

import struct
from typing import Any

from ntmd.dataplane.packets import TCP, UDP, checksum, pseudo_sum, total
from ntmd.dataplane.simple import SimplePlane
from ntmd.dataplane.slots import Slots
from ntmd.proto.plane import DataKey, InstallTunnel, PlanePath, TunnelEntry
from ntmd.proto.types import Endpoint, Path, Suite

A = bytes.fromhex("fd00aa00000000000000000000000001")
B = bytes.fromhex("fd00aa00000000000000000000000002")
AT_A, AT_B = Endpoint("192.0.2.1", 1000), Endpoint("192.0.2.2", 2000)
KEY_AB, KEY_BA = bytes(range(32)), bytes(range(32, 64))


def tcp_packet(payload: bytes, sequence: int = 1, flags: int = 0x10, source=A, to=B) -> bytes:
    head = struct.pack(">HHIIBBHHH", 1234, 80, sequence, 9, 5 << 4, flags, 500, 0, 0)
    return ipv6(TCP, head + payload, 16, source, to)


def udp_packet(payload: bytes, source: bytes = A, to: bytes = B, port: int = 7) -> bytes:
    head = struct.pack(">HHHH", port, 7, 8 + len(payload), 0)
    return ipv6(UDP, head + payload, 6, source, to)


def ipv6(protocol: int, body: bytes, at: int | None, source: bytes = A, to: bytes = B) -> bytes:
    """An IPv6 packet with a right checksum ``at`` that offset of its body."""
    if at is not None:
        sums = pseudo_sum(source + to, len(body), protocol) + total(body)
        body = body[:at] + struct.pack(">H", checksum(sums)) + body[at + 2 :]
    return struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + source + to + body


def read_into(slots: Slots, raw: bytes) -> None:
    """As ``os.readv`` lays out what comes from a TUN."""
    at = 0
    for part in slots.into:
        piece = raw[at : at + len(part)]
        part[: len(piece)] = piece
        at += len(piece)


def entry(side: str, *, session: int = 1, send: bool = True, **changes) -> TunnelEntry:
    """The entry of one end."""
    own, peer = (1, 2) if side == "a" else (2, 1)
    out, back = (KEY_AB, KEY_BA) if side == "a" else (KEY_BA, KEY_AB)
    remote = AT_B if side == "a" else AT_A
    values: dict[str, Any] = {
        "tunnel": 5,
        "peer_address": B if side == "a" else A,
        "own_indexes": (100 + own,),
        "receive": (DataKey(own, Suite.AES_GCM, back, session),),
        "send": DataKey(peer, Suite.AES_GCM, out, session) if send else None,
        "peer_index": 100 + peer,
        "paths": (PlanePath(Path(1, remote), 1500),),
        "takes_partial": True,
    } | changes
    return TunnelEntry(**values)


def pair() -> tuple[SimplePlane, SimplePlane]:
    a, b = SimplePlane(A), SimplePlane(B)
    a.apply(InstallTunnel(entry("a")), 0.0)
    b.apply(InstallTunnel(entry("b")), 0.0)
    return a, b
