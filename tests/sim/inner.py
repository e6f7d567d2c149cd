"""The programs behind a node's TUN: a tiny IPv6 host that sends numbered packets and keeps notes.

Packets are real IPv6 (UDP and ICMPv6 echo) with right checksums, checked on arrival, so a data
plane that damages one is found out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

TCP, UDP, ICMP6 = 6, 17, 58
NO_ROUTE = 0
ECHO_REQUEST, ECHO_REPLY, UNREACHABLE, TOO_BIG = 128, 129, 1, 2
PORT = 7777


@dataclass(frozen=True, slots=True)
class Note:
    """A packet that arrived: when, from whom, its number, and whether it was an echo's answer."""

    at: float
    source: bytes
    number: int
    kind: str


class Stream(Protocol):
    """A TCP of this host."""

    def arrived(self, segment: bytes) -> None:
        """A segment came."""

    def no_route(self, quoted: bytes) -> None:
        """An ICMP error says that a packet of it had no way."""


class InnerHost:
    """Sends through ``out`` (a packet into the TUN) and takes what comes out of it."""

    def __init__(self, out: Callable[[bytes], None], now: Callable[[], float]) -> None:
        self.address = b""
        self.notes: list[Note] = []
        self.sent: dict[tuple[bytes, str, int], float] = {}
        self.bad: list[str] = []
        self.streams: dict[int, Stream] = {}  # by port
        self._out = out
        self._now = now

    # -------------------------------------------------------------- sending

    def udp(self, to: bytes, number: int, size: int = 200) -> None:
        """One UDP datagram of ``size`` payload bytes with a number in it."""
        self.sent[(to, "udp", number)] = self._now()
        payload = struct.pack(">Q", number) + bytes(max(0, size - 8))
        head = struct.pack(">HHHH", PORT, PORT, 8 + len(payload), 0)
        self._out(self._packet(to, UDP, head + payload, 6))

    def ping(self, to: bytes, number: int, size: int = 56) -> None:
        """One ICMPv6 echo request."""
        self.sent[(to, "echo", number)] = self._now()
        self._echo(to, ECHO_REQUEST, struct.pack(">Q", number) + bytes(max(0, size - 8)))

    def tcp(self, to: bytes, segment: bytes) -> None:
        """One TCP segment, its checksum zero."""
        self._out(self._packet(to, TCP, segment, 16))

    # -------------------------------------------------------------- receiving

    def receive(self, packet: bytes) -> None:
        """A packet came out of the TUN."""
        if len(packet) < 48 or packet[0] >> 4 != 6:
            self.bad.append("not IPv6")
            return
        length, protocol = struct.unpack_from(">HB", packet, 4)
        source, destination, body = packet[8:24], packet[24:40], packet[40:]
        if destination != self.address or length != len(body):
            self.bad.append("not for this host, or of another length")
        elif checksum(source, destination, protocol, body) != 0:
            self.bad.append("wrong checksum")
        elif protocol == UDP:
            self._note(source, struct.unpack_from(">Q", body, 8)[0], "udp")
        elif protocol == ICMP6:
            self._icmp(source, body)
        elif protocol == TCP:
            port = struct.unpack_from(">H", body, 2)[0]
            if port in self.streams:
                self.streams[port].arrived(body)

    def _icmp(self, source: bytes, body: bytes) -> None:
        match body[0]:
            case 128:
                self._note(source, struct.unpack_from(">Q", body, 8)[0], "asked")
                self._echo(source, ECHO_REPLY, body[8:])
            case 129:
                self._note(source, struct.unpack_from(">Q", body, 8)[0], "echo")
            case 1:
                self._note(source, 0, "unreachable")
                if body[1] == NO_ROUTE:
                    self._no_route(body[8:])
            case other:
                self._note(source, 0, f"icmp {other}")

    def _no_route(self, quoted: bytes) -> None:
        port = struct.unpack_from(">H", quoted, 40)[0] if quoted[6] == TCP else 0
        if port in self.streams:
            self.streams[port].no_route(quoted)

    # -------------------------------------------------------------- reading the notes

    def times(self, kind: str, source: bytes | None = None) -> dict[int, float]:
        """When each number first arrived."""
        first: dict[int, float] = {}
        for note in self.notes:
            if note.kind == kind and (source is None or note.source == source):
                first.setdefault(note.number, note.at)
        return first

    def copies(self, kind: str) -> int:
        """Packets that arrived more than once."""
        numbers = [(note.source, note.number) for note in self.notes if note.kind == kind]
        return len(numbers) - len(set(numbers))

    def longest_gap(self, kind: str, since: float = 0.0, until: float = 1e18) -> float:
        """Longest hole in seconds between arrivals inside an interval."""
        at = [note.at for note in self.notes if note.kind == kind and since <= note.at <= until]
        return max((later - sooner for sooner, later in pairwise(at)), default=0.0)

    # -------------------------------------------------------------- parts

    def _note(self, source: bytes, number: int, kind: str) -> None:
        self.notes.append(Note(self._now(), source, number, kind))

    def _echo(self, to: bytes, kind: int, payload: bytes) -> None:
        self._out(self._packet(to, ICMP6, struct.pack(">BBHHH", kind, 0, 0, 1, 1) + payload, 2))

    def _packet(self, to: bytes, protocol: int, body: bytes, at: int) -> bytes:
        total = checksum(self.address, to, protocol, body) or 0xFFFF
        body = body[:at] + total.to_bytes(2, "big") + body[at + 2 :]
        head = struct.pack(">IHBB", 6 << 28, len(body), protocol, 64)
        return head + self.address + to + body


def checksum(source: bytes, destination: bytes, protocol: int, body: bytes) -> int:
    """Internet checksum with the IPv6 pseudo-header; 0 over a packet that carries a right one."""
    data = source + destination + struct.pack(">II", len(body), protocol) + body
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
