"""The figures of the matrix against cases worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.survival import measure


def test_a_hole_counts_from_the_instant_the_new_link_is_usable() -> None:
    times = [0.00, 0.01, 0.02, 0.12, 0.13]
    hole = measure.longest_hole(times, 0.02, 0.13, 0.01, [(0.02, 0.05)])
    assert hole == pytest.approx(0.10 - 0.03 - 0.01)


def test_what_never_came_back_counts_to_the_end() -> None:
    assert measure.longest_hole([0.0, 0.01], 0.01, 5.0, 0.01) == pytest.approx(4.98)
    assert measure.longest_hole([], 1.0, 5.0, 0.01) == pytest.approx(3.99)


def test_holes_before_the_event_do_not_count() -> None:
    assert measure.longest_hole([0.0, 3.0, 3.01, 3.02], 3.0, 3.02, 0.01) == pytest.approx(0.0)


def test_flow_counts_each_datagram_once() -> None:
    sent = [n * 0.01 for n in range(300)]
    received = [(n, sent[n] + 0.02) for n in range(300) if n not in (100, 101, 150)]
    received[10], received[11] = received[11], received[10]
    received.append((5, 2.9))
    told = measure.flow(sent, received, 0.9, 3.0, 0.01, [(1.0, 1.015)])
    assert (told.sent, told.lost, told.lost_online) == (200, 3, 1)
    assert (told.duplicated, told.reordered, told.back) == (1, 1, True)
    assert told.gap_ms == pytest.approx(15.0, abs=0.1)  # 30 ms, 5 of them offline, one interval
    assert not measure.flow(sent, received[:100], 0.9, 5.0, 0.01).back


def test_quality_of_a_call() -> None:
    sent = [n * 0.02 for n in range(500)]
    whole = [(n, at + 0.02) for n, at in enumerate(sent)]
    assert measure.mos(sent, whole, 0, 10) == pytest.approx(4.41, abs=0.01)  # R 93.2
    holey = [pair for pair in whole if not 100 <= pair[0] < 200]
    assert 1.0 <= measure.mos(sent, holey, 0, 10) < 2.5
    late = [(n, at + (0.1 if 100 <= n < 200 else 0)) for n, at in whole]
    assert measure.mos(sent, late, 0, 10) == measure.mos(sent, holey, 0, 10)
    assert measure.mos(sent, [], 0, 10) == 1.0


def test_published_points_of_the_e_model() -> None:
    """R of 93.2, 80, 70, 60 and 50 are 4.41, 4.03, 3.60, 3.10 and 2.58 (G.107 annex B, G.109)."""
    for r, wanted in ((93.2, 4.41), (80, 4.03), (70, 3.60), (60, 3.10), (50, 2.58)):
        assert measure.score(r) == pytest.approx(wanted, abs=0.01)
    assert measure.delay_impairment(0.1) == 0
    assert 0 < measure.delay_impairment(0.15) < measure.delay_impairment(0.4)


def test_quantile() -> None:
    assert measure.quantile([3, 1, 2], 0.5) == 2
    assert measure.quantile(range(1, 21), 0.95) == 19
    assert measure.quantile([7], 0.95) == 7
    assert measure.quantile([1, 3], 0.5) == 2
    assert measure.quantile([1, math.inf], 0.5) == math.inf
