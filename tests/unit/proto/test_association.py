"""Which session is in use: simultaneous open (C12), restarts, ages, ends; nonces never repeat."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.events import (
    Established,
    MessageReceived,
    PeerClosed,
    SessionInUse,
    SessionReady,
    SessionsGone,
)
from ntmd.proto.frame import Kind
from tests.unit.proto.engines import Bus, Station, joined, pair

STEPS = 6  # the six datagrams of two crossing handshakes: call, answer, Confirm of each end


def open_from_both_ends(
    delays: tuple[float, ...], lost: tuple[int, ...]
) -> tuple[Bus, Station, Station]:
    """Both ends call at once; the first datagrams fly for ``delays``, those in ``lost`` vanish."""
    bus, alice, bob = pair()
    count = itertools.count()
    flights = itertools.chain(delays, itertools.repeat(0.01))
    bus.lose = lambda source, destination, data: next(count) in lost
    bus.delay = lambda data: next(flights)
    alice.call(bob)
    bob.call(alice)
    bus.run(9.0)
    return bus, alice, bob


def check_agreement(bus: Bus, alice: Station, bob: Station) -> None:
    """Both ends send on the same session, and no sealed frame met an unknown slot."""
    for station in (alice, bob):
        assert station.engine.counters["unknown_slot"] == 0
        assert station.engine.counters["unknown_index"] == 0
    ours, theirs = (
        {each.session.number: each.session for each in station.all(SessionReady)}[
            station.in_use() or 0
        ]
        for station in (alice, bob)
    )
    assert ours.resume == theirs.resume
    bus.lose = lambda source, destination, data: False
    for one, other in ((alice, bob), (bob, alice)):
        one.engine.tell(one.handle(other), m.Probe(1), bus.now)
        bus.run(0.1)
        assert len(other.all(MessageReceived)) == 1


LOSSES = [
    *itertools.combinations(range(STEPS), 0),
    *itertools.combinations(range(STEPS), 1),
    *itertools.combinations(range(STEPS), 2),
]


@pytest.mark.parametrize("lost", LOSSES, ids=str)
def test_simultaneous_open_in_every_order_and_with_two_losses(lost: tuple[int, ...]) -> None:
    for order in itertools.permutations((0.005, 0.018, 0.031), 3):
        for reverse in (False, True):
            delays = order + tuple(reversed(order)) if reverse else order + order
            check_agreement(*open_from_both_ends(delays, lost))


@pytest.mark.parametrize("order", list(itertools.permutations(range(STEPS))))
def test_simultaneous_open_in_all_orders_of_arrival(order: tuple[int, ...]) -> None:
    delays = tuple(0.003 + 0.007 * each for each in order)
    check_agreement(*open_from_both_ends(delays, ()))


def test_the_smaller_initiator_key_wins() -> None:
    _bus, alice, bob = open_from_both_ends((), ())
    smaller = min(alice.key, bob.key)
    for station in (alice, bob):
        chosen = {e.session.number: e.session for e in station.all(SessionReady)}[
            station.in_use() or 0
        ]
        assert chosen.initiator is (station.key == smaller)
    assert sum(event.first for event in alice.all(Established)) == 1
    assert sum(event.first for event in bob.all(Established)) == 1


def test_the_losing_session_stays_open_for_receiving() -> None:
    bus, alice, bob = open_from_both_ends((), ())
    assert not alice.all(SessionsGone)
    assert len(alice.engine._context.by_key[bob.key].sessions) == 2
    bus.run(timing.DATA_KEY_LIFETIME + timing.SIMULTANEOUS_OPEN)
    assert len(alice.engine._context.by_key[bob.key].sessions) == 1
    gone = [number for event in alice.all(SessionsGone) for number in event.numbers]
    assert len(gone) == len(set(gone)) == 2


def test_rekey_replaces_after_180_s_and_keeps_the_association() -> None:
    bus, alice, bob = joined()
    bus.run(timing.REKEY_AFTER)
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(1.0)
    first, second = alice.all(Established)
    assert second.session.association == first.session.association
    assert [first.first, second.first] == [True, False]
    assert [each.first for each in bob.all(Established)] == [True, False]
    assert alice.all(SessionInUse)[-1].number == second.session.number
    bus.run(timing.DATA_KEY_LIFETIME - timing.REKEY_AFTER)
    assert alice.all(SessionsGone)[0].numbers == (first.session.number,)
    bus.run(timing.DATA_KEY_LIFETIME)
    assert len(alice.engine._context.by_key[bob.key].sessions) == 1


def test_indices_and_slots_are_fresh_after_a_rekey() -> None:
    bus, alice, bob = joined()
    bus.run(1.0)
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(1.0)
    first, second = (each.session for each in alice.all(Established))
    assert first.own_index != second.own_index
    assert first.peer_index != second.peer_index
    assert first.slot_in != second.slot_in


def test_rekey_of_the_other_end_waits_until_it_counts() -> None:
    """Within 10 s of a session whose initiator has the smaller key a rekey would be undone."""
    bus, alice, bob = pair()
    smaller, larger = sorted((alice, bob), key=lambda each: each.key)
    smaller.call(larger)
    bus.run(1.0)
    larger.engine.rekey(larger.handle(smaller), bus.now)
    bus.run(5.0)
    assert len(larger.all(Established)) == 1
    bus.run(7.0)
    assert larger.in_use() == larger.all(Established)[1].session.number
    assert smaller.in_use() == smaller.all(Established)[1].session.number


def test_a_restarted_peer_is_a_new_association() -> None:
    bus, alice, bob = joined()
    bus.run(20.0)
    alice.engine.set_primary(alice.handle(bob), alice.to(bob), 5)
    bob = bus.restart(bob)
    bob.call(alice)
    bus.run(1.0)
    assert [each.first for each in alice.all(Established)] == [True, True]
    assert alice.in_use() == alice.all(Established)[1].session.number
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bus.run(0.1)
    assert bob.all(MessageReceived)[0].move_seq == 0


def test_what_an_earlier_life_sent_is_not_obeyed_when_it_comes_late() -> None:
    """It was under way while its sender restarted; its request id is one of the new life, too."""
    bus, alice, bob = joined()
    bus.delay = lambda data: 2.0
    alice.engine.ask(alice.handle(bob), m.Draining(0, True), bus.now)
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bus.collect()
    bus.delay = lambda data: 0.01
    again = bus.restart(alice)
    again.call(bob)
    bus.run(1.0)
    bob.events.clear()
    again.engine.ask(again.handle(bob), m.Draining(0, False), bus.now)
    bus.run(2.0)
    assert [each.message for each in bob.all(MessageReceived)] == [m.Draining(1, False)]
    assert bob.engine.counters["earlier_life"] == 2


def test_goodbye_of_an_earlier_life_does_not_end_the_new_one() -> None:
    bus, alice, bob = joined()
    bus.delay = lambda data: 2.0
    alice.engine.close(alice.handle(bob), bus.now, m.CloseReason.DOWN)
    bus.collect()
    bus.delay = lambda data: 0.01
    again = bus.restart(alice)
    again.call(bob)
    bus.run(3.0)
    assert bob.engine.counters["earlier_life"] >= 1
    assert not bob.all(PeerClosed)
    assert bob.in_use() == bob.all(Established)[1].session.number


def test_close_ends_only_sessions_not_newer() -> None:
    bus, alice, bob = joined()
    old = alice.engine._context.by_key[bob.key].current
    assert old is not None
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(1.0)
    association = alice.engine._context.by_key[bob.key]
    body = m.Close(old.info.slot_out, m.CloseReason.DOWN)
    alice.engine._channel.tell(association, body, None)
    bus.run(0.1)
    assert not bob.all(PeerClosed)
    assert len(bob.engine._context.by_key[alice.key].sessions) == 1
    assert bob.in_use() == bob.all(Established)[1].session.number


@given(
    st.lists(
        st.sampled_from(
            ["rekey a", "rekey b", "tell", "ask", "wait", "long", "restart b", "call b"]
        ),
        max_size=12,
    ),
    st.integers(0, 1000),
)
def test_no_nonce_is_ever_used_twice_under_a_key(history: list[str], seed: int) -> None:
    bus, alice, bob = joined(seed)
    dice = bus.clock.stream("loss")
    bus.lose = lambda source, destination, data: dice.random() < 0.2
    for what in history:
        if what == "restart b":
            bob = bus.restart(bob, mark=seed)
        elif what == "call b":
            bob.call(alice)
        elif what == "wait":
            bus.run(0.3)
        elif what == "long":
            bus.run(60.0)
        else:
            near, far = (bob, alice) if what.endswith("b") else (alice, bob)
            handle = near.engine.handle_of(far.key)
            if handle is None:
                continue
            if what.startswith("rekey"):
                near.engine.rekey(handle, bus.now)
            elif what == "tell":
                near.engine.tell(handle, m.Probe(1), bus.now)
            else:
                near.engine.ask(handle, m.Deregister(0), bus.now)
    bus.run(5.0)
    seen: dict[tuple[object, bytes], bytes] = {}
    for source, _, data in bus.sent:
        if data[0] == Kind.CONTROL:
            nonce = (source, data[:16])  # index and slot name the key, the counter follows
            assert seen.setdefault(nonce, data) == data
    sealed = [data for _, _, data in bus.sent if data[0] == Kind.CONTROL]
    assert len({data[16:] for data in sealed}) == len(sealed)
