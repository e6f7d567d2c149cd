"""Packets that wait: who leaves when there are too many, and when waiting ends."""

from __future__ import annotations

from collections import Counter

from ntmd.dataplane.packets import VNET_SIZE
from ntmd.dataplane.parking import Parking
from ntmd.proto import timing
from tests.unit.dataplane.pair import A, B, tcp_packet, udp_packet

HEAD = bytes(VNET_SIZE)


def parking() -> tuple[Parking, Counter[str]]:
    drops: Counter[str] = Counter()
    return Parking(drops), drops


def test_a_flood_does_not_push_out_the_packet_of_another_flow() -> None:
    lot, drops = parking()
    lot.park(B, HEAD + tcp_packet(b"keystroke"), 0.0)
    for i in range(1000):
        lot.park(B, HEAD + udp_packet(bytes(1000), port=9), 0.001 * i)
    assert HEAD + tcp_packet(b"keystroke") in lot.release(B)
    assert drops == {"parked_full": 1001 - timing.PARKED_PACKETS}
    assert len(lot) == 0


def test_of_large_packets_the_newest_stay() -> None:
    lot, _ = parking()
    large = [HEAD + udp_packet(bytes((i,)) * 60_000) for i in range(9)]
    for i, raw in enumerate(large):
        lot.park(B, raw, float(i) / 10)
    assert lot.release(B) == large[-4:]


def test_all_addresses_together_are_bounded() -> None:
    lot, drops = parking()
    for i in range(100):
        lot.park(i.to_bytes(16, "big"), HEAD + udp_packet(bytes(60_000)), 0.0)
    kept = [i for i in range(100) if lot.release(i.to_bytes(16, "big"))]
    assert kept == list(range(100 - timing.PARKED_BYTES // 60_058, 100))
    assert drops["parked_full"] == 100 - len(kept)


def test_a_stream_keeps_its_newest_repetition_for_its_longest_pause() -> None:
    lot, drops = parking()
    lot.park(B, HEAD + udp_packet(b"1"), 0.0)
    for i, at in enumerate((0.2, 0.6, 1.4, 3.0, 6.2, 12.6)):
        lot.park(B, HEAD + tcp_packet(bytes((i,))), at)
    lot.expire(20.0)
    assert drops["parked_expired"] == 6
    assert lot.deadline() == 12.6 + timing.PARKED_STREAM_SECONDS
    assert lot.release(B) == [HEAD + tcp_packet(b"\x05")]
    lot.park(A, HEAD + tcp_packet(b"1"), 30.0)
    lot.expire(30.0 + timing.PARKED_STREAM_SECONDS)
    assert len(lot) == 0
    assert lot.deadline() is None
