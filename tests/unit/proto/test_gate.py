"""How many handshakes may be half open: few of one key, and never all of the room (rule C11)."""

from __future__ import annotations

from ntmd.proto import timing
from ntmd.proto.flood import Gate

MINE, YOURS = b"m" * 32, b"y" * 32


def test_one_key_takes_no_room_from_others_however_often_it_calls() -> None:
    gate = Gate()
    for _ in range(2 * timing.HALF_OPEN_TOTAL):
        gate.open(MINE, 1.0)
    assert gate.has_room(1.0)
    for number in range(timing.HALF_OPEN_TOTAL - timing.HALF_OPEN_PER_KEY):
        assert gate.has_room(1.0)
        gate.open(number.to_bytes(32, "big"), 1.0)
    assert not gate.has_room(1.0)
    gate.confirmed(MINE)
    assert gate.has_room(1.0)


def test_what_is_never_confirmed_is_counted_for_its_lifetime_only() -> None:
    gate = Gate()
    for number in range(timing.HALF_OPEN_TOTAL):
        gate.open(number.to_bytes(32, "big"), 1.0)
    assert not gate.has_room(1.0 + timing.HANDSHAKE_LIFETIME - 0.1)
    assert gate.has_room(1.0 + timing.HANDSHAKE_LIFETIME)
    gate.confirmed(YOURS)  # of a key that has none: nothing happens
