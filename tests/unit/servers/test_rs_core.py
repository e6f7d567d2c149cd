"""The relay's core with real sessions: who may open a leg, move it, and send through it."""

from __future__ import annotations

from typing import Any

import pytest

from ntm_rs.home import CertificatesRenewed
from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.crypto import public_key
from ntmd.proto.events import Established, MessageReceived, ResetSeen
from ntmd.proto.frame import Kind, pack_header
from ntmd.proto.io import DatagramReceived, UserAnswered, UserAsked
from ntmd.proto.records import parse_grant
from ntmd.proto.types import Endpoint, Path, Role, path_id
from tests.unit.servers.rs_ground import DC, Ground, Station

STRANGER = Endpoint("192.0.2.66", 666)


class Pair:
    """Two nodes with open legs: A on IPv4 (two addresses), B on IPv6."""

    def __init__(self, **settings: Any) -> None:
        self.ground = Ground(**settings)
        self.a = self.ground.node("a", "203.0.113.1", "203.0.113.77")
        self.b = self.ground.node("b", "2001:db8::b")
        for node in (self.a, self.b):
            node.call_relay()
        self.grant = self.ground.grant(self.a, self.b)
        self.leg_a = self.open(self.a, 0xA1)
        self.leg_b = self.open(self.b, 0xB1)

    def open(self, node: Station, delivery: int) -> int:
        reply = node.ask(m.LegOpen(0, self.grant, delivery))
        assert reply.status == m.Status.OK, reply
        assert isinstance(reply.leg, int)
        return reply.leg

    @property
    def drops(self) -> dict[str, int]:
        return dict(self.ground.core.table.drops)


def test_registers_at_its_coordinator_and_refreshes_within_the_lease() -> None:
    ground = Ground()
    assert ground.core.home.registered
    assert ground.dc is not None
    ground.wait(65)
    reports = [
        event
        for event in ground.dc.events
        if isinstance(event, MessageReceived) and isinstance(event.message, m.RelayRegister)
    ]
    assert len(reports) >= 3


def test_a_renewed_certificate_reaches_the_coordinator_and_legs_go_on() -> None:
    pair = Pair()
    ground, dc = pair.ground, pair.ground.dc
    assert dc is not None
    ground.wait(20)
    given = ground.relay_identity
    key = public_key(given.private_key)
    fresh = ground.platform.renewed(key, Role.RS, given.name, "home.test", None)
    before = ground.core.home.dc
    ground.core.handle(CertificatesRenewed((fresh,), before), ground.now)
    ground.wait(1)
    (handle,) = (e.handle for e in dc.events if isinstance(e, Established) and e.first)
    remote = dc.engine.remote(handle)
    assert remote is not None
    assert remote.leaf.der == fresh
    pair.a.send(pair.leg_a)
    assert len(pair.b.data()) == 1
    for wrong in ((), (b"rubbish",), ground.dc_identity.identity.certificates):
        ground.core.handle(CertificatesRenewed(wrong, before), ground.now)
    assert ground.core.clients.counters["certificates_renewed"] == 1


def test_a_silent_coordinator_is_called_again_and_again() -> None:
    ground = Ground()
    ground.cut.add(DC)
    ground.wait(60)
    assert not ground.core.home.registered
    ground.cut.clear()
    ground.wait(45)
    assert ground.core.home.registered


def test_a_pair_is_forwarded_with_the_delivery_index_of_the_receiver() -> None:
    pair = Pair()
    pair.a.send(pair.leg_a)
    ((_, source, data),) = pair.b.data()
    assert data[4:8] == (0xB1).to_bytes(4, "big")
    assert source == pair.ground.relay_at(pair.b.at[1])
    pair.b.send(pair.leg_b, 300)
    assert [len(data) for _, _, data in pair.a.data()] == [300]


def test_opening_again_gives_the_same_leg_and_takes_the_new_delivery_index() -> None:
    pair = Pair()
    assert pair.open(pair.b, 0xB2) == pair.leg_b
    pair.a.send(pair.leg_a)
    assert pair.b.data()[-1][2][4:8] == (0xB2).to_bytes(4, "big")
    assert len(pair.ground.core.table) == 2


def test_datagrams_wait_for_the_other_end() -> None:
    ground = Ground()
    a, b = ground.node("a", "203.0.113.1"), ground.node("b", "203.0.113.2")
    a.call_relay()
    b.call_relay()
    grant = ground.grant(a, b)
    leg = a.ask(m.LegOpen(0, grant, 1)).leg
    a.send(leg, 201)
    a.send(leg, 202)
    assert b.data() == []
    assert b.ask(m.LegOpen(0, grant, 2)).status == m.Status.OK
    assert [len(data) for _, _, data in b.data()] == [201, 202]


