"""Keys are replaced before they are used up, and nobody notices (rule S1)."""

from __future__ import annotations

import pytest

from ntmd.proto import timing
from tests.sim.test_move import STEP, delivered, pair


def test_load_crosses_the_limits_of_a_key_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "COUNTER_REKEY", 250)
    monkeypatch.setattr(timing, "COUNTER_LIMIT", 1200)
    stage, laptop, desk = pair()
    stage.stream(laptop, desk, 4000, STEP)
    stage.stream(desk, laptop, 4000, STEP)
    stage.run(41.0)
    assert len(delivered(desk)) == len(delivered(laptop)) == 4000
    assert desk.inner.copies("udp") == laptop.inner.copies("udp") == 0
    counters = [int.from_bytes(nonce[4:], "big") for _, nonce in laptop.sealed]
    keys = {key for key, _ in laptop.sealed}
    assert len(keys) >= 4
    assert max(counters) <= timing.COUNTER_LIMIT
