"""The receive window against a set that remembers everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ntmd.dataplane.window import DUPLICATE, FRESH, OUT_OF_RANGE, TOO_OLD, Window
from ntmd.proto import timing

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