def test_an_older_grant_that_comes_after_its_renewal_does_not_shorten_the_leg() -> None:
    ground = Ground()
    a, b = ground.node("a", "203.0.113.1"), ground.node("b", "203.0.113.2")
    now_ms = ground.platform_ms(ground.now)
    for node, number in ((a, 1), (b, 2)):
        node.call_relay()
        for left in (60_000, 5_000):
            grant = ground.grant(a, b, expires_ms=now_ms + left)
            reply = node.ask(m.LegOpen(0, grant, number))
            assert reply.status == m.Status.OK
    leg = b.ask(m.LegOpen(0, ground.grant(a, b, expires_ms=now_ms + 5_000), 2)).leg
    ground.wait(10.0)
    b.send(leg)
    assert len(a.data()) == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"expires_ms": 1}, m.Status.EXPIRED),
        ({"rs_key_hash": bytes(32)}, m.Status.REFUSED),
        ({"node_a_hash": bytes(32)}, m.Status.REFUSED),
        ({"signer": b"x" * 32}, m.Status.REFUSED),
    ],
)
def test_a_grant_that_is_not_for_this_leg_opens_nothing(
    changes: dict[str, object], status: int
) -> None:
    ground = Ground()
    a, b = ground.node("a", "203.0.113.1"), ground.node("b", "203.0.113.2")
    a.call_relay()
    reply = a.ask(m.LegOpen(0, ground.grant(a, b, **changes), 1))
    assert (reply.status, reply.leg) == (status, 0)
    assert len(ground.core.table) == 0
    assert ground.core.clients.counters["legs_refused"] == 1


@pytest.mark.parametrize("at", range(0, 207, 13))
def test_a_grant_with_a_changed_byte_opens_nothing(at: int) -> None:
    ground = Ground()
    a, b = ground.node("a", "203.0.113.1"), ground.node("b", "203.0.113.2")
    a.call_relay()
    grant = bytearray(ground.grant(a, b))
    grant[at] ^= 1
    assert a.ask(m.LegOpen(0, bytes(grant), 1)).status != m.Status.OK
    assert len(ground.core.table) == 0


def test_a_grant_of_another_domains_coordinator_opens_nothing() -> None:
    ground = Ground()
    a, b = ground.node("a", "203.0.113.1"), ground.node("b", "203.0.113.2")
    a.call_relay()
    other = ground.platform.dc("dc.lab.test", "lab.test")
    grant = ground.grant(a, b, signer=other.sign_private)
    assert a.ask(m.LegOpen(0, grant, 1)).status == m.Status.REFUSED


def test_forged_leg_ids_and_wrong_sources_forward_nothing() -> None:
    pair = Pair()
    before = pair.ground.core.table.packets
    for leg in (1, 0xFFFF_FFFF, pair.leg_a ^ 1):
        pair.a.send(leg)
    data = pack_header(Kind.DATA, 1, 0, 0, pair.leg_a, 5) + bytes(100)
    for source in (STRANGER, Endpoint("203.0.113.1", 5001), pair.b.at[1]):
        pair.ground.core.handle(DatagramReceived(data, 1, source), pair.ground.now)
    pair.ground.pump()
    assert pair.b.data() == []
    assert pair.ground.core.table.packets == before
    assert pair.drops == {"unknown_leg": 3, "unknown_source": 3}


def test_replayed_move_and_open_from_elsewhere_change_nothing() -> None:
    pair = Pair()
    recorded: list[bytes] = []
    pair.a.ask(m.LegMove(0, 1), socket=2)
    handle = pair.ground.core.handle

    def recording(event: object, now: float) -> None:
        if isinstance(event, DatagramReceived) and event.source == pair.a.at[1]:
            recorded.append(event.data)
        handle(event, now)

    pair.ground.core.handle = recording  # type: ignore[method-assign]
    pair.a.ask(m.LegMove(0, 2), socket=1)
    assert recorded
    pair.ground.core.handle = handle  # type: ignore[method-assign]
    for data in recorded:
        handle(DatagramReceived(data, 1, STRANGER), pair.ground.now)
    pair.ground.pump()
    pair.b.send(pair.leg_b)
    ((socket, _, _),) = pair.a.data()
    assert socket == 1


