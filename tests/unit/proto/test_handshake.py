"""Handshakes: psk choice (C4), sizes and hashes (C8), replay and clocks (C10), floods (C11)."""

from __future__ import annotations

import pytest

from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.events import (
    CallFailed,
    Established,
    MessageReceived,
    OpenPolicy,
    Psk,
    SessionReady,
    SessionsGone,
)
from ntmd.proto.frame import INDEX, Kind
from ntmd.proto.noise import COOKIE_SIZE
from ntmd.proto.types import Endpoint, Path, PskKind, Role
from tests.unit.proto.engines import DELAY, Bus, PskPolicy, Station, joined, pair

SECRET = Psk(PskKind.DIRECTION, b"i" * 16, b"s" * 32)
OTHER = Psk(PskKind.RESUMPTION, b"j" * 16, b"t" * 32)


def of_kind(bus: Bus, kind: Kind, station: Station | None = None) -> list[bytes]:
    return [
        data
        for source, _, data in bus.sent
        if data[0] == kind and (station is None or source == station.at)
    ]


# ------------------------------------------------------------------ C4


@pytest.mark.parametrize("met", [False, True])
@pytest.mark.parametrize("caller_has", [False, True])
@pytest.mark.parametrize("called_has", [False, True])
def test_which_psk(met: bool, caller_has: bool, called_has: bool) -> None:
    bus = Bus()
    alice = bus.node("alice", PskPolicy([], met=met))
    bob = bus.node("bob", PskPolicy([SECRET] if called_has else [], met=met))
    alice.call(bob, psks=[OTHER, SECRET] if caller_has else [])
    bus.run(timing.HANDSHAKE_LIFETIME + 1)
    done = alice.all(Established)
    if caller_has and called_has:
        assert done[0].psk == m.PskRef(PskKind.DIRECTION, SECRET.id)
        assert of_kind(bus, Kind.RESPONSE)[0][3] == 2
        assert bob.all(Established)[0].psk == done[0].psk
    elif met:
        assert done[0].psk is None
        assert of_kind(bus, Kind.RESPONSE)[0][3] == 0
    else:
        assert not done
        assert bob.engine.counters["refused"] > 0


def test_a_caller_that_never_met_the_peer_refuses_an_answer_without_psk() -> None:
    bus = Bus()
    alice = bus.node("alice", PskPolicy([], met=False))
    bob = bus.node("bob", PskPolicy([], met=True))
    alice.call(bob, psks=[SECRET])
    bus.run(1.0)
    assert [each.reason for each in alice.all(CallFailed)] == ["unauthorised"]
    assert not alice.all(Established)
    assert not bob.all(Established)


def test_a_psk_that_comes_while_the_call_is_under_way_is_offered() -> None:
    bus = Bus()
    alice = bus.node("alice", PskPolicy([], met=False))
    bob = bus.node("bob", PskPolicy([SECRET], met=False))
    alice.call(bob, psks=[OTHER])
    bus.run(0.2)
    alice.call(bob, psks=[SECRET, OTHER])
    bus.run(1.0)
    assert alice.all(Established)[0].psk == m.PskRef(PskKind.DIRECTION, SECRET.id)


def test_the_same_id_with_another_secret_fails() -> None:
    bus = Bus()
    alice = bus.node("alice", PskPolicy([], met=True))
    bob = bus.node("bob", PskPolicy([Psk(SECRET.kind, SECRET.id, b"x" * 32)], met=True))
    alice.call(bob, psks=[SECRET])
    bus.run(timing.HANDSHAKE_LIFETIME + 1)
    assert alice.engine.counters["bad_tag"] > 0
    assert [each.reason for each in alice.all(CallFailed)] == ["silence"]


def test_rekey_uses_the_resumption_psk() -> None:
    bus, alice, bob = joined()
    alice_first, bob_first = alice.all(Established)[0], bob.all(Established)[0]
    bob.engine._context.policy = PskPolicy([bob_first.session.resume], met=False)
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(1.0)
    rekeyed = alice.all(Established)[1]
    assert rekeyed.psk == m.PskRef(PskKind.RESUMPTION, alice_first.session.resume.id)
    assert not rekeyed.first


# ------------------------------------------------------------------ roles and certificates


