"""Settings shared by all tests, and the account of what property tests ran and threw away."""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.statistics import collector

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")

DISCARDED_MOST = 0.2  # more, and a property test says less than it seems to
EXAMPLES = "hypothesis examples"

# A shell's background job ignores SIGINT, and so would every program that a test starts and ends
# with it; children inherit what is set here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Count a property test's examples; fail it if it discards too many of them."""
    outer = collector.value
    counts = [0, 0]

    def count(stats: dict[str, Any]) -> None:
        for status in statuses(stats):
            counts[status in ("invalid", "overrun")] += 1
        if outer is not None:
            outer(stats)

    with collector.with_value(count):  # type: ignore[arg-type]
        result = yield
    run, discarded = counts
    if run + discarded:
        item.user_properties.append((EXAMPLES, (run, discarded)))
        share = discarded / (run + discarded)
        if share > DISCARDED_MOST:
            pytest.fail(f"{discarded} of {run + discarded} examples were discarded ({share:.0%})")
    return result


def statuses(stats: dict[str, Any]) -> list[str]:
    """How each example of a property test ended: valid, invalid, overrun or interesting."""
    return [
        case["status"]
        for phase in ("reuse-phase", "generate-phase")
        for case in stats.get(phase, {}).get("test-cases", ())
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the sums, and whatever discarded anything."""
    found = {
        report.nodeid: value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == EXAMPLES and report.when == "call"
    }
    if not found:
        return
    run, discarded = (sum(each[i] for each in found.values()) for i in (0, 1))
    terminalreporter.write_line(
        f"{len(found)} property tests: {run} examples run, {discarded} discarded"
    )
    for nodeid, (_, lost) in sorted(found.items()):
        if lost:
            terminalreporter.write_line(f"  {lost} discarded by {nodeid}")
