"""Requests on a lossy path: the ladder, duplicates, the cache of replies, what is unknown."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto import messages as m
from ntmd.proto import msgpack, timing
from ntmd.proto.events import MessageReceived, PeerClosed, Replied, RequestFailed
from tests.unit.proto.engines import Bus, Station, joined


def serve(bus: Bus, server: Station) -> list[int]:
    """Answer each request at once; returns the list of ids that reach the owner."""
    seen: list[int] = []

    def on_event(station: Station, event: Any) -> None:
        if station is server and isinstance(event, MessageReceived):
            assert isinstance(event.message, m.Deregister)
            seen.append(event.message.id)
            station.engine.reply(event, m.Done(event.message.id, m.Status.OK), bus.now)

    bus.on_event = on_event
    return seen


def test_a_lost_reply_is_sent_again_without_asking_the_owner() -> None:
    bus, alice, bob = joined()
    seen = serve(bus, bob)
    dropped: list[bytes] = []

    def lose(source: Station, destination: Station, data: bytes) -> bool:
        if source is bob and len(dropped) < 3:
            dropped.append(data)
            return True
        return False

    bus.lose = lose
    number = alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(2.0)
    assert seen == [number]
    assert [each.request_id for each in alice.all(Replied)] == [number]
    assert bob.engine.counters["repeated_request"] >= 3


def test_copies_follow_the_ladder_and_then_the_request_fails() -> None:
    bus, alice, bob = joined()
    times: list[float] = []

    def lose(source: Station, destination: Station, data: bytes) -> bool:
        times.append(round(bus.now - begin, 3))
        return True

    begin = bus.now
    bus.lose = lose
    number = alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(timing.REQUEST_TIMEOUT + 0.1)
    sums = [round(sum(timing.LADDER[:n]), 3) for n in range(len(timing.LADDER) + 1)]
    assert times == sums
    failed = alice.all(RequestFailed)
    assert [(each.request_id, each.reason) for each in failed] == [(number, "timeout")]


def test_a_request_waits_for_a_slow_owner() -> None:
    bus, alice, bob = joined()
    number = alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(4.0)
    (got,) = bob.all(MessageReceived)
    bob.engine.reply(got, m.Done(got.message.id, m.Status.OK), bus.now)
    bus.run(0.1)
    assert alice.all(Replied)[0].request_id == number
    assert not alice.all(RequestFailed)


def test_the_end_of_the_session_fails_what_waits() -> None:
    bus, alice, bob = joined()
    number = alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bob.engine.close(bob.handle(alice), bus.now, m.CloseReason.DOWN)
    bus.run(1.0)
    assert alice.all(PeerClosed)
    assert [each.request_id for each in alice.all(RequestFailed)] == [number]
    assert alice.engine.ask(alice.all(PeerClosed)[0].handle, m.Deregister(0), bus.now) == 0


def test_a_second_reply_is_counted_only() -> None:
    bus, alice, bob = joined()
    alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(0.015)
    (got,) = bob.all(MessageReceived)
    for _ in range(2):
        bob.engine.reply(got, m.Done(got.message.id, m.Status.OK), bus.now)
    bus.run(1.0)
    assert len(alice.all(Replied)) == 1
    assert alice.engine.counters["unmatched_reply"] >= 1


def test_an_unknown_message_is_answered_once() -> None:
    bus, alice, bob = joined()
    association = alice.engine._context.by_key[bob.key]
    for _ in range(3):
        alice.engine._channel.send(association, msgpack.pack([70, 1]), None)
    bus.run(1.0)
    assert [each.message for each in alice.all(MessageReceived)] == [m.Unsupported(70)]
    assert bob.engine.counters["unknown_message"] == 3


def test_a_new_association_forgets_what_was_answered() -> None:
    bus, alice, bob = joined()
    seen = serve(bus, bob)
    alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(1.0)
    alice = bus.restart(alice, mark=1 << 50)
    alice.call(bob)
    bus.run(1.0)
    alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(1.0)
    assert seen == [1, 1]
    assert len(alice.all(Replied)) == 1


def test_the_cache_of_replies_is_bounded_and_forgets() -> None:
    bus, alice, bob = joined()
    serve(bus, bob)
    for _ in range(300):
        alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
        bus.run(0.001)
    bus.run(1.0)
    association = bob.engine._context.by_key[alice.key]
    assert len(association.answered) == 256
    bus.run(timing.REPLY_CACHE)
    alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(1.0)
    assert len(association.answered) == 1


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_each_request_reaches_the_owner_once_and_is_answered(seed: int, count: int) -> None:
    bus, alice, bob = joined(seed)
    seen = serve(bus, bob)
    dice = bus.clock.stream("loss")
    bus.lose = lambda source, destination, data: dice.random() < 0.3
    bus.delay = lambda data: dice.random() * 0.1
    numbers = [alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now) for _ in range(count)]
    bus.run(timing.REQUEST_TIMEOUT + 0.1)
    assert len(seen) == len(set(seen))
    answered = [each.request_id for each in alice.all(Replied)]
    failed = [each.request_id for each in alice.all(RequestFailed)]
    assert sorted(answered + failed) == numbers
