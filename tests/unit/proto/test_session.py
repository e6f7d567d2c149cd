"""The engine as its owner sees it: calls, messages, requests, ends."""

from __future__ import annotations

import pytest

from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.events import (
    CallFailed,
    Established,
    MessageReceived,
    PeerClosed,
    Replied,
    RequestFailed,
    SessionInUse,
    SessionReady,
    SessionsGone,
)
from ntmd.proto.types import Endpoint, Path, Peer, Role
from tests.unit.proto.engines import DELAY, joined, pair


def test_one_round_trip_gives_both_ends_a_session() -> None:
    bus, alice, bob = pair()
    alice.call(bob)
    bus.run(2 * DELAY + 0.001)
    (done,) = alice.all(Established)
    assert done.first
    assert done.initiator
    assert done.psk is None
    assert done.remote.leaf.name == "bob.lab.test"
    bus.run(DELAY)
    (done_there,) = bob.all(Established)
    assert done_there.first
    assert not done_there.initiator
    ours, theirs = done.session, done_there.session
    assert ours.data_out.key == theirs.data_in.key
    assert ours.data_in.key == theirs.data_out.key
    assert ours.slot_in == theirs.slot_out
    assert ours.slot_out == theirs.slot_in
    assert ours.own_index == theirs.peer_index
    assert ours.resume == theirs.resume
    assert alice.in_use() == ours.number
    assert bob.in_use() == theirs.number
    assert [type(each) for each in alice.events] == [SessionReady, Established, SessionInUse]


def test_messages_carry_path_primary_and_move_sequence() -> None:
    bus, alice, bob = joined()
    alice.engine.set_primary(alice.handle(bob), Path(1, bob.at), 7)
    alice.engine.tell(alice.handle(bob), m.Probe(5), bus.now, Path(3, bob.at))
    bus.run(1.0)
    (got,) = bob.all(MessageReceived)
    assert got.message == m.Probe(5)
    assert (got.path_id, got.primary_id, got.move_seq) == (3, 1, 7)
    assert got.path == Path(1, alice.at)


def test_request_and_reply() -> None:
    bus, alice, bob = joined()
    number = alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(2 * DELAY)
    (got,) = bob.all(MessageReceived)
    bob.engine.reply(got, m.Done(got.message.id, m.Status.OK), bus.now)
    bus.run(1.0)
    (reply,) = alice.all(Replied)
    assert (reply.request_id, reply.reply.status) == (number, m.Status.OK)
    bus.run(10.0)
    assert not alice.all(RequestFailed)


def test_a_request_before_the_session_waits_for_it() -> None:
    bus, alice, bob = pair()
    handle = alice.call(bob)
    number = alice.engine.ask(handle, m.Deregister(0), bus.now)
    bus.run(1.0)
    (got,) = bob.all(MessageReceived)
    assert got.message.id == number


def test_a_large_message_arrives_whole() -> None:
    bus, alice, bob = joined()
    relay = m.RelayInfo("rs.lab.test", bytes(560), (Endpoint("192.0.2.1", 1),) * 8)
    route = m.RouteInfo(
        "x.lab.test", bytes(560), bytes(141), bytes(560), (), m.NatView(), bytes(16), bytes(32),
        tuple(m.RelayGrant(relay, bytes(207)) for _ in range(4)), True,
    )  # fmt: skip
    alice.engine.ask(alice.handle(bob), m.RouteDirection(0, "x.lab.test", route), bus.now)
    bus.run(0.03)
    (got,) = bob.all(MessageReceived)
    assert got.message.route == route
    assert max(len(data) for _, _, data in bus.sent) <= timing.HANDSHAKE_SIZE


def test_nobody_answers() -> None:
    bus, alice, _ = pair()
    stranger = Peer(Role.NODE, "carol.lab.test", bytes(31) + b"\x09")
    handle = alice.engine.call(stranger, [Path(1, Endpoint("192.0.2.99", 1))], bus.now)
    bus.run(timing.HANDSHAKE_LIFETIME + 1)
    assert alice.all(CallFailed) == [CallFailed(handle, "silence")]
    assert len(bus.sent) == timing.CANDIDATE_COPIES
    assert alice.engine.handle_of(stranger.key) is None