def test_a_peer_with_another_role_than_the_called_one_is_refused() -> None:
    bus, alice, bob = pair()
    relay = bus.add(bus.platform.rs("bob.lab.test", "lab.test"), at=Endpoint("192.0.2.77", 1))
    bob.identity = relay.identity
    impostor = Station(
        bus, bob.identity, bob.at, OpenPolicy((Role.NODE,)), 5, 0
    )  # a relay that answers as if it were a node
    fake = impostor.engine._context
    fake.identity = type(bob.identity)(
        Role.NODE, bob.identity.name, bob.identity.private_key, bob.identity.certificates
    )
    bus.stations[bob.at] = impostor
    peer = type(alice.peer)(Role.NODE, "bob.lab.test", bob.key)
    alice.engine.call(peer, [alice.to(bob)], bus.now)
    bus.run(1.0)
    assert [each.reason for each in alice.all(CallFailed)] == ["certificate_role"]
    assert alice.engine.counters["certificate_role"] == 1


def test_policy_decides_on_roles_of_callers() -> None:
    bus = Bus()
    alice, bob = bus.node("alice"), bus.node("bob", OpenPolicy((Role.DC,)))
    alice.call(bob)
    bus.run(1.0)
    assert bob.engine.counters["refused"] > 0
    assert not bob.all(SessionReady)
    assert bob.engine.handle_of(alice.key) is None


@pytest.mark.parametrize(("psks", "works"), [([OTHER], True), ([SECRET], False), ([], False)])
def test_an_expired_certificate_needs_a_resumption_psk(psks: list[Psk], works: bool) -> None:
    bus = Bus()
    alice = bus.add(
        bus.platform.node("alice.lab.test", "lab.test", issued_days_ago=20),
        PskPolicy([], met=True),
    )
    bob = bus.node("bob", PskPolicy([OTHER, SECRET], met=True))
    alice.call(bob, psks=psks)
    bus.run(1.0)
    done = bob.all(Established)
    assert bool(done) is works
    if works:
        assert done[0].remote.in_grace
    else:
        assert bob.engine.counters["certificate_expired"] > 0


# ------------------------------------------------------------------ C8


def test_first_contact_fills_1200_bytes_both_ways() -> None:
    bus, _, _ = joined()
    assert {len(data) for data in of_kind(bus, Kind.INITIATION)} == {1200}
    assert {len(data) for data in of_kind(bus, Kind.RESPONSE)} == {1200}


def test_rekeys_carry_hashes_and_320_bytes() -> None:
    bus, alice, bob = joined()
    del bus.sent[:]
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(1.0)
    assert {len(data) for data in of_kind(bus, Kind.INITIATION)} == {320}
    assert {len(data) for data in of_kind(bus, Kind.RESPONSE)} == {320}
    assert alice.all(Established)[1].remote == alice.all(Established)[0].remote


def test_a_path_for_small_datagrams_only_is_served_from_the_fifth_copy_on() -> None:
    bus, alice, bob = pair()
    bus.lose = lambda source, destination, data: len(data) > 1000
    alice.call(bob)
    bus.run(sum(timing.LADDER[:4]) + 0.05)
    assert alice.all(Established)
    assert len(of_kind(bus, Kind.INITIATION)) == 5
    sizes = [len(data) for data in of_kind(bus, Kind.RESPONSE)]
    assert sizes
    assert max(sizes) < 1000


def test_a_renewed_certificate_is_shown_whole() -> None:
    bus, alice, bob = joined()
    renewed = bus.platform.node("alice.lab.test", "lab.test")
    fresh = bus.platform._issue(alice.key, Role.NODE, "alice.lab.test", "lab.test", None, 14)
    alice.engine.set_identity(
        type(renewed)(Role.NODE, "alice.lab.test", alice.identity.private_key, (fresh,))
    )
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(1.0)
    assert bob.all(Established)[1].remote.leaf.der == fresh


def test_a_peer_that_forgot_the_certificate_gets_it_on_the_fifth_rung() -> None:
    bus, alice, bob = joined()
    bob = bus.restart(bob)
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(1.0)
    assert bob.engine.counters["certificate_unknown"] == 4
    assert bob.all(Established)


# ------------------------------------------------------------------ copies on many paths


