"""From the TUN to UDP: inner packets become sealed datagrams (reading down is a packet's way).

A packet is read into :attr:`Outbound.slots` behind its virtio header. A super-packet of the kernel
(up to 64 KiB of one flow) is cut into packets here without copying payload: if it has the shape
that was expected, there is room for a header before each piece (:mod:`~ntmd.dataplane.slots`); if
not, each header is written over the end of the packet before, which is sealed already. Sealed
datagrams of one size for one tunnel lie side by side and leave in one call of ``send``.
"""

from __future__ import annotations

import struct
from collections import Counter
from itertools import repeat

from ntmd.dataplane import packets
from ntmd.dataplane.egress import Egress, Send
from ntmd.dataplane.errors import Errors, Reply
from ntmd.dataplane.packets import (
    CHECKSUM_AT,
    CWR,
    FIN,
    GSO_ECN,
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
from ntmd.dataplane.parking import Parking
from ntmd.dataplane.recent import Recent
from ntmd.dataplane.reports import Reports
from ntmd.dataplane.slicing import VIEWS, Kept, slices
from ntmd.dataplane.slots import Slots
from ntmd.dataplane.stamps import Headers, Nonces, drain
from ntmd.dataplane.table import Sender, Table, Tunnel
from ntmd.proto import timing
from ntmd.proto.fragments import cut
from ntmd.proto.frame import HEADER_SIZE, OVERHEAD
from ntmd.proto.plane import Resend

RUN_BYTES = 65_487  # of one send: what an IPv6 datagram may hold
RUN_SEGMENTS = 64  # of one send; newer kernels take 128
LIMIT_TOLD = 8  # times between the first word of a key's end and the end: a wish may be lost
WORTH = 8  # packets in a super-packet from which on the next one is expected to be like it
POOR_RUNS = 16  # short runs in a row, then nothing is expected any more

pack_header = struct.Struct(">IIQ").pack_into  # kind to flags as one word, index, counter
pack_nonce = struct.Struct(">IQ").pack_into


class Outbound:
    """Everything that leaves. ``send`` and ``reply`` must not keep what they are handed."""

    def __init__(
        self,
        table: Table,
        parking: Parking,
        reports: Reports,
        drops: Counter[str],
        egress: Egress,
        send: Send,
        reply: Reply,
        start: int = 0,
    ) -> None:
        """``start``: where packets are read to (:class:`Slots`)."""
        self.slots = Slots(start)
        self.buffer, self.view = self.slots.buffer, self.slots.view
        self.segments = RUN_SEGMENTS
        self._table, self._parking, self._reports = table, parking, reports
        self._drops, self._send = drops, send
        self.errors = Errors(self.view, drops, reply)
        self._egress = egress
        self.recent = Recent()
        self.resent = self.fragments = 0  # datagrams
        self._arena = bytearray(RUN_BYTES)
        self._out = memoryview(self._arena)
        self._nonce = bytearray(12)
        self._nonces, self._headers = Nonces(), Headers(self._arena)
        self._rooms: Kept = {}
        self._poor = 0  # short runs in a row
        self._tunnel: Tunnel | None = None  # of the run in the arena
        self._size = self._fill = self._count = self._index = 0
        self._flow = b""  # ports of its first packet
        self._addresses = b""  # source and destination of the last packet that had a way
        self._last: Tunnel | None = None

    def packet(self, length: int, now: float) -> None:
        """Take the packet in the buffer; ``length`` includes the virtio header."""
        slots = self.slots
        if length > slots.whole:
            if self._expected(length, now):
                return
            slots.gather(length)
            slots.be_plain()
        buffer = self.buffer
        if buffer[18:50] == self._addresses:
            tunnel = self._last
        else:
            tunnel = self._find(length, now)
        if tunnel is None:
            return
        sender = tunnel.send
        if sender is None or sender.expires <= now or not tunnel.room:
            self._park(tunnel.peer, length, now)
        elif buffer[1]:
            self._super(tunnel, sender, length, now)
        elif length - VNET_SIZE > tunnel.room:
            self._too_big(tunnel, sender, length, now)
        else:
            word = sender.plain
            if buffer[0] & VNET_NEEDS_CSUM:
                word = self._checksum(tunnel, sender, length)
            self._seal(tunnel, sender, word, VNET_SIZE, length, now)

    def flush(self, now: float) -> None:
        """Send the open run: nothing more will join it soon."""
        tunnel, fill, size = self._tunnel, self._fill, self._size
        if tunnel is None or not fill:
            return
        totals = tunnel.totals
        totals.tx_packets += self._count
        totals.tx_bytes += fill - OVERHEAD * self._count
        totals.last_tx = now
        self._reports.active(tunnel, now)
        run = self._out[:fill]
        if tunnel.send is not None:
            self.recent.keep((tunnel.number, self._flow), tunnel.send, run, size)
        if tunnel.plain:
            self._send(run, size, tunnel.paths[0])
        else:
            self._egress.spread(tunnel, run, size, now)
            self._headers.disturbed()
        if self._count >= WORTH:
            self._poor = 0
        elif self._poor < POOR_RUNS:
            self._poor += 1
            if self._poor == POOR_RUNS:
                self.slots.be_plain()
        self._tunnel = None
        self._fill = self._count = 0

    def settle(self) -> None:
        """The table changed: what was remembered of it does not hold any more."""
        self._addresses, self._last = b"", None

    # ------------------------------------------------------------------ where to

    def _find(self, length: int, now: float) -> Tunnel | None:
        """The tunnel of the packet in the buffer; None if it was refused or parked."""
        buffer = self.buffer
        if length < VNET_SIZE + IP_HEADER or buffer[VNET_SIZE] >> 4 != 6:
            self._drops["out_not_ipv6"] += 1
            return None
        if read_u16(buffer, VNET_SIZE + 4)[0] != length - VNET_SIZE - IP_HEADER:
            self._drops["out_bad_length"] += 1
            return None
        source, to = bytes(self.view[18:34]), bytes(self.view[34:50])
        if packets.is_local_only(to) or packets.is_local_only(source):
            self._drops["out_local_only"] += 1
            return None
        if source != self._table.own:
            self._drops["out_wrong_source"] += 1
            self.errors.answer(length, packets.UNREACHABLE, packets.SOURCE_POLICY, 0, now)
            return None
        tunnel = self._table.by_address.get(to)
        if tunnel is None:
            self._park(to, length, now)
            return None
        self._addresses, self._last = source + to, tunnel
        return tunnel

    def _park(self, address: bytes, length: int, now: float) -> None:
        self._parking.park(address, bytes(self.view[:length]), now)
        self._reports.no_tunnel(address, now)

    def release(self, raw: list[bytes], now: float) -> None:
        """Take packets that were parked."""
        self.slots.be_plain()
        for each in raw:
            self.buffer[: len(each)] = each
            self.packet(len(each), now)
        self.flush(now)

    def resend(self, wish: Resend, now: float) -> None:
        """Send once more what the peer missed, as it was sealed."""
        tunnel = self._table.by_number.get(wish.tunnel)
        if tunnel is None or tunnel.send is None or not tunnel.paths:
            return
        sent = tunnel.send.counter if tunnel.send.number == wish.session else timing.COUNTER_LIMIT
        for datagram in self.recent.take(wish, sent, now):
            self.resent += 1
            self._egress.spread(tunnel, memoryview(bytearray(datagram)), len(datagram), now)

    def park_streams(self, number: int, now: float) -> None:
        """The peer has lost its keys: of each stream, the newest packet waits for new ones."""
        tunnel = self._table.by_number.get(number)
        if tunnel is None or tunnel.send is None:
            return
        for run in self.recent.newest_runs(number, tunnel.send.number):
            packet = tunnel.send.unseal_first(run, now)
            if packet is not None and packets.is_segment(packet):
                self._parking.park(tunnel.peer, bytes(VNET_SIZE) + packet, now)

    def refuse(self, raw: list[bytes], unreachable: bool, now: float) -> None:
        """There is no way for these parked packets."""
        self.slots.be_plain()
        for each in raw:
            self._drops["parked_no_way"] += 1
            if unreachable:
                self.buffer[: len(each)] = each
                self.errors.answer(
                    len(each), packets.UNREACHABLE, packets.ADDRESS_UNREACHABLE, 0, now
                )

    def narrowed(self, tunnel: Tunnel, now: float) -> None:
        """The path became narrower: tell the senders of what was too large for it, and so is gone.

        A stream then repeats it at once; without a word it would wait for its next turn.
        """
        if tunnel.send is not None and tunnel.settled:
            self.slots.be_plain()
            newest = self.recent.newest(tunnel.number, tunnel.send.number)
            self.errors.too_big_after_all(tunnel, tunnel.send, newest, now)

    # ------------------------------------------------------------------ one packet

    def _checksum(self, tunnel: Tunnel, sender: Sender, length: int) -> int:
        """The kernel left the checksum to us: leave it to the peer if it can, or fill it in."""
        _, _, _, _, start, offset = VNET.unpack_from(self.buffer)
        protocol = self.buffer[VNET_SIZE + 6]
        direct = start == IP_HEADER and CHECKSUM_AT.get(protocol) == offset
        if direct and tunnel.takes_partial:
            return sender.partial
        if VNET_SIZE + start + offset + 2 <= length:
            packets.complete(self.view[VNET_SIZE:length], start, offset)
        return sender.plain

    def _too_big(self, tunnel: Tunnel, sender: Sender, length: int, now: float) -> None:
        """Larger than the path (S5): tell the local sender, and let this one leave in fragments."""
        self.errors.too_big(tunnel, length, now)
        if self.buffer[0] & VNET_NEEDS_CSUM:
            _, _, _, _, start, offset = VNET.unpack_from(self.buffer)
            if VNET_SIZE + start + offset + 2 <= length:
                packets.complete(self.view[VNET_SIZE:length], start, offset)
        self._fragment(tunnel, sender, (VNET_SIZE, length), now)

    def _fragment(self, tunnel: Tunnel, sender: Sender, place: tuple[int, int], now: float) -> None:
        """Cut a packet inside the seal. The pieces are laid where it was, and are one run, so that
        what is kept of its flow can be joined again."""
        begin, end = place
        self.flush(now)
        self.slots.be_plain()
        sender.fragment = sender.fragment + 1 & 0xFFFF_FFFF
        packet = bytes(self.view[begin:end])
        for piece in cut(packet, sender.fragment, tunnel.room):
            self.fragments += 1
            self.buffer[begin : begin + len(piece)] = piece
            self._seal(tunnel, sender, sender.plain, begin, begin + len(piece), now)
            self._flow = packet[IP_HEADER : IP_HEADER + 4]
        self.flush(now)
        self.buffer[begin:end] = packet

    # ------------------------------------------------------------------ super-packets

    def _super(self, tunnel: Tunnel, sender: Sender, length: int, now: float) -> None:
        _, kind, _, size, start, offset = VNET.unpack_from(self.buffer)
        protocol = {GSO_TCP6: TCP, GSO_UDP: UDP}.get(kind & ~GSO_ECN)
        if protocol is None or start < IP_HEADER or CHECKSUM_AT[protocol] != offset or not size:
            self._drops["out_bad_gso"] += 1
            return
        at = VNET_SIZE + start
        if at + packets.MINIMUM[protocol] > length:
            self._drops["out_bad_gso"] += 1
            return
        head = start + (self.buffer[at + 12] // 16 * 4 if protocol == TCP else 8)
        if head < start + packets.MINIMUM[protocol]:
            self._drops["out_bad_gso"] += 1
            return
        if protocol == TCP:
            size = min(size, tunnel.room - head)  # a stream may be cut smaller
        if head + VNET_SIZE >= length or size <= 0:
            self._drops["out_bad_gso"] += 1
            return
        if head + size > tunnel.room:
            self.errors.too_big(tunnel, VNET_SIZE + head + size, now)
        self._cut(tunnel, sender, (length, head, size, start), protocol, now)

    def _cut(
        self,
        tunnel: Tunnel,
        sender: Sender,
        shape: tuple[int, int, int, int],
        protocol: int,
        now: float,
    ) -> None:
        """Seal the packets of a super-packet; ``shape``: end, headers, payload size, L4 start."""
        end, head, size, start = shape
        at = VNET_SIZE + head
        template = bytearray(self.view[VNET_SIZE:at])
        flags = template[start + 13] if protocol == TCP else 0
        if protocol == TCP:
            template[start + 13] = flags & ~(FIN | PSH)
        _set_length(template, head, size, start, protocol)
        partial = tunnel.takes_partial and start == IP_HEADER
        word = sender.partial if partial else sender.plain
        full = (end - at - 1) // size  # all but the last packet, which differs
        for done in range(full):
            begin = VNET_SIZE + done * size
            self._seal_cut(tunnel, sender, word, template, (begin, begin + head + size), now)
            if protocol == TCP:
                template[start + 13] &= ~CWR  # only in the first packet
                _advance(template, start, size)
        if protocol == TCP:
            template[start + 13] |= flags & (FIN | PSH)
        at += full * size
        _set_length(template, head, end - at, start, protocol)
        self._seal_cut(tunnel, sender, word, template, (at - head, end), now)
        if partial and full >= WORTH:
            self.slots.expect(head, size)

    def _seal_cut(
        self,
        tunnel: Tunnel,
        sender: Sender,
        word: int,
        template: bytearray,
        place: tuple[int, int],
        now: float,
    ) -> None:
        """One packet of a super-packet: headers, checksum if the peer wants it, seal."""
        begin, end = place
        self.buffer[begin : begin + len(template)] = template
        large = end - begin > tunnel.room
        if word == sender.plain or large:
            protocol, start, _ = packets.last_header(template)
            packets.complete(self.view[begin:end], start, CHECKSUM_AT[protocol])
        if large:
            self._fragment(tunnel, sender, place, now)
        else:
            self._seal(tunnel, sender, word, begin, end, now)

    # ------------------------------------------------------------------ super-packets as expected

    def _expected(self, length: int, now: float) -> bool:
        """Take a super-packet that was read cut up, if it is as was expected."""
        buffer, head, size = self.buffer, *self.slots.shape
        tunnel = self._last if buffer[18:50] == self._addresses else None
        sender = tunnel.send if tunnel is not None else None
        if tunnel is None or sender is None or sender.expires <= now or tunnel.room < head + size:
            return False
        _, kind, _, got, start, offset = VNET.unpack_from(buffer)
        protocol = {GSO_TCP6: TCP, GSO_UDP: UDP}.get(kind & ~GSO_ECN)
        if protocol is None or got != size or start != IP_HEADER or not tunnel.takes_partial:
            return False
        at = VNET_SIZE + IP_HEADER
        long = buffer[at + 12] // 16 * 4 if protocol == TCP else 8
        if long != head - IP_HEADER or CHECKSUM_AT[protocol] != offset:
            return False
        flags = buffer[at + 13] if protocol == TCP else 0
        full = (length - VNET_SIZE - head - 1) // size
        if flags & CWR or sender.counter + full >= timing.COUNTER_REKEY:
            return False
        self._seal_slots(tunnel, sender, (length, full, flags), protocol, now)
        return True

    def _seal_slots(
        self,
        tunnel: Tunnel,
        sender: Sender,
        shape: tuple[int, int, int],
        protocol: int,
        now: float,
    ) -> None:
        """Seal the packets of a super-packet; ``shape``: end, full packets, TCP flags."""
        slots, (length, full, flags) = self.slots, shape
        head, size = slots.shape
        template = bytearray(self.view[VNET_SIZE : VNET_SIZE + head])
        sequence = None
        if protocol == TCP:
            template[IP_HEADER + 13] = flags & ~(FIN | PSH)
            sequence = read_u32(template, IP_HEADER + 4)[0]
        _set_length(template, head, size, IP_HEADER, protocol)
        slots.dress(template, full + 1, sequence)
        width, done = head + size + OVERHEAD, 0
        while done < full:
            count = min(full - done, self._space(tunnel, width, now))
            if not self._fill:
                self._open(tunnel, width, VNET_SIZE)
            self._seal_many(sender, slots.packets[done : done + count], width)
            done += count
        begin = VNET_SIZE + full * (head + size)
        end = begin + length - VNET_SIZE - full * size
        last = self.buffer[begin : begin + head]
        if protocol == TCP:
            last[IP_HEADER + 13] = flags
        _set_length(last, head, end - begin - head, IP_HEADER, protocol)
        self.buffer[begin : begin + head] = last
        self._seal(tunnel, sender, sender.partial, begin, end, now)
        slots.undress(full)
        if self._count + WORTH > min(self.segments, RUN_BYTES // width):
            self.flush(now)  # rather than to tear the next one apart

    def _seal_many(self, sender: Sender, packets_: list[memoryview], width: int) -> None:
        """Seal packets of one size behind what is in the arena; they fit."""
        count, slot, counter = len(packets_), self._count, sender.counter + 1
        room = min(self.segments, RUN_BYTES // width, VIEWS)
        shape = (sender.partial, self._index, width)
        self._headers.write(shape, slot, counter, count, room)
        nonces = self._nonces.take(sender.partial, counter, count)
        sinks = slices(self._rooms, self._out, 0, width, (HEADER_SIZE, width))
        drain(map(sender.seal, nonces, packets_, repeat(None), sinks[slot : slot + count]))
        sender.counter += count
        self._fill += count * width
        self._count += count

    def _space(self, tunnel: Tunnel, width: int, now: float) -> int:
        """How many datagrams of ``width`` bytes the run takes; one that takes none is sent."""
        room = min(self.segments, RUN_BYTES // width, VIEWS)
        if self._fill and (
            tunnel is not self._tunnel or width != self._size or self._count >= room
        ):
            self.flush(now)
        return room - self._count

    # ------------------------------------------------------------------ sealing

    def _seal(
        self, tunnel: Tunnel, sender: Sender, word: int, begin: int, end: int, now: float
    ) -> None:
        """Seal ``buffer[begin:end]`` behind what is in the arena."""
        width = end - begin + OVERHEAD
        fill = self._fill
        if fill and (
            tunnel is not self._tunnel
            or width > self._size
            or self._count >= self.segments
            or fill + width > RUN_BYTES
        ):
            self.flush(now)
            fill = 0
        if not fill:
            self._open(tunnel, width, begin)
            self._headers.disturbed()
        elif word != sender.partial:
            self._headers.disturbed()
        counter = sender.counter = sender.counter + 1
        if counter >= timing.COUNTER_REKEY and not self._may_go_on(tunnel, sender):
            return
        pack_header(self._arena, fill, word, self._index, counter)
        pack_nonce(self._nonce, 0, word, counter)
        stop = fill + width
        sender.seal(self._nonce, self.view[begin:end], None, self._out[fill + HEADER_SIZE : stop])
        self._fill = stop
        self._count += 1
        if width < self._size:
            self.flush(now)  # only the last of a run may be shorter

    def _open(self, tunnel: Tunnel, width: int, begin: int) -> None:
        """Begin a run with the packet at ``begin``; it counts as of that packet's flow."""
        self._tunnel, self._size = tunnel, width
        self._index = tunnel.paths[0].path.leg or tunnel.peer_index
        self._flow = bytes(self.view[begin + IP_HEADER : begin + IP_HEADER + 4])

    def _may_go_on(self, tunnel: Tunnel, sender: Sender) -> bool:
        """Tell now and then that a key is nearly used up; stop at its limit (S1)."""
        if sender.counter >= sender.told:
            step = (timing.COUNTER_LIMIT - timing.COUNTER_REKEY) // LIMIT_TOLD
            sender.told = sender.counter + max(1, step)
            self._reports.near_limit(tunnel, sender.number)
        if sender.counter <= timing.COUNTER_LIMIT:
            return True
        sender.counter = timing.COUNTER_LIMIT
        self._drops["out_counter_limit"] += 1
        return False


def _advance(template: bytearray, start: int, size: int) -> None:
    """The TCP sequence number of the next packet."""
    sequence = read_u32(template, start + 4)[0] + size & 0xFFFF_FFFF
    pack_u32(template, start + 4, sequence)


def _set_length(template: bytearray, head: int, size: int, start: int, protocol: int) -> None:
    """Headers for ``size`` bytes of payload: lengths, and the sum over the pseudo-header."""
    pack_u16(template, 4, head - IP_HEADER + size)
    layer4 = head - start + size
    if protocol == UDP:
        pack_u16(template, start + 4, layer4)
    pseudo = packets.pseudo_sum(template[8:40], layer4, protocol)
    pack_u16(template, start + CHECKSUM_AT[protocol], pseudo)