@pytest.mark.parametrize("kind", [0, 1, 4, Kind.RESET, 11, 15, 64, 255])
def test_unknown_kinds_are_not_forwarded(kind: int) -> None:
    pair = Pair()
    pair.a.send(pair.leg_a, kind=kind)
    assert pair.drops == {"bad_kind": 1}
    assert [data for _, _, data in pair.b.heard if data[0] == kind and kind != Kind.CONTROL] == []


def test_leg_move_takes_all_legs_to_the_new_source_at_once() -> None:
    pair = Pair()
    reply = pair.a.ask(m.LegMove(0, 1), socket=2)
    assert (reply.seq, reply.observed) == (1, pair.a.at[2])
    ((old, fresh),) = reply.legs
    assert old == pair.leg_a
    assert fresh != old
    pair.b.send(pair.leg_b)
    assert [socket for socket, _, _ in pair.a.data()] == [2]
    pair.a.send(fresh, socket=2)
    pair.a.send(old, socket=2)
    assert len(pair.b.data()) == 2
    pair.ground.wait(timing.OLD_LEG + 2)
    pair.a.send(old, socket=2)
    assert len(pair.b.data()) == 2


def test_an_older_move_does_not_move_back() -> None:
    pair = Pair()
    pair.a.ask(m.LegMove(0, 5), socket=2)
    reply = pair.a.ask(m.LegMove(0, 4), socket=1)
    assert (reply.seq, reply.legs) == (5, ())
    pair.b.send(pair.leg_b)
    assert [socket for socket, _, _ in pair.a.data()] == [2]


def test_keep_alives_and_registrations_move_nothing() -> None:
    pair = Pair()
    for _ in range(5):
        path_two = pair.ground.relay_at(pair.a.at[2])
        pair.a.engine.tell(pair.a.handle, m.Probe(1), pair.ground.now, Path(2, path_two))
        pair.ground.wait(1)
    pair.b.send(pair.leg_b)
    assert [socket for socket, _, _ in pair.a.data()] == [1]
    pair.a.send(pair.leg_a, socket=2)  # validated meanwhile: may send, is not sent to
    assert len(pair.b.data()) == 1


def test_flood_towards_a_source_that_never_answered_is_bounded() -> None:
    pair = Pair()
    ground = pair.ground
    pair.a.ask(m.LegMove(0, 1), socket=2)
    ground.cut.add(pair.a.at[2])
    ground.now += 0.01
    pair.a.at[3] = Endpoint("203.0.113.200", 5000)
    ground.stations[pair.a.at[3]] = (pair.a, 3)
    deaf = Endpoint("203.0.113.200", 5000)

    def arrives() -> int:
        return sum(len(data) for number, _, data in pair.a.data() if number == 3)

    pair.a._message = lambda event: None  # type: ignore[method-assign]  # never answers a challenge
    path = Path(3, ground.relay_at(deaf))
    pair.a.engine.ask(pair.a.handle, m.LegMove(0, 2), ground.now, path)
    ground.pump()
    for _ in range(200):
        pair.b.send(pair.leg_b, 1400)
    assert 0 < arrives() <= timing.AMPLIFICATION_FLOOR + 3 * 1500
    assert pair.drops["unanswered_source"] >= 190


def test_duplicates_to_a_second_validated_source_while_in_doubt() -> None:
    pair = Pair()
    way = Path(2, pair.ground.relay_at(pair.a.at[2]))
    pair.a.engine.tell(pair.a.handle, m.Probe(1), pair.ground.now, way)
    pair.ground.pump()
    pair.a.ask(m.LegMove(0, 1), socket=1)
    pair.a.ask(m.LegMove(0, 1, path_id(2), 1000), socket=1)
    pair.b.send(pair.leg_b)
    assert sorted(socket for socket, _, _ in pair.a.data()) == [1, 2]
    pair.ground.wait(1.1)
    pair.b.send(pair.leg_b)
    assert sorted(socket for socket, _, _ in pair.a.data()) == [1, 1, 2]


def test_close_forgets_the_leg() -> None:
    pair = Pair()
    reply = pair.a.ask(m.LegClose(0, parse_grant(pair.grant).grant_id))
    assert reply.status == m.Status.OK
    pair.a.send(pair.leg_a)
    assert pair.drops == {"unknown_leg": 1}
    assert pair.b.data() == []


def test_limit_of_legs_per_node() -> None:
    ground = Ground(legs_per_node=3)
    a = ground.node("a", "203.0.113.1")
    a.call_relay()
    statuses = []
    for number in range(5):
        other = ground.node(f"n{number}", f"203.0.114.{number}")
        statuses.append(a.ask(m.LegOpen(0, ground.grant(a, other), number)).status)
    assert statuses == [0, 0, 0, m.Status.TOO_MANY, m.Status.TOO_MANY]


