from __future__ import annotations

from ntmd.node.clock import PlatformClock


def test_platform_time_goes_with_the_boot_clock_from_the_wall_clock() -> None:
    clock = PlatformClock(1_000_000, 10.0)
    assert clock(10.0) == 1_000_000
    assert clock(12.5) == 1_002_500
    assert clock.slack_ms() == 48 * 3600 * 1000


def test_the_persisted_lower_bound_heals_a_clock_at_1970() -> None:
    clock = PlatformClock(5_000, 10.0, lower_bound_ms=9_000_000_000)
    assert clock(10.0) == 9_000_000_000


def test_the_first_authenticated_answer_counts_and_the_wall_clock_is_complained_about() -> None:
    clock = PlatformClock(1_000_000, 10.0)
    clock.learn(100_000_000, 20.0)
    assert clock(21.0) == 100_001_000
    assert clock.slack_ms() == 0
    assert clock.wrong_by() < -3600
    clock.read(5, 22.0)
    assert clock(22.0) == 100_002_000


def test_an_answer_without_time_changes_nothing() -> None:
    clock = PlatformClock(1_000_000, 10.0)
    clock.learn(0, 20.0)
    assert not clock.authenticated
    assert clock.wrong_by() == 0.0
