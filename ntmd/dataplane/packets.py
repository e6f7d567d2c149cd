"""Inner packets: header fields, checksums, extension headers, ICMPv6 errors.

Only IPv6 passes a tunnel (virtual addresses are IPv6). Sources: RFC 8200 (IPv6), RFC 4443
(ICMPv6), RFC 1071 (checksum), Linux ``include/uapi/linux/virtio_net.h`` (the header of 10 bytes
before each packet of a TUN with ``IFF_VNET_HDR``, native byte order).
"""

from __future__ import annotations

import struct

VNET = struct.Struct("=BBHHHH")  # flags, gso type, header length, gso size, csum start, csum offset
VNET_SIZE = 10
VNET_NEEDS_CSUM = 1
GSO_NONE, GSO_TCP6, GSO_UDP = 0, 4, 5
GSO_ECN = 0x80

IP_HEADER = 40
HOP_BY_HOP, TCP, UDP, ROUTING, FRAGMENT_HEADER, ICMP6, DESTINATION_OPTIONS = (
    0,
    6,
    17,
    43,
    44,
    58,
    60,
)
EXTENSIONS = (HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, FRAGMENT_HEADER)
CHECKSUM_AT = {TCP: 16, UDP: 6}  # offset of the checksum in the layer 4 header
MINIMUM = {TCP: 20, UDP: 8}
FIN, SYN, RST, PSH, ACK, CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x80

UNREACHABLE, TOO_BIG = 1, 2
NO_ROUTE, ADDRESS_UNREACHABLE, SOURCE_POLICY = 0, 3, 5
SEGMENT_HEAD = IP_HEADER + MINIMUM[TCP]
NEIGHBOUR_DISCOVERY = range(133, 138)  # RS, RA, NS, NA, redirect (RFC 4861)
MINIMUM_MTU = 1280

pack_u16 = struct.Struct(">H").pack_into
pack_u32 = struct.Struct(">I").pack_into
read_u16 = struct.Struct(">H").unpack_from
read_u32 = struct.Struct(">I").unpack_from


def total(data: bytes | bytearray | memoryview) -> int:
    """One's complement sum of the 16-bit words, modulo 65,535 (2**16 is 1 there)."""
    value = int.from_bytes(data, "big")
    return (value << 8 if len(data) & 1 else value) % 65535


def pseudo_sum(addresses: bytes | bytearray | memoryview, length: int, protocol: int) -> int:
    """Sum over the pseudo-header: source and destination (32 bytes), length, protocol."""
    return (int.from_bytes(addresses, "big") + length + protocol) % 65535


def checksum(sums: int) -> int:
    """The value for the checksum field from a sum over all; never 0, which UDP forbids."""
    return 65535 - sums % 65535


def complete(packet: bytearray | memoryview, start: int, offset: int) -> None:
    """Fill a checksum in. The field, ``offset`` after ``start``, holds the pseudo-header's sum."""
    pack_u16(packet, start + offset, checksum(total(packet[start:])))


def last_header(packet: bytes | bytearray | memoryview) -> tuple[int, int, bool]:
    """(protocol, its offset, whether there is a routing header), past the extension headers."""
    protocol, at, routing = packet[6], IP_HEADER, False
    while protocol in EXTENSIONS and at + 8 <= len(packet):
        routing = routing or protocol == ROUTING
        if protocol == FRAGMENT_HEADER:
            if read_u16(packet, at + 2)[0] & 0xFFF8:
                return FRAGMENT_HEADER, at, routing  # a later fragment: what follows is payload
            following = 8
        else:
            following = 8 * (packet[at + 1] + 1)
        protocol, at = packet[at], at + following
    return protocol, at, routing or protocol == ROUTING


def is_segment(packet: bytes | memoryview) -> bool:
    """Whether a packet is a TCP segment, whole, of a stream that is open: without SYN or RST."""
    if len(packet) < SEGMENT_HEAD or packet[6] != TCP:
        return False
    return packet[IP_HEADER + 13] & (SYN | RST | ACK) == ACK


def no_route_to(segment: bytes) -> bytes:
    """The ICMPv6 error "no route" about what the receiver of ``segment`` sent and has no
    acknowledgement for, as from the segment's source.

    A stream whose repetitions met no way takes back its waiting time (RFC 6069) and, where that is
    over by then, repeats at once. One that waits for nothing ignores it.
    """
    source, to = segment[8:24], segment[24:40]
    ports = segment[IP_HEADER + 2 : IP_HEADER + 4] + segment[IP_HEADER : IP_HEADER + 2]
    acked = segment[IP_HEADER + 8 : IP_HEADER + 12]
    quoted = struct.pack(">IHBB", 6 << 28, MINIMUM[TCP], TCP, 64) + to + source
    quoted += ports + acked + bytes(4) + bytes((0x50, ACK)) + bytes(6)
    answer = error_answer(quoted, UNREACHABLE, NO_ROUTE)
    assert answer is not None
    return answer


def is_local_only(address: bytes) -> bool:
    """Whether an address never passes a tunnel: multicast, link-local, loopback, unspecified."""
    return (
        address[0] == 0xFF
        or (address[0] == 0xFE and address[1] & 0xC0 == 0x80)
        or address[:15] == bytes(15)
    )


def error_answer(packet: bytes, kind: int, code: int, value: int = 0) -> bytes | None:
    """An ICMPv6 error for the local sender of ``packet``, as from where it was going.

    None where RFC 4443 section 2.4 (e) forbids one: the packet is an ICMPv6 error itself or was
    meant for a multicast address.
    """
    protocol, at, _ = last_header(packet)
    error = protocol == ICMP6 and at < len(packet) and packet[at] < 128
    if error or protocol == FRAGMENT_HEADER or packet[24] == 0xFF or packet[8] == 0xFF:
        return None
    body = bytearray(struct.pack(">BBHI", kind, code, 0, value) + packet[: MINIMUM_MTU - 48])
    addresses = packet[24:40] + packet[8:24]
    pack_u16(body, 2, checksum(pseudo_sum(addresses, len(body), ICMP6) + total(body)))
    return struct.pack(">IHBB", 6 << 28, len(body), ICMP6, 64) + addresses + bytes(body)
