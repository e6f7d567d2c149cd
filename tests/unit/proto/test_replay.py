"""The replay window against a set that forgets nothing."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto.replay import ReplayWindow

steps = st.lists(
    st.one_of(
        st.integers(-40, 40),
        st.integers(-300, 300),
        st.sampled_from([63, 64, 65, 127, 128, 129, 192, 10_000, 1 << 40]),
    ),
    max_size=200,
)


class Model:
    """Every counter ever taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: set[int] = set()

    @property
    def greatest(self) -> int:
        return max(self.seen, default=-1)

    def would(self, counter: int) -> bool:
        return counter not in self.seen and counter > self.greatest - self.size

    def bitmap(self) -> int:
        top = self.greatest
        inside = range(64 if self.size > 64 else 63)  # the window counts the greatest itself
        return sum(1 << n for n in inside if top - 1 - n in self.seen)


@given(st.sampled_from([64, 128, 1024]), steps)
def test_agrees_with_the_model(size: int, moves: list[int]) -> None:
    window, model, at = ReplayWindow(size), Model(size), 0
    for move in moves:
        at = max(0, at + move)
        fits = model.would(at)
        assert window.check(at) is fits
        assert window.accept(at) is fits
        if fits:
            model.seen.add(at)
        assert window.greatest == model.greatest
        assert window.bitmap64() == model.bitmap()
        assert window.lost == model.greatest + 1 - len(model.seen)


@given(st.permutations(range(150)))
def test_any_order_within_the_window_is_taken_once(order: list[int]) -> None:
    window = ReplayWindow(192)
    assert all(window.accept(counter) for counter in order)
    assert not any(window.accept(counter) for counter in order)
    assert (window.lost, window.duplicates, window.too_old) == (0, 150, 0)


def test_what_is_refused_is_told_apart() -> None:
    window = ReplayWindow(64)
    assert window.accept(100)
    assert not window.accept(100)
    assert not window.accept(36)
    assert window.accept(37)
    assert (window.duplicates, window.too_old, window.lost) == (1, 1, 99)


def test_checking_changes_nothing() -> None:
    window = ReplayWindow(64)
    assert window.check(500)
    assert window.greatest == -1
    assert window.check(0)


@pytest.mark.parametrize("counter", [-1, -(1 << 64)])
def test_no_negative_counters(counter: int) -> None:
    window = ReplayWindow(64)
    assert not window.check(counter)
    assert not window.accept(counter)


@pytest.mark.parametrize("size", [0, 1, 63, 65, -64])
def test_sizes(size: int) -> None:
    with pytest.raises(ValueError, match="64"):
        ReplayWindow(size)


def test_accepting_does_not_grow_with_the_window() -> None:
    def cost(size: int) -> float:
        window = ReplayWindow(size)
        return min(
            timeit.repeat(
                lambda: [window.accept(window.greatest + 1) for _ in range(2000)],
                number=1,
                repeat=5,
            )
        )

    assert cost(65_536) < 5 * cost(64)
