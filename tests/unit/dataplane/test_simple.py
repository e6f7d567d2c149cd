"""The whole plane, packet by packet."""

from __future__ import annotations

import pytest

from ntmd.dataplane.simple import SimplePlane
from ntmd.proto.io import DatagramReceived
from ntmd.proto.plane import (
    InstallTunnel,
    NoTunnelFor,
    PeerMoved,
    PlanePath,
    ReleaseParked,
    RemoveTunnel,
    SlotSeen,
    SwitchPath,
    TunnelActivity,
    UnknownIndex,
)
from ntmd.proto.types import Endpoint, Path
from tests.unit.dataplane.pair import AT_A, AT_B, A, B, entry, ipv6, pair, tcp_packet, udp_packet


def carry(a: SimplePlane, b: SimplePlane, packet: bytes, now: float = 1.0) -> bytes | None:
    [(datagram, _)] = a.outbound_packet(packet, now)
    return b.inbound_datagram(datagram, 1, AT_A, now)


def test_a_packet_arrives_as_it_was() -> None:
    a, b = pair()
    for packet in (udp_packet(b"hello"), tcp_packet(b"x" * 1360), ipv6(58, b"\x80" + bytes(9), 2)):
        assert carry(a, b, packet) == packet
    assert not a.drops
    assert not b.drops


def test_the_datagram_has_the_documented_frame() -> None:
    a, _ = pair()
    packet = udp_packet(b"hello")
    [(datagram, path)] = a.outbound_packet(packet, 1.0)
    assert datagram[:16] == bytes((8, 2, 0, 0, 0, 0, 0, 102)) + (1).to_bytes(8, "big")
    assert len(datagram) == len(packet) + 32
    assert path == Path(1, AT_B)


def test_a_copy_is_dropped_and_counted() -> None:
    a, b = pair()
    [(datagram, _)] = a.outbound_packet(udp_packet(b"1"), 1.0)
    assert b.inbound_datagram(datagram, 1, AT_A, 1.0)
    assert b.inbound_datagram(datagram, 1, AT_A, 1.0) is None
    assert b.drops == {"in_duplicate": 1}


@pytest.mark.parametrize("at", [1, 2, 3, 8, 15, 16, 40, -1])
def test_a_changed_byte_is_refused(at: int) -> None:
    a, b = pair()
    [(datagram, _)] = a.outbound_packet(udp_packet(b"1"), 1.0)
    changed = bytearray(datagram)
    changed[at] ^= 1
    assert b.inbound_datagram(bytes(changed), 1, AT_A, 1.0) is None
    assert sum(b.drops.values()) == 1
    assert b.inbound_datagram(datagram, 1, AT_A, 1.0), "the right one still passes"


def test_packets_wait_for_a_tunnel_and_leave_with_it() -> None:
    a = SimplePlane(A)
    packets = [udp_packet(bytes((i,))) for i in range(3)]
    for packet in packets:
        assert a.outbound_packet(packet, 1.0) == []
    assert a.take_events(1.0) == [NoTunnelFor(B)]
    sent = a.apply(InstallTunnel(entry("a")), 1.1)
    b = SimplePlane(B)
    b.apply(InstallTunnel(entry("b")), 1.1)
    assert [b.inbound_datagram(data, 1, AT_A, 1.2) for data, _ in sent] == packets


def test_no_way_is_answered_with_unreachable() -> None:
    a = SimplePlane(A)
    a.outbound_packet(udp_packet(b"1"), 1.0)
    a.apply(ReleaseParked(B), 1.1)
    [answer] = a.take_replies()
    assert answer[8:40] == B + A
    assert answer[40:42] == bytes((1, 3))
    assert answer[48:] == udp_packet(b"1")
    a.outbound_packet(udp_packet(b"1"), 2.0)
    a.apply(ReleaseParked(B, unreachable=False), 2.1)
    assert a.take_replies() == []


def test_parked_packets_are_bounded_in_number_and_time() -> None:
    a = SimplePlane(A)
    for i in range(70):
        a.outbound_packet(udp_packet(bytes((i,))), 1.0)
    assert a.drops["parked_full"] == 6
    assert a.stats().gauges["parked"] == 64
    a.take_events(6.1)
    assert a.drops["parked_expired"] == 64


def test_a_foreign_source_is_answered_and_never_leaves() -> None:
    a, _ = pair()
    foreign = udp_packet(b"1", source=B[:15] + b"\x09")
    assert a.outbound_packet(foreign, 1.0) == []
    assert a.drops == {"out_wrong_source": 1}
    [answer] = a.take_replies()
    assert answer[40:42] == bytes((1, 5))