def test_copies_differ_only_in_index_and_macs() -> None:
    bus, alice, bob = pair()
    bus.lose = lambda source, destination, data: True
    paths = [Path(1, bob.at), Path(2, Endpoint("192.0.2.50", 1)), Path(1, bob.at, 0xABCD)]
    handle = alice.engine.call(bob.peer, paths[:2], bus.now)
    bus.run(0.06)
    alice.engine.widen(handle, paths[2:], bus.now)
    bus.run(0.06)
    copies = of_kind(bus, Kind.INITIATION)
    assert len(copies) == 8
    assert len({data[:4] + data[8:-32] for data in copies}) == 1
    assert len({data[-32:-16] for data in copies}) == 1
    assert {data[INDEX] for data in copies} == {bytes(4), 0xABCD.to_bytes(4, "big")}


def test_each_copy_gets_the_identical_response_to_its_own_source() -> None:
    bus, alice, bob = pair()
    bus.lose = lambda source, destination, data: True
    alice.call(bob)
    (call,) = of_kind(bus, Kind.INITIATION)
    for number in range(20):
        bob.engine.receive(call, 1, Endpoint("198.51.100.1", 100 + number), bus.now)
    bus.collect()
    answers = [(to, data) for source, to, data in bus.sent if source == bob.at]
    assert len(answers) == timing.INITIATION_COPIES
    assert len({data for _, data in answers}) == 1
    assert len({to for to, _ in answers}) == timing.INITIATION_COPIES
    assert bob.engine.counters["too_many_copies"] == 4
    assert len(bob.all(SessionReady)) == 1


def test_a_call_over_a_relay_alone() -> None:
    """The relay rewrites the index to the delivery index of the far end, and nothing else."""
    bus, alice, bob = pair()
    relay = Endpoint("192.0.2.200", 1)
    legs: dict[int, tuple[Endpoint, int]] = {}
    for near, far, leg in ((alice, bob, 0xA1), (bob, alice, 0xB1)):
        delivery = near.engine.draw_index(bus.now)
        near.engine.add_delivery(delivery, far.key, leg, relay)
        legs[0xB1 if near is alice else 0xA1] = (near.at, delivery)

    def forward() -> None:
        bus.collect()
        for _, to, data in bus.sent:
            if to == relay:
                at, delivery = legs[int.from_bytes(data[INDEX], "big")]
                bus.fly(relay, at, data[:4] + delivery.to_bytes(4, "big") + data[8:])
        del bus.sent[:]

    handle = alice.engine.call(bob.peer, [Path(1, relay, 0xA1)], bus.now)
    for _ in range(10):
        forward()
        bus.run(0.02)
    assert alice.all(Established)[0].path == Path(1, relay, 0xA1)
    assert bob.all(Established)[0].path == Path(1, relay, 0xB1)
    alice.engine.tell(handle, m.Probe(3), bus.now)
    for _ in range(3):
        forward()
        bus.run(0.02)
    assert bob.all(MessageReceived)[0].path == Path(1, relay, 0xB1)


# ------------------------------------------------------------------ C10


def test_a_replayed_initiation_changes_nothing() -> None:
    bus, _alice, bob = joined()
    (call,) = of_kind(bus, Kind.INITIATION)
    bus.run(timing.INITIATION_COPY_WINDOW + 1)
    events = len(bob.events)
    bob.engine.receive(call, 1, Endpoint("198.51.100.9", 9), bus.now)
    bus.collect()
    assert bob.engine.counters["old_sequence"] == 1
    assert len(bob.events) == events


def test_a_clock_set_back_does_not_lock_out() -> None:
    bus, alice, bob = joined()
    alice.skew_ms = -1_800_000  # certificates begin an hour before the story
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(0.05)
    assert len(bob.all(Established)) == 2


def test_a_restart_with_the_clock_at_1970_is_healed_by_the_mark() -> None:
    bus, alice, _bob = joined()
    mark = alice.marks[-1]
    alice = bus.restart(alice, mark=mark)
    alice.skew_ms = -bus.platform_ms(alice, bus.now) + 3 * 86_400_000
    alice.engine.set_slack(1 << 60)
    sequences = [alice.engine._context.sequencer.next(0) for _ in range(3)]
    assert sequences == [mark + 1, mark + 2, mark + 3]
    assert alice.marks[0] > mark + 1


def test_replay_at_a_restarted_responder_moves_nothing() -> None:
    bus, alice, bob = joined()
    (call,) = of_kind(bus, Kind.INITIATION)
    bob = bus.restart(bob)
    bob.engine.receive(call, 1, Endpoint("198.51.100.9", 9), bus.now)
    bus.run(timing.HANDSHAKE_LIFETIME + 1)
    assert not bob.all(Established)
    assert bob.engine.handle_of(alice.key) is None


