"""The receive window against a set that remembers everything."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ntmd.dataplane.window import DUPLICATE, FRESH, OUT_OF_RANGE, TOO_OLD, Window
from ntmd.proto import timing
from tests.unit.dataplane.pair import AT_A, pair, udp_packet

STEPS = st.one_of(st.integers(-70, 70), st.integers(-3, 3), st.sampled_from([64, 65, 200]))


@given(steps=st.lists(st.tuples(STEPS, st.integers(1, 64), st.booleans()), max_size=200))
def test_each_counter_once_and_none_too_old(steps) -> None:
    window, seen, at = Window(64), set(), 0
    for step, run, many in steps:
        at = max(0, at + step)
        if many and at == window.greatest + 1:
            window.accept_many(at, run)
            seen |= set(range(at, at + run))
            at += run - 1
            continue
        greatest = max(seen, default=0)
        want = FRESH
        if at == 0:
            want = OUT_OF_RANGE
        elif at <= greatest - 64:
            want = TOO_OLD
        elif at in seen:
            want = DUPLICATE
        assert window.check(at) == want
        if want == FRESH:
            assert window.accept(at) == (at > greatest)
            seen.add(at)
        assert window.greatest == max(seen, default=0)
        assert window.lost == window.greatest - len(seen)
        below = [window.greatest - 1 - i for i in range(min(63, window.greatest - 1))]
        assert window.bitmap() == sum(1 << i for i, each in enumerate(below) if each in seen)


def test_counters_beyond_the_limit_are_refused() -> None:
    window = Window()
    assert window.check(timing.COUNTER_LIMIT) == FRESH
    assert window.check(timing.COUNTER_LIMIT + 1) == OUT_OF_RANGE
    assert not window.ring, "an idle session has no window"


def test_a_soft_move_to_a_quicker_path_at_full_speed_leaves_nothing_too_old() -> None:
    """60 ms before, 5 ms after, 300,000 datagrams a second: 16,500 arrive behind younger ones."""
    a, b = pair()
    rate, before, after = 300_000, 0.060, 0.005
    packet = udp_packet(b"")
    arrivals = []
    for number in range(60_000):
        sent = number / rate
        [(datagram, _)] = a.outbound_packet(packet, sent)
        arrivals.append((sent + (before if sent < 0.1 else after), number, datagram))
    arrivals.sort()
    late = sum(later[1] < sooner[1] for sooner, later in pairwise(arrivals))
    assert late > 10_000, "the paths overlap"
    for at, _, datagram in arrivals:
        assert b.inbound_datagram(datagram, 1, AT_A, at) == packet
    assert b.drops == {}