@pytest.mark.parametrize("stop", [5.0, 10.2, 60.0])
@pytest.mark.parametrize("answered", [False, True])
def test_a_caller_whose_process_stood_still_goes_on_calling(stop: float, answered: bool) -> None:
    """Nobody was silent: the copies of the ladder were never sent, or the answer was not read."""
    bus, alice, bob = pair()
    bus.lose = lambda source, destination, data: not answered and bus.now < 1001.0
    alice.call(bob)
    bus.stopped[alice.at] = bus.now + stop
    bus.run(stop + 5 * DELAY + timing.LADDER[0])
    assert not alice.all(CallFailed)
    ours, theirs = alice.all(Established)[-1].session, bob.all(Established)[-1].session
    assert ours.slot_in == theirs.slot_out
    assert (alice.in_use(), bob.in_use()) == (ours.number, theirs.number)
    alice.engine.ask(alice.handle(bob), m.Deregister(0), bus.now)
    bus.run(timing.HANDSHAKE_LIFETIME + 1)
    assert len(bob.all(MessageReceived)) == 1
    assert not alice.all(CallFailed)


def test_another_name_than_the_called_one_fails_in_the_handshake() -> None:
    bus, alice, bob = pair()
    wrong = Peer(Role.NODE, "eve.lab.test", bob.key)
    alice.engine.call(wrong, [alice.to(bob)], bus.now)
    bus.run(timing.HANDSHAKE_LIFETIME + 1)
    assert bob.engine.counters["bad_tag"] > 0
    assert not alice.all(Established)


def test_close_reaches_the_peer_although_two_copies_are_lost() -> None:
    bus, alice, bob = joined()
    copies: list[bytes] = []

    def lose(source: object, destination: object, data: bytes) -> bool:
        copies.append(data)
        return len(copies) < 3

    bus.lose = lose
    alice.engine.close(alice.handle(bob), bus.now, m.CloseReason.DOWN)
    assert not alice.engine.established(1)
    bus.run(1.0)
    assert [each.reason for each in bob.all(PeerClosed)] == [m.CloseReason.DOWN]
    assert bob.all(SessionsGone)
    assert bob.engine.handle_of(alice.key) is None


def test_data_keys_go_after_180_s_and_control_keys_stay() -> None:
    bus, alice, bob = joined()
    bus.run(timing.DATA_KEY_LIFETIME)
    assert len(alice.all(SessionsGone)) == len(bob.all(SessionsGone)) == 1
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bus.run(1.0)
    assert len(bob.all(MessageReceived)) == 1


def test_silence_of_a_day_ends_the_session() -> None:
    bus, alice, bob = joined()
    bus.run(timing.CONTROL_KEY_LIFETIME / 2)
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bus.run(timing.CONTROL_KEY_LIFETIME / 2 + 10)
    assert [each.reason for each in alice.all(PeerClosed)] == [0]
    assert not bob.all(PeerClosed)
    bus.run(timing.CONTROL_KEY_LIFETIME / 2)
    assert [each.reason for each in bob.all(PeerClosed)] == [0]


def test_random_bytes_never_raise() -> None:
    bus, alice, bob = joined()
    dice = bus.clock.stream("junk")
    seen = [data for _, _, data in bus.sent]
    for _ in range(3000):
        data = bytearray(dice.choice(seen))
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        bob.engine.receive(bytes(data), 1, alice.at, bus.now)
    assert sum(bob.engine.counters.values()) > 2000
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bus.run(1.0)
    assert bob.all(MessageReceived)


def test_the_same_inputs_give_the_same_bytes() -> None:
    runs = []
    for _ in range(2):
        bus, alice, bob = joined(9)
        alice.engine.rekey(alice.handle(bob), bus.now)
        bus.run(5.0)
        runs.append(bus.sent)
    assert runs[0] == runs[1]