@pytest.mark.parametrize("lost", range(4))
def test_each_single_datagram_of_a_rekey_may_be_lost(lost: int) -> None:
    bus, alice, bob = joined()
    count = 0

    def lose(source: Station, destination: Station, data: bytes) -> bool:
        nonlocal count
        count += 1
        return count == lost + 1

    bus.lose = lose
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(3.0)
    assert len(bob.all(Established)) == 2
    assert alice.in_use() == alice.all(Established)[1].session.number
    assert bob.in_use() == bob.all(Established)[1].session.number
    for one, other in ((alice, bob), (bob, alice)):
        one.engine.tell(one.handle(other), m.Probe(1), bus.now)
        bus.run(0.1)
        assert len(other.all(MessageReceived)) == 1


def test_the_old_session_sends_until_the_new_one_is_confirmed() -> None:
    bus, alice, bob = joined()
    before = bob.in_use()
    bus.lose = lambda source, destination, data: data[0] == Kind.CONTROL
    alice.engine.rekey(alice.handle(bob), bus.now)
    bus.run(0.5)
    assert len(bob.all(SessionReady)) == 2
    assert bob.in_use() == before
    bob.engine.slot_seen(bob.handle(alice), bob.all(SessionReady)[1].session.number, bus.now)
    bus.collect()
    assert bob.in_use() == bob.all(SessionReady)[1].session.number


# ------------------------------------------------------------------ C11


def flood(bus: Bus, victim: Station, source: Endpoint, count: int, index: int = 0) -> int:
    """Initiations with a right mac1 and random insides; returns bytes that came back."""
    from ntmd.proto.frame import pack_header, with_index
    from ntmd.proto.handshake import finish

    dice = bus.clock.stream(f"flood {source}")
    before = len(bus.sent)
    for number in range(count):
        header = pack_header(Kind.INITIATION, 1, 2, 0, 0, number << 32)
        data = finish(victim.engine._context, victim.key, header + dice.randbytes(1152))
        victim.engine.receive(with_index(data, index), 1, source, bus.now)
    bus.collect()
    return sum(len(data) for _, to, data in bus.sent[before:] if to == source)


def test_a_call_under_load_gets_a_cookie_and_succeeds() -> None:
    bus, alice, bob = pair()
    source = Endpoint("198.51.100.1", 1)
    returned = flood(bus, bob, source, 400)
    assert 0 < returned <= 400 * 1200
    alice.call(bob)
    bus.run(0.2)
    assert of_kind(bus, Kind.COOKIE, bob)
    assert alice.all(Established)
    assert {len(data) for data in of_kind(bus, Kind.COOKIE)} == {COOKIE_SIZE}


def test_a_forged_cookie_is_not_used() -> None:
    bus, alice, bob = pair()
    bus.lose = lambda source, destination, data: True
    alice.call(bob)
    index = of_kind(bus, Kind.INITIATION)[0][8:12]
    forged = bytes([Kind.COOKIE, 1, 2, 0]) + index + bytes(56)
    alice.engine.receive(forged, 1, bob.at, bus.now)
    assert alice.engine.counters["bad_tag"] == 1


def test_mac1_is_checked_before_anything_costs() -> None:
    bus, alice, bob = pair()
    bus.lose = lambda source, destination, data: True
    alice.call(bob)
    call = bytearray(of_kind(bus, Kind.INITIATION)[0])
    call[-20] ^= 1
    bob.engine.receive(bytes(call), 1, alice.at, bus.now)
    assert bob.engine.counters == {"bad_mac1": 1}


def test_a_flood_of_junk_leaves_nothing_behind() -> None:
    bus, _alice, bob = pair()
    for number in range(300):
        flood(bus, bob, Endpoint(f"198.51.{number >> 8}.{number & 255}", 7), 3)
    context, gate = bob.engine._context, bob.engine._answering._gate
    assert not context.associations
    assert not context.indexes
    assert not gate._half_open
    assert len(gate._buckets) <= 4096


def test_half_open_handshakes_of_one_key_are_few_and_the_newest() -> None:
    bus, alice, bob = pair()
    bus.lose = lambda source, destination, data: source is bob
    for number in range(8):
        again = bus.restart(alice, mark=number)
        again.skew_ms = number * 10
        again.call(bob)
        bus.run(0.02)
    association = bob.engine._context.by_key[alice.key]
    assert len(association.sessions) == timing.HALF_OPEN_PER_KEY
    bus.lose = lambda source, destination, data: False
    bus.run(timing.LADDER[0] + 2 * DELAY)
    assert again.all(Established)  # the last of eight lives is served
    bus.lose = lambda source, destination, data: True
    bus.run(timing.HANDSHAKE_LIFETIME * 3)
    assert len(association.sessions) == 1


