"""A coordinator comes back after hours, or after minutes: its nodes do not storm it.

The same with more nodes: ``python -m tests.sim.storm --nodes 10000 --hours 0.3 --stale``.
"""

from __future__ import annotations

import pytest

from ntmd.node.core import RENEW_RETRY
from ntmd.node.inputs import CommandFailed
from ntmd.proto.timing import LADDER
from tests.sim.storm import storm
from tests.sim.story import Stage

NODES = 30


@pytest.mark.parametrize("relay", [False, True], ids=["relay stays", "relay away too"])
def test_after_long_silence_the_nodes_call_one_by_one(relay: bool) -> None:
    """Longer than what the coordinator calls back after: only the nodes can find it."""
    found = storm(NODES, 4000.0, relay=relay)
    assert found.silent <= 3600 / 120 * (len(LADDER) + 1)  # a call each 120 s, nothing else
    assert 1 <= found.initiations <= NODES // 6
    assert found.half_s > 30.0
    assert found.all_s <= 160.0 + 10.0
    assert found.renewals_away <= 3  # they started within a second, and retried each hour since
    assert found.renewals <= 3
    assert found.renewed_s <= 1.5 * 3600 + 10.0


def test_a_coordinator_with_stale_notes_is_found_by_its_nodes_as_after_hours() -> None:
    found = storm(NODES, 2000.0, stale=True)
    assert 1 <= found.initiations <= NODES // 6
    assert found.half_s > 30.0
    assert found.all_s <= 160.0 + 10.0


def test_after_minutes_the_coordinator_calls_its_nodes_itself() -> None:
    found = storm(NODES, 900.0)
    assert found.initiations <= 1
    assert found.all_s <= 3.0
    assert found.peak <= NODES * 6  # answer, registration, test of the mapping


def test_renewals_that_failed_together_are_not_tried_again_together() -> None:
    stage = Stage(3, keep_trace=False)
    stage.domain()
    nodes = [stage.node(f"n{number}") for number in range(NODES)]
    stage.all_up()
    for node in nodes:
        node.post(CommandFailed("RenewCertificate", 111, "account server silent"))
    waits = sorted(node.renewals[-1].after for node in nodes)
    assert waits[0] >= RENEW_RETRY / 2
    assert waits[-1] <= RENEW_RETRY * 1.5
    assert waits[-1] - waits[0] > RENEW_RETRY / 2, "spread over most of an hour"
