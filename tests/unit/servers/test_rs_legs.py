"""The relay's table: only granted legs, only from their sources, within their limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntm_rs.legs import Holder, Leg, LegTable, Way
from ntmd.proto import timing
from ntmd.proto.frame import Kind, pack_header
from ntmd.proto.types import Endpoint

A = Endpoint("203.0.113.1", 1001)
A2 = Endpoint("203.0.113.1", 1002)
B = Endpoint("2001:db8::2", 2002)
STRANGER = Endpoint("192.0.2.66", 66)
GRANT = b"g" * 16
NOW = 1000.0


def datagram(index: int, size: int = 200, kind: int = Kind.DATA, fill: int = 7) -> bytes:
    return pack_header(kind, 3, 0, 0, index, 9) + bytes([fill]) * (size - 16)


def holder(name: str, socket: int, at: Endpoint, *, validated: bool = True) -> Holder:
    made = Holder(name.encode() * 32)
    made.primary = made.source(socket, at, 1, NOW)
    made.primary.validated = validated
    return made


class Pair:
    """A table with one pair: A (IPv4, leg 0xA0) and B (IPv6, leg 0xB0)."""

    def __init__(self, *, rate: int = 0, only_a: bool = False, validated: bool = True) -> None:
        self.table = LegTable()
        self.a = holder("a", 1, A)
        self.b = holder("b", 2, B, validated=validated)
        self.leg_a = Leg(0xA0, GRANT, self.a, 0x1A, NOW + 100, rate, filled=NOW)
        self.leg_b = Leg(0xB0, GRANT, self.b, 0x1B, NOW + 100, rate, filled=NOW)
        self.table.add(self.leg_a)
        if not only_a:
            self.table.add(self.leg_b)

    def send(self, data: bytes, source: Endpoint = A, socket: int = 1, at: float = NOW):  # type: ignore[no-untyped-def]
        return self.table.forward(data, len(data), socket, source, at)


def test_forwards_between_families_with_the_delivery_index() -> None:
    pair = Pair()
    assert pair.send(datagram(0xA0)) == (Way(2, B, 0x1B),)
    assert pair.send(datagram(0xB0), B, 2) == (Way(1, A, 0x1A),)
    assert (pair.table.packets, pair.table.bytes) == (2, 400)


@pytest.mark.parametrize(
    ("data", "source", "socket", "counter"),
    [
        (datagram(0xBAD), A, 1, "unknown_leg"),
        (datagram(0xA0), STRANGER, 1, "unknown_source"),
        (datagram(0xA0), A2, 1, "unknown_source"),
        (datagram(0xA0), A, 2, "unknown_source"),
        (datagram(0xA0), B, 2, "unknown_source"),
        (datagram(0xA0, kind=Kind.RESET), A, 1, "bad_kind"),
        (datagram(0xA0, kind=4), A, 1, "bad_kind"),
        (datagram(0xA0, kind=0), A, 1, "bad_kind"),
        (datagram(0xA0, kind=255), A, 1, "bad_kind"),
        (datagram(0xA0, size=1501), A, 1, "too_big"),
        (datagram(0xA0)[:12], A, 1, "truncated"),
    ],
)
def test_refused_with_a_counter(data: bytes, source: Endpoint, socket: int, counter: str) -> None:
    pair = Pair()
    assert pair.send(data, source, socket) == ()
    assert dict(pair.table.drops) == {counter: 1}
    assert pair.table.packets == 0


@pytest.mark.parametrize("kind", range(256))
def test_kinds_five_to_nine_only(kind: int) -> None:
    ways = Pair().send(datagram(0xA0, kind=kind))
    assert bool(ways) is (5 <= kind <= 9)


def test_full_datagram_passes() -> None:
    assert Pair().send(datagram(0xA0, size=1500)) == (Way(2, B, 0x1B),)


def test_expired_grant_forwards_nothing_and_is_swept() -> None:
    pair = Pair()
    assert pair.send(datagram(0xA0), at=NOW + 100) == ()
    assert pair.table.drops == {"expired": 1}
    assert sorted(pair.table.sweep(NOW + 100)) == [0xA0, 0xB0]
    assert len(pair.table) == 0
    pair.send(datagram(0xA0), at=NOW + 101)
    assert pair.table.drops["unknown_leg"] == 1


def test_holds_four_for_a_second_until_both_ends_opened() -> None:
    pair = Pair(only_a=True)
    for fill in range(6):
        assert pair.send(datagram(0xA0, fill=fill)) == ()
    assert pair.table.drops == {"not_open": 2}
    pair.table.add(pair.leg_b)
    released = pair.table.release(pair.leg_b, NOW + 0.9)
    assert [data[20] for _, data in released] == [0, 1, 2, 3]
    assert {way for way, _ in released} == {Way(2, B, 0x1B)}
    assert pair.table.release(pair.leg_b, NOW + 0.9) == []


def test_held_datagrams_grow_stale() -> None:
    pair = Pair(only_a=True)
    pair.send(datagram(0xA0))
    pair.table.add(pair.leg_b)
    assert pair.table.release(pair.leg_b, NOW + 1.01) == []
    assert pair.table.drops == {"not_open": 1}


def test_rate_of_a_leg_bounds_what_reaches_the_peer() -> None:
    pair = Pair(rate=125_000)  # 1 Mbit/s
    sent = 0
    for step in range(10_000):  # 10 s of 1,400 B at 1,000/s = 11 Mbit/s
        if pair.send(datagram(0xA0, 1400), at=NOW + step / 1000):
            sent += 1400
    assert 1_250_000 * 0.95 <= sent <= 1_250_000 + 131_072 + 1400
    assert pair.table.drops["over_rate"] > 5000


def test_amplification_towards_an_unanswered_source_is_bounded() -> None:
    pair = Pair(validated=False)
    out = sum(1200 for _ in range(100) if pair.send(datagram(0xA0, 1200)))
    assert out == timing.AMPLIFICATION_FLOOR // 1200 * 1200
    assert pair.table.drops["unanswered_source"] == 90
    pair.send(datagram(0xB0, 1200), B, 2)  # the primary may send, and earns three times that
    more = sum(1200 for _ in range(100) if pair.send(datagram(0xA0, 1200)))
    assert more == 3 * 1200
    assert pair.b.primary is not None
    pair.b.primary.validated = True
    assert pair.send(datagram(0xA0, 1200))


def test_an_unvalidated_source_that_is_not_primary_forwards_nothing() -> None:
    pair = Pair()
    pair.a.source(1, A2, 2, NOW)
    assert pair.send(datagram(0xA0), A2) == ()
    pair.a.source(1, A2, 2, NOW).validated = True
    assert pair.send(datagram(0xA0), A2) == (Way(2, B, 0x1B),)


def test_at_most_four_sources_and_the_primary_stays() -> None:
    made = holder("a", 1, A)
    for port in range(20):
        made.source(1, Endpoint("203.0.113.1", 3000 + port), 1, NOW + port)
    assert len(made.sources) == timing.SESSION_SOURCES
    assert (1, A) in made.sources
    assert made.primary is made.sources[(1, A)]


def test_duplicates_towards_both_while_asked() -> None:
    pair = Pair()
    second = pair.b.source(1, A2, 2, NOW)
    second.validated = True
    pair.b.also, pair.b.also_until = second, NOW + 1
    assert pair.send(datagram(0xA0)) == (Way(2, B, 0x1B), Way(1, A2, 0x1B))
    assert pair.send(datagram(0xA0), at=NOW + 1) == (Way(2, B, 0x1B),)


def test_fresh_id_and_the_old_one_for_ten_seconds() -> None:
    pair = Pair()
    assert pair.table.rename(pair.leg_a, 0xC0, NOW) == []
    assert pair.send(datagram(0xC0)) == (Way(2, B, 0x1B),)
    assert pair.send(datagram(0xA0), at=NOW + 9.9) == (Way(2, B, 0x1B),)
    assert pair.table.sweep(NOW + 10) == [0xA0]
    assert pair.send(datagram(0xA0), at=NOW + 10) == ()
    assert pair.table.drops["unknown_leg"] == 1


def test_legs_linger_after_the_session_and_may_be_opened_again() -> None:
    pair = Pair()
    pair.table.suspend(pair.b, NOW + 600)
    assert pair.send(datagram(0xA0)) == ()
    pair.leg_b.open, pair.leg_b.closes = True, None
    assert [way for way, _ in pair.table.release(pair.leg_b, NOW)] == [Way(2, B, 0x1B)]
    pair.table.suspend(pair.b, NOW + 50)
    assert pair.table.sweep(NOW + 50) == [0xB0]
    assert len(pair.table) == 1


def test_a_run_with_two_legs_in_it_is_refused_whole() -> None:
    pair = Pair()
    run = datagram(0xA0) * 3 + datagram(0xB0)
    assert pair.table.forward(run, 200, 1, A, NOW) == ()
    assert pair.table.drops == {"mixed_run": 4}


def test_a_run_with_a_short_last_segment_passes() -> None:
    pair = Pair()
    run = datagram(0xA0) * 3 + datagram(0xA0, 60)
    assert pair.table.forward(memoryview(bytearray(run)), 200, 1, A, NOW) == (Way(2, B, 0x1B),)
    assert pair.table.packets == 4


@given(
    indexes=st.lists(st.sampled_from([0xA0, 0xB0, 0x0A, 0xA000_0000]), min_size=1, max_size=6),
    kinds=st.lists(st.integers(4, 10), min_size=6, max_size=6),
    last=st.integers(1, 64),
)
def test_a_run_passes_only_if_each_datagram_of_it_would(
    indexes: list[int], kinds: list[int], last: int
) -> None:
    parts = [datagram(index, 64, kinds[at]) for at, index in enumerate(indexes)]
    parts[-1] = parts[-1][:last]
    run = b"".join(parts)
    ways = Pair().table.forward(run, 64, 1, A, NOW)
    alone = [Pair().table.forward(part, len(part), 1, A, NOW) for part in parts if len(part) >= 8]
    same = all(index == indexes[0] for index in indexes) and len(parts[-1]) >= 16
    assert bool(ways) is (same and all(alone))


@given(st.binary(max_size=1600), st.integers(1, 1600))
def test_never_raises_on_junk(data: bytes, segment: int) -> None:
    pair = Pair()
    assert pair.table.forward(data, segment, 1, A, NOW) == () or data[4:8] == b"\0\0\0\xa0"