def test_a_rekey_keeps_what_is_under_way_and_counters_never_start_again() -> None:
    a, b = pair()
    [(old, _)] = a.outbound_packet(udp_packet(b"1"), 1.0)
    new_keys = entry("b", session=2).receive
    both = (*entry("b").receive, *(k.__class__(9, k.suite, k.key, 2) for k in new_keys))
    b.apply(InstallTunnel(entry("b", receive=both)), 1.0)
    assert b.inbound_datagram(old, 1, AT_A, 1.0)
    assert b.inbound_datagram(old, 1, AT_A, 1.0) is None, "the window went on"
    a.apply(RemoveTunnel(5), 1.1)
    a.apply(InstallTunnel(entry("a")), 1.2)
    [(again, _)] = a.outbound_packet(udp_packet(b"1"), 1.3)
    assert again[8:16] == (2).to_bytes(8, "big")


def test_keys_are_erased_after_180_seconds() -> None:
    a, b = pair()
    [(late, _)] = a.outbound_packet(udp_packet(b"1"), 179.9)
    assert a.outbound_packet(udp_packet(b"1"), 180.1) == []
    assert NoTunnelFor(B) in a.take_events(180.1)
    assert b.inbound_datagram(late, 1, AT_A, 180.1) is None
    assert b.drops == {"in_unknown_slot": 1}


def test_two_paths_carry_the_same_datagram_but_for_the_index() -> None:
    a, b = pair()
    relay = Endpoint("2001:db8::9", 4500)
    paths = (PlanePath(Path(1, AT_B), 1500), PlanePath(Path(2, relay, 0xABCD), 1500))
    a.apply(SwitchPath(5, paths), 1.0)
    (first, one), (second, two) = a.outbound_packet(udp_packet(b"1"), 1.0)
    assert (one, two) == (paths[0].path, paths[1].path)
    assert first[4:8] == (102).to_bytes(4, "big")
    assert second[4:8] == (0xABCD).to_bytes(4, "big")
    assert first[:4] + first[8:] == second[:4] + second[8:]
    assert b.inbound_datagram(first, 1, AT_A, 1.0)
    assert b.inbound_datagram(second[:4] + first[4:8] + second[8:], 1, AT_A, 1.0) is None


def test_other_kinds_come_up_unopened_and_unknown_indices_are_told() -> None:
    _, b = pair()
    control = bytes((9, 0, 0, 0)) + bytes(40)
    assert b.inbound_datagram(control, 1, AT_A, 1.0) is None
    stray = bytes((8, 2, 0, 0)) + (77).to_bytes(4, "big") + bytes(60)
    assert b.inbound_datagram(stray, 1, AT_A, 1.0) is None
    assert b.take_events(1.0) == [
        DatagramReceived(control, 1, AT_A),
        UnknownIndex(1, AT_A, 77, len(stray)),
    ]


def test_the_peers_move_is_told_only_for_the_greatest_counter_from_outside() -> None:
    a, b = pair()
    one, two = (a.outbound_packet(udp_packet(bytes((i,))), 1.0)[0][0] for i in range(2))
    elsewhere = Endpoint("198.51.100.7", 9)
    assert b.inbound_datagram(two, 1, AT_A, 1.0)
    assert b.inbound_datagram(one, 1, elsewhere, 1.0), "an older one from elsewhere: no move"
    assert b.take_events(1.0) == [SlotSeen(5, 1)]
    [(three, _)] = a.outbound_packet(udp_packet(b"3"), 1.0)
    assert b.inbound_datagram(three, 1, elsewhere, 1.0)
    assert b.take_events(1.0) == [PeerMoved(5, 1, elsewhere, len(three))]
    [(four, _)] = a.outbound_packet(udp_packet(b"4"), 2.0)
    known = (Path(1, elsewhere),)
    b.apply(SwitchPath(5, (PlanePath(Path(1, AT_A), 1500),), known), 2.0)
    assert b.inbound_datagram(four, 1, elsewhere, 2.0)
    assert not any(isinstance(each, PeerMoved) for each in b.take_events(2.0))


