"""Inner packets on their way to the TUN: what must not pass is refused, neighbours are joined.

Consecutive packets of one TCP flow, or UDP datagrams of one flow and one size, become one
super-packet, as the kernel's GRO would make it. Packets are opened side by side, headers and all;
what is written is the first and, gathered by the kernel, the payloads of the others. The header
that would continue the run is known beforehand, so joining costs one comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import repeat
from operator import length_hint

from ntmd.dataplane import packets
from ntmd.dataplane.cipher import Into, InvalidTag
from ntmd.dataplane.packets import (
    ACK,
    CHECKSUM_AT,
    FIN,
    GSO_NONE,
    GSO_TCP6,
    GSO_UDP,
    IP_HEADER,
    PSH,
    TCP,
    UDP,
    VNET,
    VNET_NEEDS_CSUM,
    VNET_SIZE,
    pack_u16,
    pack_u32,
    read_u16,
    read_u32,
)
from ntmd.dataplane.slicing import VIEWS, Kept, slices
from ntmd.dataplane.slots import SEQUENCE
from ntmd.dataplane.stamps import Nonces, drain, pack_sequences
from ntmd.dataplane.table import Tunnel

LIMIT = VNET_SIZE + 65_535  # of a super-packet with its virtio header
LARGEST = 2048  # more than any single packet
RUN_PACKETS = VIEWS  # of a super-packet; of UDP more than 64 are not taken by every kernel
HEAD_MAX = 100  # IPv6 and TCP with all options
NO_CHECKSUM = VNET.pack(0, GSO_NONE, 0, 0, 0, 0)
KINDS = {TCP: GSO_TCP6, UDP: GSO_UDP}

Write = Callable[[list[memoryview]], None]  # one packet, in pieces


class Runs:
    """Takes the packets of all tunnels in order; ``write`` gets what goes to the TUN.

    With ``vnet`` what is written begins with a virtio header. ``join`` names the protocols that may
    be joined: none for a TUN that takes no super-packets.
    """

    def __init__(
        self, write: Write, drops: Counter[str], *, vnet: bool, join: tuple[int, ...]
    ) -> None:
        self.arena = bytearray(LIMIT + RUN_PACKETS * HEAD_MAX + LARGEST)
        self.view = memoryview(self.arena)
        self._write, self._drops = write, drops
        self._vnet, self._join = vnet, join if vnet else ()
        self._count = 0  # packets in the run
        self._length = 0  # of the super-packet
        self._at = VNET_SIZE  # where the next packet is opened
        self._tunnel: Tunnel | None = None
        self._protocol = self._head = self._size = 0
        self._full = 0  # length of a packet that leaves the run open
        self._sequence = 0
        self._expected = bytearray()
        self._last = 0  # bytes of payload in the last packet
        self._nonces = Nonces()
        self._parts: Kept = {}

    # ------------------------------------------------------------------ one packet

    def place(self) -> int:
        """Where in the arena to open a packet."""
        return self._at

    def take(self, tunnel: Tunnel, length: int, partial: bool) -> None:
        """A packet was opened at its place. ``partial``: its checksum is left to us."""
        at, head = self._at, self._head
        if (
            self._count
            and head < length <= self._full
            and tunnel is self._tunnel
            and self._length + length - head <= LIMIT - VNET_SIZE
            and self._count < RUN_PACKETS
            and (partial or self._verify(at, length))
        ):
            partial = True
            got = self.arena[at : at + head]
            if length == self._full and got == self._expected:
                self._extend(length)
                return
            if self._is_last(got, length):
                self._extend(length)
                self.close(got)
                return
        self.close()
        if at != VNET_SIZE:
            self.arena[VNET_SIZE : VNET_SIZE + length] = self.arena[at : at + length]
        self._begin(tunnel, length, partial)

    def whole(self, tunnel: Tunnel, packet: bytes) -> None:
        """A packet that came in fragments."""
        self.close()
        if len(packet) > LIMIT - VNET_SIZE:
            self._drops["in_bad_length"] += 1
            return
        self.arena[VNET_SIZE : VNET_SIZE + len(packet)] = packet
        self._begin(tunnel, len(packet), False)

    # ------------------------------------------------------------------ many packets

    def room(self, tunnel: Tunnel, length: int) -> int:
        """How many more full packets of ``length`` bytes the open run may take."""
        if not self._count or tunnel is not self._tunnel or length != self._full:
            return 0
        room = (LIMIT - VNET_SIZE - self._length) // self._size
        return min(room, RUN_PACKETS - self._count)

    def take_many(self, opened: Into, word: int, counter: int, sources: list[memoryview]) -> int:
        """Open datagrams of consecutive counters behind the run; returns how many opened.

        The nonce is what the counter would be: that a datagram opens shows that it was. Mostly all
        continue the run, and their headers are compared in one go.
        """
        tunnel, first, full = self._tunnel, self._count, self._full
        assert tunnel is not None
        done = len(sources)
        nonces = self._nonces.take(word, counter, done)
        places = slices(self._parts, self.view, VNET_SIZE, full, (0, full))
        pending = iter(sources)
        try:
            drain(map(opened, nonces, pending, repeat(None), places[first : first + done]))
        except (InvalidTag, LookupError, ValueError):
            done -= length_hint(pending) + 1
        heads = slices(self._parts, self.view, VNET_SIZE, full, (0, self._head))
        if b"".join(heads[first : first + done]) == self._continued(done):
            self._count += done
            self._last = self._size
            self._length += done * self._size
            self._at += done * full
            if self._protocol == TCP:
                self._advance(done)
        else:
            self._one_by_one(tunnel, done)
        return done

    def _continued(self, count: int) -> bytearray:
        """The headers of the next ``count`` packets of the run."""
        want = self._expected * count
        if self._protocol == TCP and count:
            packed = pack_sequences(self._sequence, self._size, count)
            for i in range(4):
                want[SEQUENCE + i :: self._head] = packed[i::4]
        return want

    def _one_by_one(self, tunnel: Tunnel, count: int) -> None:
        """Packets of full length are open, but some of them do not continue the run."""
        arena, begin, full = self.arena, self._at, self._full
        for at in range(begin, begin + count * full, full):
            to = self._at  # never after ``at``: each packet before took its room, or ended the run
            if to != at:
                arena[to : to + full] = arena[at : at + full]
            self.take(tunnel, full, True)

    # ------------------------------------------------------------------ the run

    def close(self, last: bytearray | None = None) -> None:
        """Write the run, if there is one; ``last`` is the header of its last packet."""
        if not self._count:
            return
        arena, count, protocol = self.arena, self._count, self._protocol
        kind, size = GSO_NONE, 0
        parts = [self.view[: VNET_SIZE + self._full]]
        if count > 1:
            kind, size = KINDS[protocol], self._size
            layer4 = self._length - IP_HEADER
            pack_u16(arena, VNET_SIZE + 4, layer4)
            if protocol == UDP:
                pack_u16(arena, VNET_SIZE + IP_HEADER + 4, layer4)
            elif last is not None:
                arena[VNET_SIZE + IP_HEADER + 13] = last[IP_HEADER + 13]
            addresses = self.view[VNET_SIZE + 8 : VNET_SIZE + IP_HEADER]
            pseudo = packets.pseudo_sum(addresses, layer4, protocol)
            pack_u16(arena, VNET_SIZE + IP_HEADER + CHECKSUM_AT[protocol], pseudo)
            part = (self._head, self._full)
            parts += slices(self._parts, self.view, VNET_SIZE, self._full, part)[1:count]
            if self._last < size:
                parts[-1] = parts[-1][: self._last]
        VNET.pack_into(
            arena, 0, VNET_NEEDS_CSUM, kind, self._head, size, IP_HEADER, CHECKSUM_AT[protocol]
        )
        self._count, self._at = 0, VNET_SIZE
        self._write(parts)

    def _begin(self, tunnel: Tunnel, length: int, partial: bool) -> None:
        """The packet behind the virtio header is the first of a run, or goes alone."""
        end = VNET_SIZE + length
        reason = refusal(self.view[VNET_SIZE:end], tunnel)
        if reason:
            self._drops[reason] += 1
            return
        protocol = self.arena[VNET_SIZE + 6]
        direct = protocol in CHECKSUM_AT and length >= IP_HEADER + packets.MINIMUM[protocol]
        if partial and not direct:
            self._drops["in_bad_partial"] += 1
        elif not self._vnet:
            if partial:
                packets.complete(self.view[VNET_SIZE:end], IP_HEADER, CHECKSUM_AT[protocol])
            self._write([self.view[VNET_SIZE:end]])
        elif not (direct and protocol in self._join and self._open(tunnel, length, partial)):
            self.arena[:VNET_SIZE] = NO_CHECKSUM
            if partial:
                at = CHECKSUM_AT[protocol]
                VNET.pack_into(self.arena, 0, VNET_NEEDS_CSUM, GSO_NONE, 0, 0, IP_HEADER, at)
            self._write([self.view[:end]])

    def _open(self, tunnel: Tunnel, length: int, partial: bool) -> bool:
        """Begin a run, if others may follow this packet."""
        arena, layer4 = self.arena, VNET_SIZE + IP_HEADER
        protocol = arena[VNET_SIZE + 6]
        head = IP_HEADER + (arena[layer4 + 12] // 16 * 4 if protocol == TCP else 8)
        if not IP_HEADER + packets.MINIMUM[protocol] <= head < length:
            return False
        if protocol == TCP and arena[layer4 + 13] != ACK:
            return False
        if protocol == UDP and read_u16(arena, layer4 + 4)[0] != length - IP_HEADER:
            return False
        if not partial and not self._verify(VNET_SIZE, length):
            return False
        self._tunnel, self._protocol, self._head = tunnel, protocol, head
        self._size, self._full = length - head, length
        self._expected = arena[VNET_SIZE : VNET_SIZE + head]
        self._sequence = read_u32(arena, layer4 + 4)[0]
        self._count, self._at, self._length = 0, VNET_SIZE, head
        self._extend(length)
        return True

    def _extend(self, length: int) -> None:
        self._count += 1
        self._at += self._full
        self._last = length - self._head
        self._length += self._last
        if self._protocol == TCP:
            self._advance(1)

    def _advance(self, count: int) -> None:
        self._sequence = self._sequence + count * self._size & 0xFFFF_FFFF
        pack_u32(self._expected, SEQUENCE, self._sequence)

    def _is_last(self, got: bytearray, length: int) -> bool:
        """Whether this header continues the run and ends it: shorter payload, PSH or FIN."""
        want, protocol = bytearray(self._expected), self._protocol
        layer4 = length - IP_HEADER
        pack_u16(want, 4, layer4)
        if protocol == TCP:
            want[IP_HEADER + 13] |= got[IP_HEADER + 13] & (PSH | FIN)
        else:
            pack_u16(want, IP_HEADER + 4, layer4)
        pseudo = packets.pseudo_sum(want[8:IP_HEADER], layer4, protocol)
        pack_u16(want, IP_HEADER + CHECKSUM_AT[protocol], pseudo)
        return got == want

    def _verify(self, at: int, length: int) -> bool:
        """Whether a complete checksum is right; if so leaves the pseudo-header's sum in its place.

        Joined packets get their checksum from the kernel, which would make a wrong one right.
        """
        view = self.view
        protocol, layer4 = self.arena[at + 6], at + IP_HEADER
        if protocol not in CHECKSUM_AT or length < IP_HEADER + packets.MINIMUM[protocol]:
            return False
        size = length - IP_HEADER
        pseudo = packets.pseudo_sum(view[at + 8 : layer4], size, protocol)
        if (pseudo + packets.total(view[layer4 : at + length])) % 65535:
            return False
        field = layer4 + CHECKSUM_AT[protocol]
        if protocol == UDP and not any(self.arena[field : field + 2]):
            return False
        pack_u16(self.arena, field, pseudo)
        return True


def refusal(packet: memoryview, tunnel: Tunnel) -> str:
    """Why a peer's packet must not reach the TUN (rule S10): a drop counter, or nothing."""
    length = len(packet)
    if length < IP_HEADER or packet[0] >> 4 != 6:
        return "in_not_ipv6"
    if read_u16(packet, 4)[0] != length - IP_HEADER:
        return "in_bad_length"
    addresses = packet[8:IP_HEADER]
    if addresses != tunnel.inner:
        return _wrong_address(bytes(addresses), tunnel.inner)
    protocol = packet[6]
    if protocol in CHECKSUM_AT:
        return ""
    protocol, at, routing = packets.last_header(packet)
    if routing:
        return "in_routing_header"
    if protocol in packets.EXTENSIONS and protocol != packets.FRAGMENT_HEADER:
        return "in_bad_extension"
    if protocol == packets.ICMP6 and (at >= length or packet[at] in packets.NEIGHBOUR_DISCOVERY):
        return "in_neighbour_discovery"
    return ""


def _wrong_address(addresses: bytes, wanted: bytes) -> str:
    source, to = addresses[:16], addresses[16:]
    if packets.is_local_only(source) or packets.is_local_only(to):
        return "in_local_only"
    return "in_wrong_source" if source != wanted[:16] else "in_wrong_destination"