@pytest.mark.parametrize("late", [9.0, 11.0, 25.0, 60.0])
def test_a_called_end_that_was_late_answers_the_call_under_way(late: float) -> None:
    """Its buffer holds the initiations of several calls; the caller takes one of the last call."""
    bus, alice, bob = pair()

    def again(station: Station, event: object) -> None:
        if isinstance(event, CallFailed):
            station.call(bob)

    bus.on_event = again
    alice.call(bob)
    bus.stopped[bob.at] = bus.now + late
    bus.run(late + 4 * DELAY)
    (ours,), (theirs,) = alice.all(Established), bob.all(Established)
    assert ours.session.slot_in == theirs.session.slot_out


@pytest.mark.parametrize("asleep", [11.0, 170.0, 400.0])
@pytest.mark.parametrize("at", [0.01, 0.3, 2.0, 9.0])
@pytest.mark.parametrize("widened", [False, True])
def test_an_initiation_of_before_a_sleep_makes_no_session(
    asleep: float, at: float, widened: bool
) -> None:
    """Its session would be as old as the sleep at one end only: its keys gone, its age another."""
    bus, alice, bob = pair()
    bus.lose = lambda source, destination, data: True
    alice.call(bob)
    bus.run(at)
    bus.stopped[alice.at] = bus.now + asleep
    bus.run(asleep - 0.001)
    bus.lose = lambda source, destination, data: False
    if widened:
        bus.now += 0.001
        alice.call(bob)
    bus.run(0.5)
    if alice.all(CallFailed):
        alice.call(bob)
    bus.run(0.5)
    (ours,), (theirs,) = alice.all(Established), bob.all(Established)
    assert ours.session.slot_in == theirs.session.slot_out
    assert abs(ours.session.born - theirs.session.born) < 0.5
    assert not alice.all(SessionsGone)


def test_a_call_in_the_middle_of_a_flood_completes_within_two_seconds() -> None:
    bus, alice, bob = pair()
    dice = bus.clock.stream("sources")
    received: dict[Endpoint, int] = {}
    for step in range(40):
        for _ in range(40):
            source = Endpoint(f"198.18.{dice.randrange(256)}.{dice.randrange(256)}", 9)
            received[source] = received.get(source, 0) + 1200
            flood(bus, bob, source, 1)
        if step == 20:
            alice.call(bob)
        bus.run(0.05)
    assert alice.all(Established)
    returned: dict[Endpoint, int] = {}
    for at, to, data in bus.sent:
        if at == bob.at and to != alice.at:
            returned[to] = returned.get(to, 0) + len(data)
    assert all(count <= received[to] for to, count in returned.items())
    assert bob.engine.counters["cookie_asked"] > 1000
    assert len(bob.engine._context.associations) == 1


def test_a_call_over_a_relay_passes_a_flood_over_another_leg_of_it() -> None:
    bus, alice, bob = pair()
    relay = Endpoint("192.0.2.200", 1)
    flooded, quiet = bob.engine.draw_index(bus.now), bob.engine.draw_index(bus.now)
    bob.engine.add_delivery(flooded, bytes(32), 0xF, relay)
    bob.engine.add_delivery(quiet, alice.key, 0xB, relay)
    back = alice.engine.draw_index(bus.now)
    alice.engine.add_delivery(back, bob.key, 0xA, relay)
    alice.engine.call(bob.peer, [Path(1, relay, 0xA)], bus.now)
    for _ in range(40):
        flood(bus, bob, relay, 40, flooded)
        bus.collect()
        for at, to, data in bus.sent:
            if to == relay and data[INDEX] == (0xA).to_bytes(4, "big"):
                bus.fly(relay, bob.at, data[:4] + quiet.to_bytes(4, "big") + data[8:])
            elif to == relay and at == bob.at and data[INDEX] == (0xB).to_bytes(4, "big"):
                bus.fly(relay, alice.at, data[:4] + back.to_bytes(4, "big") + data[8:])
        del bus.sent[:]
        bus.run(0.05)
    assert alice.all(Established)
    assert bob.all(Established)
    assert bob.engine.counters["cookie_asked"] > 1000