def test_activity_is_reported_with_gap_loss_and_copies_and_then_no_more() -> None:
    a, b = pair()
    sent = [a.outbound_packet(udp_packet(bytes((i,))), 1.0)[0][0] for i in range(5)]
    for i, now in ((0, 1.0), (1, 1.01), (4, 1.06)):
        b.inbound_datagram(sent[i], 1, AT_A, now)
    b.inbound_datagram(sent[4], 1, AT_A, 1.07)
    assert b.deadline() == 0.0  # SlotSeen waits
    b.take_events(1.07)
    assert b.deadline() == pytest.approx(1.1)
    [report] = b.take_events(1.1)
    assert isinstance(report, TunnelActivity)
    assert (report.rx_packets, report.lost, report.duplicated) == (3, 2, 1)
    assert (report.greatest, report.bitmap) == (5, 0b1100)
    assert report.gap == pytest.approx(0.05)
    assert report.gap_at == pytest.approx(1.01)
    assert report.received == ((1, 3),)
    assert b.deadline() == pytest.approx(2.1)
    assert len(b.take_events(2.1)) == 1
    assert b.deadline() == 180.0, "only the keys' end is left"


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (udp_packet(b"1", source=B), "in_wrong_source"),
        (udp_packet(b"1", to=A), "in_wrong_destination"),
        (udp_packet(b"1", to=b"\xff\x02" + bytes(13) + b"\x01"), "in_local_only"),
        (udp_packet(b"1", source=b"\xfe\x80" + bytes(13) + b"\x01"), "in_local_only"),
        (udp_packet(b"1", to=bytes(15) + b"\x01"), "in_local_only"),
        (ipv6(43, bytes((17, 0)) + bytes(20), None), "in_routing_header"),
        (
            ipv6(0, bytes((43, 0)) + bytes(6) + bytes((17, 0)) + bytes(14), None),
            "in_routing_header",
        ),
        (ipv6(58, bytes((134, 0)) + bytes(20), 2), "in_neighbour_discovery"),
        (
            ipv6(60, bytes((58, 0)) + bytes(6) + bytes((136, 0)) + bytes(9), None),
            "in_neighbour_discovery",
        ),
        (udp_packet(b"1") + b"more", "in_bad_length"),
        (b"\x45" + bytes(40), "in_not_ipv6"),
        (b"\x75" + bytes(40), "in_reserved"),
        (b"\x01" + bytes(4), "in_fragment"),
    ],
)
def test_what_a_peer_must_not_send_is_refused_by_name(packet: bytes, reason: str) -> None:
    """A malicious peer seals what an honest plane would never take from its TUN."""
    a, b = pair()
    a.apply(InstallTunnel(entry("a")), 1.0)
    outbound = a._board.outbound
    tunnel = a._board.table.by_number[5]
    outbound.buffer[: len(packet)] = packet
    assert tunnel.send is not None
    outbound._seal(tunnel, tunnel.send, tunnel.send.plain, 0, len(packet), 1.0)
    outbound.flush(1.0)
    [(datagram, _)] = a._take_sent()
    assert b.inbound_datagram(datagram, 1, AT_A, 1.0) is None
    assert b.drops == {reason: 1}


@pytest.mark.parametrize(
    ("mtu", "length", "told"), [(1400, 1420, 1340), (1300, 1420, 1280), (1228, 1280, 0)]
)
def test_packets_larger_than_the_path_arrive_in_pieces_and_their_sender_is_told(
    mtu: int, length: int, told: int
) -> None:
    a, b = pair()
    a.apply(SwitchPath(5, (PlanePath(Path(1, AT_B), mtu),)), 1.0)
    packet = udp_packet((bytes(range(256)) * 6)[: length - 48])
    pieces = a.outbound_packet(packet, 1.0)
    assert len(pieces) == 2
    assert [b.inbound_datagram(data, 1, AT_A, 1.0) for data, _ in pieces] == [None, packet]
    assert all(len(data) <= mtu - 28 for data, _ in pieces)
    answers = [(each[40:42], int.from_bytes(each[44:48], "big")) for each in a.take_replies()]
    assert answers == ([(bytes((2, 0)), told)] if told else [])


def test_nobody_is_told_of_a_size_that_may_still_grow() -> None:
    a, b = pair()
    a.apply(SwitchPath(5, (PlanePath(Path(1, AT_B), 1228, settled=False),)), 1.0)
    packet = udp_packet(bytes(1372))
    pieces = a.outbound_packet(packet, 1.0)
    assert [b.inbound_datagram(data, 1, AT_A, 1.0) for data, _ in pieces] == [None, packet]
    assert a.take_replies() == []


def test_a_path_that_became_narrower_is_told_to_the_senders_of_what_it_ate() -> None:
    a, _ = pair()
    a.outbound_packet(tcp_packet(bytes(1360), sequence=77), 1.0)
    a.outbound_packet(udp_packet(b"small"), 1.0)
    a.apply(SwitchPath(5, (PlanePath(Path(1, AT_B), 1228, settled=False),)), 2.0)
    assert a.take_replies() == []
    a.apply(SwitchPath(5, (PlanePath(Path(1, AT_B), 1400),)), 2.2)
    [answer] = a.take_replies()
    assert answer[40:42] == bytes((2, 0))
    assert int.from_bytes(answer[44:48], "big") == 1340
    assert answer[48:] == tcp_packet(bytes(1360), sequence=77)[: len(answer) - 48]
    a.apply(SwitchPath(5, (PlanePath(Path(1, AT_B), 1500),)), 3.0)
    assert a.take_replies() == []
