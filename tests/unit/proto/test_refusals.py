"""What an engine refuses although it looks right: a frame again, somebody else's certificate."""

from __future__ import annotations

import dataclasses

from ntmd.proto import messages as m
from ntmd.proto.events import CallFailed, Established, MessageReceived
from ntmd.proto.frame import Kind
from tests.unit.proto.engines import Bus, joined


def test_a_control_frame_that_comes_twice_is_reported_once() -> None:
    bus, alice, bob = joined()
    sent = len(bus.sent)
    # A probe is no request, so nothing but the window stands between the copy and the report.
    alice.engine.tell(alice.handle(bob), m.Probe(7), bus.now)
    bus.run(0.1)
    ((source, target, frame),) = bus.sent[sent:]
    assert frame[0] == Kind.CONTROL
    for _ in range(3):
        bus.fly(source, target, frame)
        bus.run(0.1)
    probes = [each.message for each in bob.all(MessageReceived)]
    assert probes == [m.Probe(7)]
    assert bob.engine.counters["replayed"] == 3


def test_an_old_frame_is_still_refused_after_newer_ones() -> None:
    bus, alice, bob = joined()
    sent = len(bus.sent)
    for number in range(5):
        alice.engine.tell(alice.handle(bob), m.Probe(number), bus.now)
    bus.run(0.1)
    for source, target, frame in bus.sent[sent:]:
        bus.fly(source, target, frame)
    bus.run(0.1)
    assert [each.message for each in bob.all(MessageReceived)] == [m.Probe(n) for n in range(5)]
    assert bob.engine.counters["replayed"] == 5


def test_a_caller_with_somebody_elses_certificate_is_refused() -> None:
    bus = Bus()
    carol = bus.platform.node("carol.lab.test", "lab.test")
    thief = bus.platform.node("thief.lab.test", "lab.test")
    # Everything but the private key is carol's, and valid.
    mallory = bus.add(dataclasses.replace(carol, private_key=thief.private_key))
    bob = bus.node("bob")
    mallory.call(bob)
    bus.run(1.0)
    assert bob.engine.counters["certificate_key"] > 0
    assert not bob.all(Established)
    assert not mallory.all(Established)


def test_a_called_peer_with_somebody_elses_certificate_is_refused() -> None:
    bus = Bus()
    carol = bus.platform.node("carol.lab.test", "lab.test")
    thief = bus.platform.node("thief.lab.test", "lab.test")
    alice = bus.node("alice")
    mallory = bus.add(dataclasses.replace(carol, private_key=thief.private_key))
    alice.call(mallory)
    bus.run(1.0)
    assert alice.engine.counters["certificate_key"] > 0
    assert not alice.all(Established)
    assert not mallory.all(Established)
    assert [each.reason for each in alice.all(CallFailed)] == ["certificate_key"]
