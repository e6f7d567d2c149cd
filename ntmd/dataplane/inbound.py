"""From UDP to the TUN: sealed datagrams become inner packets (reading down is a datagram's way).

Takes whole receive buffers, in which the kernel has laid datagrams of one size and one source side
by side (``UDP_GRO``). Each of them is looked at by itself: they may hold several kinds, indices and
tunnels. Nothing a peer sends raises; everything refused moves a counter.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from ntmd.dataplane import packets
from ntmd.dataplane.cipher import InvalidTag
from ntmd.dataplane.errors import Reply
from ntmd.dataplane.reports import Reports
from ntmd.dataplane.runs import LARGEST, Runs
from ntmd.dataplane.slicing import Kept, slices
from ntmd.dataplane.table import Receiver, Table, Tunnel
from ntmd.dataplane.window import DUPLICATE, FRESH, TOO_OLD
from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.fragments import Reassembly
from ntmd.proto.frame import FLAG_PARTIAL, FRAGMENT, HEADER_SIZE, OVERHEAD, TAG_SIZE, Kind
from ntmd.proto.types import Endpoint

read_header = struct.Struct(">IIQ").unpack_from  # kind to flags as one word, index, counter
pack_nonce = struct.Struct(">IQ").pack_into
FLAGS_MASK = 0x0000_FFFF
PARTIAL_WORD = FLAG_PARTIAL << 8
OTHER_KINDS = frozenset(kind.value for kind in Kind if kind != Kind.DATA)
LARGEST_DATAGRAM = LARGEST + OVERHEAD

Up = Callable[[bytes, int, Endpoint], None]  # datagram of another kind, own socket, source


class Inbound:
    """Everything that comes in. ``up`` takes what is not data."""

    def __init__(
        self,
        table: Table,
        runs: Runs,
        reports: Reports,
        drops: Counter[str],
        up: Up,
        reply: Reply,
    ) -> None:
        self._table, self._runs, self._reports = table, runs, reports
        self._drops, self._up, self._reply = drops, up, reply
        self._allowances = table.allowances
        self._nonce = bytearray(12)
        self._arrival = (0, "", 0)
        self._view: object = None  # the buffer whose slices are kept
        self._pieces: Kept = {}
        self._word = self._index = -1
        self._tunnel: Tunnel | None = None
        self._receiver: Receiver | None = None
        self._stranger = False
        self._packets = self._bytes = 0  # accepted for the tunnel and not yet in its totals

    def datagrams(
        self,
        view: memoryview,
        length: int,
        size: int,
        arrival: tuple[int, str, int],
        now: float,
    ) -> None:
        """Datagrams of ``size`` bytes each (the last may be shorter) side by side in ``view``.

        ``arrival`` is the own socket and the source's host and port, the same for all.
        """
        if arrival != self._arrival:
            self.settle()
            self._arrival = arrival
        at = 0
        data = Kind.DATA.value
        while at < length:
            if at and self._word > 0 and at + size < length:  # the first may begin another run
                at += self._many(view, at, length, size, now)
            end = at + size
            if end > length:
                end = length
            if view[at] == data and OVERHEAD < end - at <= LARGEST_DATAGRAM:
                self._data(view, at, end, now)
            elif view[at] in OTHER_KINDS and HEADER_SIZE <= end - at <= LARGEST_DATAGRAM:
                self._up(bytes(view[at:end]), arrival[0], Endpoint(*arrival[1:]))
            else:
                self._drops["in_malformed"] += 1
            at = end
        self._settle(now)
        if arrival in self._allowances:
            self._allowances.received(arrival, length)

    def settle(self) -> None:
        """The table or the source changed: what was remembered does not hold any more."""
        self._word = -1

    def _many(self, view: memoryview, at: int, length: int, size: int, now: float) -> int:
        """Take datagrams that continue the one before, as far as they do; returns their bytes."""
        tunnel, receiver = self._tunnel, self._receiver
        assert tunnel is not None
        assert receiver is not None
        room = self._runs.room(tunnel, size - OVERHEAD)
        if room < 1 or self._stranger or not self._word & PARTIAL_WORD:
            return 0
        word, index, counter = read_header(view, at)
        window = receiver.window
        if word != self._word or index != self._index or counter != window.greatest + 1:
            return 0
        first = at // size
        # the last may be shorter, and one is left for the caller
        count = min(room, (length - 1) // size - first)
        if counter + count > timing.COUNTER_LIMIT:
            return 0
        if self._view is not view.obj:
            self._view = view.obj
            self._pieces.clear()
        pieces = slices(self._pieces, view, 0, size, (HEADER_SIZE, size))
        done = self._runs.take_many(receiver.open, word, counter, pieces[first : first + count])
        if done:
            window.accept_many(counter, done)
            self._packets += done
            self._bytes += done * (size - OVERHEAD)
        return done * size

    def _data(self, view: memoryview, at: int, end: int, now: float) -> None:
        word, index, counter = read_header(view, at)
        if (word != self._word or index != self._index) and not self._resolve(
            word, index, end - at, now
        ):
            return
        tunnel, receiver = self._tunnel, self._receiver
        assert tunnel is not None
        assert receiver is not None
        window = receiver.window
        if counter != window.greatest + 1 or counter > timing.COUNTER_LIMIT:
            state = window.check(counter)
            if state != FRESH:
                self._refused(tunnel, state, now)
                return
        pack_nonce(self._nonce, 0, word, counter)
        runs, length = self._runs, end - at - OVERHEAD
        begin = runs.place()
        try:
            receiver.open(
                self._nonce, view[at + HEADER_SIZE : end], None, runs.view[begin : begin + length]
            )
        except (InvalidTag, LookupError, ValueError):
            receiver.failed += 1
            self._drops["in_bad_tag"] += 1
            return
        greatest = window.accept(counter)
        self._packets += 1
        self._bytes += length
        if self._stranger or not receiver.seen:
            self._noticed(tunnel, receiver, greatest, end - at, now)
        if tunnel.young > now and runs.arena[begin] >> 4 == 6:
            self._wake_stream(tunnel, begin, length, bool(word & PARTIAL_WORD))
        elif runs.arena[begin] >> 4 == 6:
            runs.take(tunnel, length, bool(word & PARTIAL_WORD))
        else:
            self._special(tunnel, receiver, begin, length, now)

    def _resolve(self, word: int, index: int, length: int, now: float) -> bool:
        """Find tunnel and key of a datagram, and keep them while the next ones are alike."""
        self._settle(now)
        self._word = -1
        tunnel = self._table.by_index.get(index)
        if tunnel is None:
            self._drops["in_unknown_index"] += 1
            source = Endpoint(*self._arrival[1:])
            self._reports.unknown(self._arrival[0], source, index, length, now)
            return False
        receiver = tunnel.receive.get(word >> 16 & 0xFF)
        if receiver is None or receiver.expires <= now:
            self._drops["in_unknown_slot"] += 1
            return False
        if word & FLAGS_MASK & ~PARTIAL_WORD:
            self._drops["in_bad_flags"] += 1
            return False
        if receiver.failed > timing.FAILED_OPENS_LIMIT:
            self._drops["in_failed_opens"] += 1
            return False
        self._word, self._index = word, index
        self._tunnel, self._receiver = tunnel, receiver
        self._stranger = self._arrival not in tunnel.known
        return True

    def _refused(self, tunnel: Tunnel, state: int, now: float) -> None:
        if state == DUPLICATE:
            tunnel.totals.duplicated += 1
            self._drops["in_duplicate"] += 1
            self._reports.active(tunnel, now)
        else:
            self._drops["in_too_old" if state == TOO_OLD else "in_bad_counter"] += 1

    def _noticed(
        self, tunnel: Tunnel, receiver: Receiver, greatest: bool, length: int, now: float
    ) -> None:
        """The first datagram of a session, or one from a source not in the path set (C6, 3)."""
        if not receiver.seen:
            receiver.seen = True
            if tunnel.newest is None or receiver.number > tunnel.newest.number:
                tunnel.newest = receiver
            self._reports.seen(tunnel, receiver.number)
        current = tunnel.paths[0].path.socket if tunnel.paths else 0
        if (
            self._stranger
            and greatest
            and receiver is tunnel.newest
            and self._arrival[0] == current
        ):
            self._reports.moved(tunnel, current, Endpoint(*self._arrival[1:]), length, now)

    def _wake_stream(self, tunnel: Tunnel, begin: int, length: int, partial: bool) -> None:
        """A stream may be older than the tunnel is here (this node was restarted), and its local
        end wait for its next repetition: the first segment shows what it has to repeat."""
        head = bytes(self._runs.view[begin : begin + min(length, packets.SEGMENT_HEAD)])
        self._runs.take(tunnel, length, partial)
        flow = head[packets.IP_HEADER : packets.IP_HEADER + 4]
        if head[8:40] != tunnel.inner or not packets.is_segment(head) or flow in tunnel.woken:
            return
        if len(tunnel.woken) < timing.RESEND_FLOWS:
            tunnel.woken.add(flow)
            for _ in range(timing.STREAM_WAKES):
                self._reply(packets.no_route_to(head))

    def _special(
        self, tunnel: Tunnel, receiver: Receiver, begin: int, length: int, now: float
    ) -> None:
        """Not an IPv6 packet: a fragment, or reserved (rule S5)."""
        runs = self._runs
        plain = bytes(runs.view[begin : begin + length])
        if plain[0] != FRAGMENT:
            self._drops["in_not_ipv6" if plain[0] >> 4 == 4 else "in_reserved"] += 1
            return
        if tunnel.pieces is None:
            tunnel.pieces = Reassembly()
        try:
            packet = tunnel.pieces.add(plain, now)
        except ProtocolError:
            self._drops["in_fragment"] += 1
            return
        if packet is not None:
            runs.whole(tunnel, packet)

    def _settle(self, now: float) -> None:
        """Put what was accepted into the tunnel's totals."""
        if not self._packets or self._tunnel is None:
            return
        totals = self._tunnel.totals
        totals.rx_packets += self._packets
        totals.rx_bytes += self._bytes
        socket = self._arrival[0]
        totals.received[socket] = totals.received.get(socket, 0) + self._packets
        if totals.last_rx and now - totals.last_rx > totals.gap:
            totals.gap, totals.gap_at = now - totals.last_rx, totals.last_rx
        totals.last_rx = now
        self._packets = self._bytes = 0
        self._reports.active(self._tunnel, now)


assert TAG_SIZE + HEADER_SIZE == OVERHEAD
