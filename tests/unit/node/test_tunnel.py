"""The table of tunnel states: every pair, and every history."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.node.tunnel import (
    STATES,
    TRANSITIONS,
    Asking,
    Asleep,
    Awaiting,
    Calling,
    Closed,
    Failed,
    Input,
    Open,
    State,
    Waking,
    step,
    word,
)


def _build(kind: type, since: float = 1.0) -> State:
    return Failed(since, "silence", since + 2) if kind is Failed else kind(since)


@pytest.mark.parametrize(("kind", "event"), list(itertools.product(STATES, Input)))
def test_every_pair_follows_the_table_or_changes_nothing(kind: type, event: Input) -> None:
    before = _build(kind)
    after = step(before, event, 5.0, "why")
    if (kind, event) not in TRANSITIONS:
        assert after is None
    elif TRANSITIONS[kind, event] is kind and kind is not Failed:
        assert after is before  # the instant of entering a state is kept
    else:
        assert type(after) is TRANSITIONS[kind, event]
        assert after is not None
        assert after.since == 5.0


def test_a_confirmed_session_opens_from_every_state() -> None:
    for kind in STATES:
        after = step(_build(kind), Input.CONFIRMED, 2.0)
        assert isinstance(after, Open), kind


def test_going_down_ends_every_state_with_something_under_way() -> None:
    for kind in (Asking, Calling, Awaiting, Open, Asleep, Waking, Failed):
        assert isinstance(step(_build(kind), Input.STOPPED, 2.0), Closed)


def test_a_failure_carries_its_reason_and_its_pause() -> None:
    after = step(Calling(1.0), Input.CALL_FAILED, 3.0, "silence", pause=4.0)
    assert after == Failed(3.0, "silence", 7.0)


def test_nothing_but_a_confirmed_session_or_a_living_key_opens_a_tunnel() -> None:
    openers = {event for (_, event), to in TRANSITIONS.items() if to is Open}
    staying = {e for (kind, e), to in TRANSITIONS.items() if to is Open and kind is Open}
    assert openers - staying == {Input.WOKEN}
    assert Input.CONFIRMED in staying


@given(st.lists(st.sampled_from(list(Input)), max_size=40))
def test_histories_stay_inside_the_states_and_can_always_recover(events: list[Input]) -> None:
    state: State = Closed(0.0)
    for instant, event in enumerate(events):
        state = step(state, event, float(instant)) or state
        assert type(state) in STATES
        assert word(state)
    assert isinstance(step(state, Input.CONFIRMED, 99.0), Open)
