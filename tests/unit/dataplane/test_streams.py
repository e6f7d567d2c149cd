"""Streams over a restart of the peer, or of this end (docs/decisions/0092)."""

from __future__ import annotations

import struct
from dataclasses import replace

from ntmd.dataplane.packets import checksum, pseudo_sum, total
from ntmd.dataplane.simple import SimplePlane
from ntmd.proto import timing
from ntmd.proto.plane import DataKey, InstallTunnel, ParkStreams, PlanePath, SwitchPath
from ntmd.proto.types import Path, Suite
from tests.unit.dataplane.pair import AT_A, AT_B, A, B, entry, pair, tcp_packet, udp_packet

SYN, RST, ACK = 0x02, 0x04, 0x10
FRESH = bytes(range(64, 96))


def test_of_each_stream_the_newest_segment_leaves_under_the_next_session_and_nothing_else() -> None:
    a, b = pair()
    for packet in (
        tcp_packet(b"old", sequence=1),
        tcp_packet(b"newest", sequence=4),
        udp_packet(b"datagram"),
    ):
        a.outbound_packet(packet, 1.0)
    assert a.apply(ParkStreams(5), 2.0) == []
    fresh = DataKey(9, Suite.AES_GCM, FRESH, 2)
    [(datagram, _)] = a.apply(InstallTunnel(replace(entry("a"), send=fresh)), 2.1)
    b.apply(InstallTunnel(entry("b", receive=(fresh,))), 2.1)
    assert b.inbound_datagram(datagram, 1, AT_A, 2.2) == tcp_packet(b"newest", sequence=4)


def test_a_segment_that_left_in_fragments_is_the_newest_as_well() -> None:
    """A repetition sized for the way before, on one that is narrower or not measured yet."""
    a, b = pair()
    behind, hole = tcp_packet(b"behind the hole", sequence=2000), tcp_packet(bytes(1300))
    a.outbound_packet(behind, 1.0)
    narrow = PlanePath(Path(1, AT_B), 1228)
    a.apply(SwitchPath(5, (narrow,)), 1.5)
    pieces = a.outbound_packet(hole, 2.0)
    assert len(pieces) == 2
    a.apply(ParkStreams(5), 3.0)
    fresh = DataKey(9, Suite.AES_GCM, FRESH, 2)
    sent = a.apply(InstallTunnel(replace(entry("a"), send=fresh)), 3.1)
    b.apply(InstallTunnel(entry("b", receive=(fresh,))), 3.1)
    assert [b.inbound_datagram(each, 1, AT_A, 3.2) for each, _ in sent] == [hole]


def test_a_connection_that_is_not_open_is_not_repeated() -> None:
    for flags in (SYN, SYN | ACK, RST, RST | ACK):
        a, _ = pair()
        a.outbound_packet(tcp_packet(b"", flags=flags), 1.0)
        a.apply(ParkStreams(5), 2.0)
        assert a.apply(InstallTunnel(entry("a")), 2.1) == []


def test_the_first_segment_of_a_stream_tells_the_local_end_what_met_no_way() -> None:
    a, b = pair()
    [(datagram, _)] = a.outbound_packet(tcp_packet(b"word", sequence=70), 1.0)
    assert b.inbound_datagram(datagram, 1, AT_A, 1.0) is not None
    replies = b.take_replies()
    assert len(replies) == timing.STREAM_WAKES
    answer = replies[0]
    source, to, body = answer[8:24], answer[24:40], answer[40:]
    assert (source, to, body[:2]) == (A, B, b"\x01\x00"), "no route, to the local end"
    assert checksum(pseudo_sum(source + to, len(body), 58) + total(body)) in (0, 0xFFFF)
    quoted = body[8:]
    assert quoted[8:40] == B + A
    assert struct.unpack(">HHI", quoted[40:48]) == (80, 1234, 9), "what A has not acknowledged"
    [(datagram, _)] = a.outbound_packet(tcp_packet(b"more", sequence=74), 1.1)
    b.inbound_datagram(datagram, 1, AT_A, 1.1)
    assert b.take_replies() == []


def test_nothing_is_told_of_other_packets_of_forged_ones_and_later() -> None:
    a, b = pair()
    for packet in (udp_packet(b"x"), tcp_packet(b"", flags=SYN), tcp_packet(b"x", flags=RST)):
        [(datagram, _)] = a.outbound_packet(packet, 1.0)
        b.inbound_datagram(datagram, 1, AT_A, 1.0)
    other = A[:15] + b"\x09"
    liar = SimplePlane(other)
    liar.apply(InstallTunnel(entry("a")), 1.0)
    for _ in range(5):  # past the counters that are used
        [(datagram, _)] = liar.outbound_packet(tcp_packet(b"x", source=other), 1.0)
    assert b.inbound_datagram(datagram, 1, AT_A, 1.0) is None
    assert b.take_replies() == []
    late = timing.STREAM_YOUNG + 0.1
    a.apply(InstallTunnel(entry("a")), late)
    [(datagram, _)] = a.outbound_packet(tcp_packet(b"word"), late)
    assert b.inbound_datagram(datagram, 1, AT_A, late) is not None
    assert b.take_replies() == []