def test_expired_grant_stops_forwarding() -> None:
    pair = Pair()
    pair.ground.wait(86_401, step=20)
    pair.a.send(pair.leg_a)
    assert pair.b.data() == []
    assert len(pair.ground.core.table) == 0


def test_restarted_relay_is_found_by_its_reset_and_opens_legs_without_a_coordinator() -> None:
    pair = Pair()
    pair.ground.cut.add(DC)
    pair.ground.new_core()
    pair.a.send(pair.leg_a)  # unknown leg: a reset comes back, shorter than its trigger
    resets = [data for _, _, data in pair.a.heard if data[0] == Kind.RESET]
    assert len(resets) == 1
    assert len(resets[0]) < 200
    assert resets[0][4:8] == pair.leg_a.to_bytes(4, "big")
    for node in (pair.a, pair.b):
        node.call_relay()
    pair.ground.wait(1)  # the first copies name certificates that the new relay never saw
    pair.leg_a, pair.leg_b = pair.open(pair.a, 0xA1), pair.open(pair.b, 0xB1)
    pair.a.send(pair.leg_a)
    assert len(pair.b.data()) == 1


def test_reset_for_a_lost_session_makes_the_node_shake_hands_again() -> None:
    pair = Pair()
    pair.ground.new_core()
    pair.a.engine.tell(pair.a.handle, m.Probe(1), pair.ground.now)
    pair.ground.wait(1)
    assert any(isinstance(event, ResetSeen) for event in pair.a.events)
    assert pair.open(pair.a, 0xA1)


def test_legs_linger_after_the_session_and_open_again_with_the_same_id() -> None:
    pair = Pair()
    pair.b.engine.close(pair.b.handle, pair.ground.now, m.CloseReason.DOWN)
    pair.ground.wait(1)
    pair.a.send(pair.leg_a)
    assert pair.b.data() == []
    pair.ground.wait(300, step=10)
    pair.b.call_relay()
    assert pair.open(pair.b, 0xB7) == pair.leg_b
    pair.a.send(pair.leg_a)
    assert pair.b.data()[-1][2][4:8] == (0xB7).to_bytes(4, "big")


def test_a_node_is_refused_what_only_a_coordinator_may_ask() -> None:
    pair = Pair()
    reply = pair.a.ask(m.RelayRegister(0, (), 0, 0))
    assert isinstance(reply, m.Done)
    assert reply.status == m.Status.REFUSED


def test_junk_costs_a_counter_and_no_answer() -> None:
    ground = Ground()
    before = ground.sent
    dice = ground.clock.stream("junk")
    for _ in range(500):
        data = dice.randbytes(dice.randint(0, 60))
        ground.core.handle(DatagramReceived(data, 1, STRANGER), ground.now)
    ground.pump()
    assert ground.sent - before <= timing.RESETS_PER_SOURCE * 60


def test_status_tells_counts() -> None:
    pair = Pair()
    pair.a.send(pair.leg_a)
    pair.a.send(1)
    pair.ground.core.handle(UserAsked(7, "status", {}), pair.ground.now)
    (answer,) = [c for c in pair.ground.core.take_commands() if isinstance(c, UserAnswered)]
    assert answer.result["legs"] == 2
    assert answer.result["nodes"] == 2
    assert answer.result["packets"] == 1
    assert answer.result["drops"] == {"unknown_leg": 1}
    assert answer.result["registered"] is True


def test_two_moves_of_which_the_first_answer_was_lost_tell_every_former_id() -> None:
    pair = Pair()
    ground = pair.ground
    path = Path(2, ground.relay_at(pair.a.at[2]))
    ground.cut.add(pair.a.at[2])
    pair.a.engine.ask(pair.a.handle, m.LegMove(0, 1), ground.now, path)
    pair.a.work()
    source, destination, data = ground.bus.pop()
    ground.core.handle(DatagramReceived(data, 1, source), ground.now)  # heard, its answer lost
    ground.pump()
    reply = pair.a.ask(m.LegMove(0, 2), socket=1)
    fresh = dict(reply.legs)
    assert destination == ground.relay_at(source)
    assert pair.leg_a in fresh
    assert len(fresh) == 2
    assert len(set(fresh.values())) == 1
    pair.a.send(fresh[pair.leg_a])
    pair.a.send(pair.leg_a)
    assert len(pair.b.data()) == 2
