from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from ntmd.node.timers import Timers


def test_due_timers_run_in_order_of_instant_then_of_setting() -> None:
    timers, ran = Timers(), []
    timers.set("b", 2.0, lambda _: ran.append("b"))
    timers.set("a", 1.0, lambda _: ran.append("a"))
    timers.set("c", 2.0, lambda _: ran.append("c"))
    assert timers.deadline() == 1.0
    timers.run(2.0)
    assert ran == ["a", "b", "c"]
    assert timers.deadline() is None


def test_setting_again_replaces_and_cancelling_forgets() -> None:
    timers, ran = Timers(), []
    timers.set("x", 1.0, lambda _: ran.append("early"))
    timers.set("x", 3.0, lambda _: ran.append("late"))
    timers.set("y", 2.0, lambda _: ran.append("never"))
    timers.cancel("y")
    timers.cancel("unknown")
    timers.run(2.5)
    assert ran == []
    assert timers.pending("x") == 3.0
    timers.run(3.0)
    assert ran == ["late"]
    assert timers.pending("x") is None


def test_a_timer_may_set_timers_that_are_due_already() -> None:
    timers, ran = Timers(), []
    timers.set("x", 1.0, lambda now: timers.set("y", now, lambda _: ran.append("y")))
    timers.run(1.0)
    assert ran == ["y"]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10), st.booleans()), max_size=60))
def test_agrees_with_a_plain_dictionary(steps: list[tuple[int, float, bool]]) -> None:
    timers, ran = Timers(), list[int]()
    model: dict[int, float] = {}

    def record(name: int, _: float) -> None:
        ran.append(name)

    for name, when, cancel in steps:
        if cancel:
            timers.cancel(name)
            model.pop(name, None)
        else:
            timers.set(name, when, partial(record, name))
            model[name] = when
    assert timers.deadline() == min(model.values(), default=None)
    timers.run(5.0)
    due = [n for n, w in model.items() if w <= 5.0]
    assert sorted(ran) == sorted(due)
    assert [model[n] for n in ran] == sorted(model[n] for n in ran)


def test_what_is_set_again_and_again_takes_no_room() -> None:
    timers = Timers()
    for number in range(5000):
        timers.set("far", 1e6 + number, lambda _: None)
        timers.set(number, 2e6, lambda _: None)
        timers.cancel(number)
    assert len(timers) == 1
    assert len(timers._heap) <= 100
    assert timers.deadline() == 1e6 + 4999
