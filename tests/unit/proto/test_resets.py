"""Stateless resets (S4): a restart is noticed in a round trip; forgeries change nothing."""

from __future__ import annotations

from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.events import Established, MessageReceived, ResetSeen
from ntmd.proto.frame import Kind
from ntmd.proto.io import SendDatagram
from ntmd.proto.plane import UnknownIndex
from ntmd.proto.types import Endpoint
from tests.unit.proto.engines import DELAY, Bus, Station, joined


def resets(bus: Bus, station: Station) -> list[bytes]:
    return [data for at, _, data in bus.sent if at == station.at and data[0] == Kind.RESET]


def test_a_restarted_peer_is_back_after_one_and_a_half_round_trips() -> None:
    bus, alice, bob = joined()
    bob = bus.restart(bob)
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bus.run(2 * DELAY + 2 * DELAY + 0.001)
    assert len(alice.all(ResetSeen)) == 1
    assert alice.all(Established)[1].first
    bus.run(1.0)
    alice.engine.tell(alice.handle(bob), m.Probe(2), bus.now)
    bus.run(1.0)
    assert [each.message for each in bob.all(MessageReceived)] == [m.Probe(2)]


def test_data_frames_with_an_unknown_index_trigger_it_too() -> None:
    bus, alice, bob = joined()
    index = alice.all(Established)[0].session.peer_index
    bob = bus.restart(bob)
    bob.engine.unknown_index(UnknownIndex(1, alice.at, index, 100), bus.now)
    bus.run(1.0)
    assert len(alice.all(ResetSeen)) == 1
    assert bob.all(Established)


def test_a_reset_is_shorter_than_its_trigger() -> None:
    bus, _, bob = joined()
    for length in range(200):
        bus.now += 1.0
        del bus.sent[:]
        bob.engine.unknown_index(UnknownIndex(1, Endpoint("198.51.100.1", 1), 77, length), bus.now)
        bus.collect()
        assert all(32 <= len(data) < length for data in resets(bus, bob))
        assert bool(resets(bus, bob)) is (length > 32)


def test_resets_are_few() -> None:
    bus, _, bob = joined()
    for number in range(50):
        for port in range(30):
            source = Endpoint(f"198.51.100.{number}", port)
            bob.engine.unknown_index(UnknownIndex(1, source, 5, 100), bus.now)
    bus.collect()
    assert len(resets(bus, bob)) == timing.RESETS_TOTAL
    one = [to for _, to, data in bus.sent if data[0] == Kind.RESET]
    assert max(sum(to.host == each.host for to in one) for each in one) == 10


def test_a_relay_gets_none() -> None:
    bus, alice, bob = joined()
    relay = Endpoint("192.0.2.200", 1)
    index = bob.engine.draw_index(bus.now)
    bob.engine.add_delivery(index, alice.key, 5, relay)
    bob.engine.unknown_index(UnknownIndex(1, relay, 99, 100), bus.now)
    bus.collect()
    assert not resets(bus, bob)
    bob.engine.drop_delivery(index, bus.now)
    bob.engine.unknown_index(UnknownIndex(1, relay, 99, 100), bus.now)
    bus.collect()
    assert len(resets(bus, bob)) == 1


def test_a_forged_reset_changes_nothing() -> None:
    bus, alice, bob = joined()
    index = alice.all(Established)[0].session.peer_index
    forged = bytes([Kind.RESET, 0, 0, 0]) + index.to_bytes(4, "big") + bytes(30)
    sent = len(bus.sent)
    alice.engine.receive(forged, 1, bob.at, bus.now)
    bus.run(1.0)
    assert alice.engine.counters["bad_reset"] == 1
    assert len(bus.sent) == sent


def test_a_replayed_reset_begins_one_handshake_a_second_and_ends_nothing() -> None:
    bus, alice, bob = joined()
    index = alice.all(Established)[0].session.peer_index
    token = bob.engine.reset_token(index)
    reset = bytes([Kind.RESET, 0, 0, 0]) + index.to_bytes(4, "big") + bytes(8) + token
    for _ in range(100):
        alice.engine.receive(reset, 1, Endpoint("198.51.100.66", 6), bus.now)
    bus.run(0.5)
    assert len(alice.all(ResetSeen)) == 1
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bob.engine.tell(bob.handle(alice), m.Probe(2), bus.now)
    bus.run(0.5)
    assert bob.all(MessageReceived)
    assert alice.all(MessageReceived)


def test_two_restarted_ends_fall_silent() -> None:
    bus, alice, bob = joined()
    frames = []
    for one, other in ((alice, bob), (bob, alice)):
        one.engine.tell(one.handle(other), m.Probe(1), bus.now)
        sent = one.engine.take_outputs()[0]
        assert isinstance(sent, SendDatagram)
        frames.append((one, other, sent.data))
    alice, bob = bus.restart(alice), bus.restart(bob)
    for one, other, data in frames:
        bus.fly(one.at, other.at, data)
    del bus.sent[:]
    bus.run(60.0)
    assert len(bus.sent) == 2
    assert alice.engine.counters["bad_reset"] == bob.engine.counters["bad_reset"] == 1


def test_no_loop_while_both_talk() -> None:
    bus, alice, bob = joined()
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bob = bus.restart(bob)
    alice.engine.tell(alice.handle(bob), m.Probe(1), bus.now)
    bus.run(30.0)
    assert len(bus.sent) < 30
