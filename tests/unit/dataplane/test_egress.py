"""What may leave on unproven paths, and twice; what is sent once more after an outage."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from ntmd.dataplane.egress import Copies
from ntmd.dataplane.simple import SimplePlane
from ntmd.proto import timing
from ntmd.proto.plane import (
    CloseSocket,
    InstallTunnel,
    PlanePath,
    RemoveTunnel,
    Resend,
    SwitchPath,
    TunnelActivity,
)
from ntmd.proto.types import Endpoint, Path
from tests.unit.dataplane.pair import AT_A, AT_B, A, B, entry, pair, tcp_packet, udp_packet

ELSEWHERE = Path(1, Endpoint("198.51.100.7", 9))
FIRST = PlanePath(Path(1, AT_B), 1500)
SECOND = PlanePath(Path(2, Endpoint("2001:db8::9", 4500), 0xABCD), 1500)
FULL = udp_packet(bytes(1320))
WIDTH = len(FULL) + 32


def sent_on(a: SimplePlane, path: Path, packets: int, now: float) -> int:
    """Datagrams that left on ``path``."""
    return sum(each == path for _ in range(packets) for _, each in a.outbound_packet(FULL, now))


# ------------------------------------------------------------------ allowance (C6)


def test_an_unproven_path_gets_three_times_what_came_from_it() -> None:
    a, b = pair()
    limited = PlanePath(ELSEWHERE, 1500, allowance=2 * WIDTH + 5)
    a.apply(SwitchPath(5, (limited, SECOND)), 1.0)
    assert sent_on(a, ELSEWHERE, 10, 1.0) == 2
    assert a.drops["out_allowance"] == 8
    [(datagram, _)] = b.outbound_packet(udp_packet(bytes(1320), source=B, to=A), 1.0)
    a.inbound_datagram(datagram, 1, ELSEWHERE.remote, 1.1)
    assert sent_on(a, ELSEWHERE, 10, 1.2) == 3
    a.inbound_datagram(bytes((9, 2, 0, 0)) + bytes(1196), 1, ELSEWHERE.remote, 1.3)
    assert sent_on(a, ELSEWHERE, 10, 1.4) == 3 * 1200 // WIDTH
    a.apply(SwitchPath(5, (PlanePath(ELSEWHERE, 1500),)), 1.5)
    assert sent_on(a, ELSEWHERE, 10, 1.5) == 10


def test_telling_the_plane_again_does_not_fill_an_allowance() -> None:
    a, _ = pair()
    limited = PlanePath(ELSEWHERE, 1500, allowance=2 * WIDTH)
    for _ in range(3):
        a.apply(SwitchPath(5, (limited,)), 1.0)
        a.apply(InstallTunnel(entry("a", paths=(limited,))), 1.0)
        a.apply(InstallTunnel(entry("a", tunnel=6, paths=(limited,))), 1.0)
        sent_on(a, ELSEWHERE, 3, 1.0)
    assert a.stats().drops["out_allowance"] == 7
    a.apply(RemoveTunnel(6), 1.0)
    a.apply(InstallTunnel(entry("a", paths=(FIRST,))), 1.0)
    a.apply(SwitchPath(5, (limited,)), 1.0)
    assert sent_on(a, ELSEWHERE, 3, 1.0) == 2, "a new trial begins anew"


def test_a_second_path_that_alone_carries_is_no_copy() -> None:
    a, _ = pair()
    a.apply(SwitchPath(5, (PlanePath(ELSEWHERE, 1500, allowance=0), SECOND)), 1.0)
    assert sent_on(a, SECOND.path, 2000, 1.0) == 2000
    assert a.drops["out_copy_limited"] == 0


# ------------------------------------------------------------------ copies (N8)


def test_copies_of_all_tunnels_share_two_megabytes() -> None:
    a = SimplePlane(A)
    for number in range(20):
        address = bytes.fromhex("fd00aa0000000000000000000000") + (100 + number).to_bytes(2, "big")
        own = entry("a", tunnel=number, peer_address=address, own_indexes=(number,))
        a.apply(InstallTunnel(dataclasses.replace(own, paths=(FIRST, SECOND))), 0.0)
    copies = originals = 0
    for i in range(4000):
        address = bytes.fromhex("fd00aa0000000000000000000000") + (100 + i % 20).to_bytes(2, "big")
        for _, path in a.outbound_packet(udp_packet(bytes(1320), to=address), 0.0001 * i):
            originals += path == FIRST.path
            copies += path == SECOND.path
    assert originals == 4000
    assert copies <= timing.DOUBT_BYTES * (1 + 0.4 / timing.DOUBT_RECOVERY) / WIDTH
    assert copies > timing.DOUBT_BYTES * 0.98 / WIDTH
    assert a.drops["out_copy_limited"] == 4000 - copies


def test_doubling_ends_after_two_seconds_and_the_budget_flows_back() -> None:
    purse = Copies()
    taken = [purse.take(100, i / 100) for i in range(1000)]
    assert taken.index(False) == 201
    assert 60 < sum(taken[201:]) <= 80, "a tenth of the time"
    assert all(purse.take(100, 10.1 + timing.DOUBT_RECOVERY / 2 + i / 100) for i in range(100))
    purse = Copies()
    assert purse.take(100, 0.0)
    purse.stop()
    assert not any(purse.take(100, i / 100) for i in range(1990))
    assert all(purse.take(100, 100.0 + i * timing.DOUBT_PAUSE * 2) for i in range(200))


# ------------------------------------------------------------------ once more (S14)


def report(b: SimplePlane, now: float) -> Resend:
    seen = [each for each in b.take_events(now) if isinstance(each, TunnelActivity)]
    return Resend(5, 1, seen[-1].greatest, seen[-1].bitmap) if seen else Resend(5, 1, 0, 0)


def test_what_an_outage_ate_leaves_again_bit_for_bit_and_once() -> None:
    a, b = pair()
    packets = [tcp_packet(bytes((i,)) * 30, sequence=i) for i in range(4)]
    sent = [a.outbound_packet(each, 1.0)[0][0] for each in packets]
    b.inbound_datagram(sent[0], 1, AT_A, 1.0)
    b.inbound_datagram(sent[2], 1, AT_A, 1.0)
    wish = report(b, 2.0)
    a.apply(SwitchPath(5, (FIRST, SECOND)), 12.0)
    again = a.apply(wish, 12.0)
    assert [data for data, path in again if path == FIRST.path] == [sent[1], sent[3]]
    assert [data[8:] for data, path in again if path == SECOND.path] == [sent[1][8:], sent[3][8:]]
    assert a.apply(wish, 12.1) == []
    assert a.stats().gauges["resent"] == 2


def test_what_is_lost_again_leaves_once_more_for_each_later_report() -> None:
    a, b = pair()
    sent = [a.outbound_packet(tcp_packet(b"1", sequence=i), 1.0)[0][0] for i in range(5)]
    b.inbound_datagram(sent[0], 1, AT_A, 1.0)
    a.apply(report(b, 2.0), 3.0)
    for i in range(80):  # they arrive, and there are more than a report can name
        [(data, _)] = a.outbound_packet(udp_packet(bytes((i,))), 3.1)
        b.inbound_datagram(data, 1, AT_A, 3.1)
    later = dataclasses.replace(report(b, 4.0), again=True)
    looks = [[data for data, _ in a.apply(later, 5.0 + i)] for i in range(4)]
    kept = sent[1:]
    assert looks[:2] == [kept, kept]
    assert all(data not in look for look in looks[2:] for data in kept), "and then no more"


def test_a_later_report_says_nothing_of_what_has_left_since() -> None:
    a, _ = pair()
    a.outbound_packet(udp_packet(b"1"), 1.0)
    assert len(a.apply(Resend(5, 1, 0, 0), 2.0)) == 1
    a.outbound_packet(udp_packet(b"2"), 2.1)
    assert len(a.apply(Resend(5, 1, 0, 0, again=True), 2.2)) == 1, "the second is on its way"
    assert len(a.apply(Resend(5, 1, 0, 0, again=True), 2.3)) == 2, "both were sent by the last one"


def test_a_later_report_alone_is_the_first() -> None:
    a, _ = pair()
    a.outbound_packet(udp_packet(b"1"), 1.0)
    later = Resend(5, 1, 0, 0, again=True)
    assert [len(a.apply(later, 2.0 + i)) for i in range(4)] == [1, 1, 1, 0]


def test_nothing_leaves_without_a_path_or_after_the_key() -> None:
    a, _ = pair()
    a.outbound_packet(udp_packet(b"1"), 1.0)
    a.apply(SwitchPath(5, ()), 2.0)
    assert a.apply(Resend(5, 1, 0, 0), 3.0) == []
    a.apply(SwitchPath(5, (FIRST,)), 4.0)
    assert a.apply(Resend(5, 2, 0, 0), 5.0) == []
    assert a.apply(Resend(5, 1, 0, 0), 180.5) == []
    a.take_events(181.0)
    assert a.stats().gauges["resend_bytes"] == 0


def test_a_bulk_flow_does_not_push_out_a_keystroke_and_memory_is_bounded() -> None:
    a, b = pair()
    [(key, _)] = a.outbound_packet(tcp_packet(b"key"), 1.0)
    for i in range(3000):
        a.outbound_packet(udp_packet(bytes(1300), port=i % 100 + 2000), 1.0)
    assert a.stats().gauges["resend_bytes"] <= timing.RESEND_BYTES
    again = [data for data, _ in a.apply(Resend(5, 1, 0, 0), 2.0)]
    assert key in again
    assert again == sorted(again, key=lambda data: data[8:16])
    assert b.inbound_datagram(key, 1, AT_A, 2.0) == tcp_packet(b"key")
    for i in range(1000):
        a.outbound_packet(udp_packet(b"1", port=i + 2000), 3.0)
    assert len(a.apply(Resend(5, 1, 3001, 0), 3.0)) == timing.RESEND_FLOWS


def test_a_closed_socket_parks_and_the_next_path_takes_what_waited() -> None:
    a, b = pair()
    a.apply(CloseSocket(1), 1.0)
    packets = [tcp_packet(bytes((i,)), sequence=1) for i in range(3)]
    assert [a.outbound_packet(each, 2.0 + 4 * i) for i, each in enumerate(packets)] == [[]] * 3
    sent = a.apply(SwitchPath(5, (SECOND,)), 12.0)
    direct = [data[:4] + (102).to_bytes(4, "big") + data[8:] for data, _ in sent]
    assert [b.inbound_datagram(each, 1, AT_A, 12.0) for each in direct] == packets[1:]


KINDS = ("packet", "packet", "bulk", "outage", "report", "resend", "time")
EVENTS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 255)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_no_inner_packet_is_delivered_twice_whatever_is_lost(events: list[tuple[str, int]]) -> None:
    """Reports are lost, old and repeated; paths double, lose and reorder."""
    a, b = pair()
    arrived: list[bytes] = []
    wishes = [Resend(5, 1, 0, 0)]
    loss, now, number, late = 0, 1.0, 0, []

    def carry(sent: list[tuple[bytes, Path]]) -> None:
        nonlocal loss
        for data, _ in sent:
            loss = loss * 5 + 1 & 0xFFFF
            if loss & 3 == 0:
                continue
            direct = data[:4] + (102).to_bytes(4, "big") + data[8:]
            if loss & 12:
                receive(direct)
            else:
                late.append(direct)

    def receive(data: bytes) -> None:
        packet = b.inbound_datagram(data, 1, AT_A, now)
        if packet is not None:
            arrived.append(packet)

    for what, value in events:
        now += 0.001
        match what:
            case "packet" | "bulk":
                for _ in range(1 if what == "packet" else 90):
                    number += 1
                    carry(a.outbound_packet(tcp_packet(number.to_bytes(4, "big"), value), now))
            case "outage":
                paths = ((), (FIRST,), (SECOND,), (FIRST, SECOND))[value & 3]
                carry(a.apply(SwitchPath(5, paths), now))
            case "report":
                wishes.append(dataclasses.replace(report(b, now + 0.2), again=bool(value & 1)))
            case "resend":
                carry(a.apply(wishes[-1 - value % len(wishes)], now))
            case "time":
                now += value / 20
                loss ^= value
                while late:
                    receive(late.pop())
    assert len(arrived) == len(set(arrived))


def test_a_copy_of_what_had_arrived_is_dropped_by_the_window() -> None:
    """The report was lost: the sender knows no better and the receiver counts the copy."""
    a, b = pair()
    [(data, _)] = a.outbound_packet(udp_packet(b"1"), 1.0)
    b.inbound_datagram(data, 1, AT_A, 1.0)
    [(again, _)] = a.apply(Resend(5, 1, 0, 0), 2.0)
    assert b.inbound_datagram(again, 1, AT_A, 2.0) is None
    assert b.drops == {"in_duplicate": 1}
