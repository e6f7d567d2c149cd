"""The coordinator's core: registration, directions in order, moves, refusals, restart."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from ntm_dc.values import CertificatesRenewed, DirectoryUpdated
from ntmd.proto import messages as m
from ntmd.proto.certs import parse_leaf
from ntmd.proto.crypto import ed25519_public, sha256
from ntmd.proto.events import PeerClosed
from ntmd.proto.io import DatagramReceived, SendDatagram, UserAsked
from ntmd.proto.records import Grant, check_grant, check_record, parse_grant, signer_id
from ntmd.proto.types import Endpoint, Path, Role
from tests.unit.servers.dc_ground import Ground, Station


def pair(ground: Ground, relay: bool = True) -> tuple[Station, Station]:
    dc = ground.box("home.test", "198.51.100.1")
    if relay:
        ground.relay("rs1.home.test", dc)
    laptop, desk = ground.node("laptop.home.test", dc), ground.node("desk.home.test", dc)
    laptop.join("192.168.1.5")
    desk.join("10.0.0.9")
    return laptop, desk


def test_registration_gives_a_signed_lasting_address() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    laptop = ground.node("laptop.home.test", dc)
    reply = laptop.join("192.168.1.5")
    address = ipaddress.IPv6Address(reply.address)
    assert reply.status == m.Status.OK
    assert address in dc.given.prefix
    assert reply.observed == laptop.at[1]
    assert reply.probe_endpoints == (*dc.listen, *dc.probe)
    signer = parse_leaf(reply.dc_sign)
    now = ground.platform_ms(ground.now)
    record = check_record(
        reply.record, ground.platform.id, "laptop.home.test", laptop.key, signer, now
    )
    assert record.address == reply.address
    assert record.expires_ms - now == pytest.approx(7 * 86_400_000, abs=1000)
    assert dc.rows["laptop.home.test"].address == reply.address


def test_an_address_is_durable_before_it_is_told() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1", durable=False)
    laptop = ground.node("laptop.home.test", dc)
    laptop.registers, laptop.hosts = True, ()
    laptop.call()
    ground.wait(2.0)
    assert laptop.registered is None
    assert "laptop.home.test" in dc.rows
    dc.flush()
    ground.wait(1.0)
    assert laptop.registered is not None
    assert laptop.registered.address == dc.rows["laptop.home.test"].address


def test_a_failed_write_tells_no_address() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1", durable=False)
    laptop = ground.node("laptop.home.test", dc)
    laptop.registers, laptop.hosts = True, ()
    laptop.call()
    dc.flush("disk full")
    ground.wait(0.5)
    assert laptop.registered is not None
    assert laptop.registered.status == m.Status.TRY_AGAIN
    assert laptop.registered.address == b""


def test_registering_twice_is_the_same_registration() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    laptop = ground.node("laptop.home.test", dc)
    first = laptop.join("192.168.1.5")
    second = laptop.ask(laptop.register())
    assert (second.address, second.record) == (first.address, first.record)
    assert len(dc.rows) == 1


def test_the_record_is_made_anew_after_a_day() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    laptop = ground.node("laptop.home.test", dc)
    first = laptop.join("192.168.1.5")
    for _ in range(5):
        ground.wait(5 * 3600.0)
        again = laptop.ask(laptop.register())
    assert again.address == first.address
    assert again.record != first.record


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_caller_hears_only_after_the_called_end_is_ready(seed: int, loss: float) -> None:
    ground = Ground(seed)
    laptop, desk = pair(ground)
    ground.loss = loss
    reply = laptop.ask(m.DirectionRequest(0, "desk.home.test"), 6.0)
    if reply is None or reply.status != m.Status.OK:
        assert loss > 0
        assert reply is None or reply.route is None
        return
    called, caller = ground.order.index("called desk.home.test"), ground.order.index("caller told")
    assert called < caller
    assert len(desk.directed) == 1, "copies of the direction are answered by the engine"
    route, other = reply.route, desk.directed[-1].route
    assert (route.name, other.name) == ("desk.home.test", "laptop.home.test")
    assert (route.psk, route.psk_id) == (other.psk, other.psk_id)
    assert route.certificate == desk.identity.certificates[0]
    assert route.start


def test_no_word_to_the_caller_while_the_called_end_is_silent() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    desk.respond = lambda _: None
    number = laptop.engine.ask(laptop.handle, m.DirectionRequest(0, "desk.home.test"), ground.now)
    ground.wait(2.5)
    assert len(desk.directed) == 1
    assert number not in laptop.replies
    ground.wait(2.0)
    assert laptop.replies[number].status == m.Status.PEER_OFFLINE
    assert "does not answer" in laptop.replies[number].text


def test_a_refusal_of_the_called_end_reaches_the_caller() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    desk.respond = lambda _: int(m.Status.REFUSED)
    reply = laptop.ask(m.DirectionRequest(0, "desk.home.test"))
    assert (reply.status, reply.route) == (m.Status.REFUSED, None)


def test_repeated_questions_under_way_are_one_direction() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    first = laptop.engine.ask(laptop.handle, m.DirectionRequest(0, "desk.home.test"), ground.now)
    second = laptop.engine.ask(laptop.handle, m.DirectionRequest(0, "desk.home.test"), ground.now)
    ground.wait(1.0)
    assert len(desk.directed) == 1
    assert laptop.replies[first].route == laptop.replies[second].route


def test_two_nodes_that_ask_for_each_other_get_one_key() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    first = laptop.engine.ask(laptop.handle, m.DirectionRequest(0, "desk.home.test"), ground.now)
    second = desk.engine.ask(desk.handle, m.DirectionRequest(0, "laptop.home.test"), ground.now)
    ground.wait(1.0)
    keys = {
        laptop.replies[first].route.psk,
        desk.replies[second].route.psk,
        laptop.directed[0].route.psk,
        desk.directed[0].route.psk,
    }
    assert len(keys) == 1


def test_private_addresses_stay_at_home() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    reply = laptop.ask(m.DirectionRequest(0, "desk.home.test"))
    told = {c.endpoint.host for c in (*reply.route.candidates, *desk.directed[0].route.candidates)}
    assert told == {laptop.at[1].host, desk.at[1].host}


def test_nodes_behind_one_address_are_told_their_hosts() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    desk.at[1] = Endpoint(laptop.at[1].host, 6000)
    desk.engine.tell(desk.handle, m.Move(1, 1, 1, 9, (), False), ground.now)
    assert desk.ask(desk.register()).status == m.Status.OK
    reply = laptop.ask(m.DirectionRequest(0, "desk.home.test"))
    assert "10.0.0.9" in {c.endpoint.host for c in reply.route.candidates}


def test_grants_hold_for_the_pair_at_the_home_relay() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    reply = laptop.ask(m.DirectionRequest(0, "desk.home.test"))
    dc = ground.boxes[0]
    signer = parse_leaf(dc.given.sign_certificate)
    (given,) = reply.route.grants
    grant = check_grant(
        given.grant, ground.platform.id, {signer_id(signer): signer}, ground.platform_ms(ground.now)
    )
    assert {grant.node_a_hash, grant.node_b_hash} == {sha256(laptop.key), sha256(desk.key)}
    assert grant.rs_key_hash == sha256(parse_leaf(given.relay.certificate).key)
    assert reply.route.home_relay == "rs1.home.test"
    again = laptop.ask(m.DirectionRequest(0, "desk.home.test"))
    assert again.route.grants == reply.route.grants
    assert again.route.psk != reply.route.psk


def test_a_pair_keeps_its_grant_id_over_renewals_and_restarts() -> None:
    """An end that missed the renewed grant still holds the leg that the other end opens."""
    ground = Ground()
    laptop, desk = pair(ground)
    dc = ground.boxes[0]

    def granted() -> Grant:
        reply = laptop.ask(m.DirectionRequest(0, "desk.home.test"))
        return parse_grant(reply.route.grants[0].grant)

    first = granted()
    relays = dc.core.relays
    relay = relays.live(ground.now)[0]
    later = relays.grant(relay, desk.key, laptop.key, ground.now + 86_401).grant
    assert parse_grant(later).grant_id == first.grant_id
    assert parse_grant(later).issued_ms > first.issued_ms
    dc.start()
    anew = dc.core.relays.grant(relay, laptop.key, desk.key, ground.now).grant
    assert parse_grant(anew).grant_id == first.grant_id
    other = relays.grant(relay, laptop.key, bytes(32), ground.now).grant
    assert parse_grant(other).grant_id != first.grant_id


def test_the_less_busy_relay_becomes_home() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    ground.relay("rs1.home.test", dc, legs=9)
    ground.relay("rs2.home.test", dc, legs=2)
    laptop = ground.node("laptop.home.test", dc)
    reply = laptop.join("192.168.1.5")
    assert [relay.name for relay in reply.relays] == ["rs2.home.test", "rs1.home.test"]
    laptop.home_relay = "rs1.home.test"
    reply = laptop.ask(laptop.register())
    assert reply.relays[0].name == "rs1.home.test"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("nobody.home.test", m.Status.NO_SUCH_NAME),
        ("laptop.home.test", m.Status.BAD_REQUEST),
        ("not_a_name", m.Status.BAD_REQUEST),
        ("desk.far.test", m.Status.NO_SUCH_NAME),
    ],
)
def test_what_cannot_be_directed_is_said(name: str, status: m.Status) -> None:
    ground = Ground()
    laptop, _ = pair(ground)
    assert laptop.ask(m.DirectionRequest(0, name)).status == status


def test_an_address_leads_to_its_node() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    assert desk.registered is not None
    reply = laptop.ask(m.DirectionRequest(0, "", desk.registered.address))
    assert reply.route.name == "desk.home.test"
    nobody = desk.registered.address[:8] + bytes(8)
    assert laptop.ask(m.DirectionRequest(0, "", nobody)).status == m.Status.NO_SUCH_NAME


def test_a_node_that_took_leave_is_offline() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    assert desk.ask(m.Deregister(0)).status == m.Status.OK
    reply = laptop.ask(m.DirectionRequest(0, "desk.home.test"))
    assert reply.status == m.Status.PEER_OFFLINE


def test_too_many_questions_are_put_off() -> None:
    ground = Ground()
    laptop, _ = pair(ground)
    before = ground.now
    numbers = [
        laptop.engine.ask(laptop.handle, m.DirectionRequest(0, f"n{i}.home.test"), before)
        for i in range(40)
    ]
    ground.wait(1.0)
    statuses = [laptop.replies[number].status for number in numbers]
    assert statuses.count(m.Status.TOO_MANY) == 30
    assert statuses.count(m.Status.NO_SUCH_NAME) == 10


# ------------------------------------------------------------------ moves (C7)


def test_only_a_greater_move_moves_a_node() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    core = ground.boxes[0].core
    node = core.registry.by_name("desk.home.test")
    assert node is not None
    old, new = desk.at[1], Endpoint("203.0.113.77", 7000)
    desk.at[2] = new
    way = Path(2, ground.boxes[0].listen[0])
    desk.engine.tell(desk.handle, m.Probe(5), ground.now, way)
    ground.wait(0.5)
    assert node.primary is not None
    assert node.primary.remote == old
    desk.engine.tell(desk.handle, m.Move(2, 2, 1, 7, (), False), ground.now, way)
    ground.wait(0.5)
    assert node.primary.remote == new
    desk.engine.tell(desk.handle, m.Move(1, 1, 1, 8, (), False), ground.now, Path(1, way.remote))
    ground.wait(0.5)
    assert node.primary.remote == new
    laptop.ask(m.DirectionRequest(0, "desk.home.test"))
    assert len(desk.directed) == 1


def test_at_most_four_sources_are_kept() -> None:
    ground = Ground()
    _, desk = pair(ground)
    node = ground.boxes[0].core.registry.by_name("desk.home.test")
    assert node is not None
    for number in range(2, 12):
        desk.at[number] = Endpoint("203.0.113.77", 7000 + number)
        way = Path(number, ground.boxes[0].listen[0])
        desk.engine.tell(desk.handle, m.Move(number, number, 1, 7, (), False), ground.now, way)
        ground.wait(0.2)
    assert len(node.sources) == 4


def test_a_probe_is_answered_from_the_endpoint_asked_for() -> None:
    ground = Ground()
    laptop, _ = pair(ground)
    dc = ground.boxes[0]
    seen: list[Endpoint] = []
    deliver = laptop.receive

    def noting(data: bytes, socket: int, source: Endpoint) -> None:
        seen.append(source)
        deliver(data, socket, source)

    laptop.receive = noting  # type: ignore[method-assign]
    for place in (1, 2):
        laptop.engine.tell(laptop.handle, m.Probe(place, place), ground.now)
        ground.wait(0.1)
    assert seen == [dc.listen[0], dc.probe[0]]
    laptop.engine.tell(laptop.handle, m.Probe(3, 200), ground.now)
    ground.wait(0.1)
    assert len(seen) == 2
    assert dc.events["bad_probe"] == 1


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("name", "domain", "counter"),
    [
        ("laptop.lab.test", "lab.test", "other_domain"),
        ("laptop.sub.home.test", "sub.home.test", "other_domain"),
    ],
)
def test_a_node_of_another_domain_is_refused(name: str, domain: str, counter: str) -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    stranger = ground.node(name, dc, domain=domain)
    stranger.call()
    ground.wait(12.0)
    assert not stranger.engine.established(stranger.handle)
    assert dc.events[counter] >= 1
    assert not dc.rows


def test_an_expired_node_is_refused() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    old = ground.node("old.home.test", dc, days=1, issued_days_ago=3)
    old.call()
    ground.wait(2.0)
    assert not old.engine.established(old.handle)
    assert dc.core.engine.counters["certificate_expired"] >= 1


def test_a_newer_certificate_takes_the_name_an_older_one_does_not() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    first = ground.node("laptop.home.test", dc, issued_days_ago=2)
    address = first.join("192.168.1.5").address
    second = ground.node("laptop.home.test", dc, issued_days_ago=1)
    assert second.join("192.168.1.6").address == address
    ground.wait(1.0)
    assert any(isinstance(event, PeerClosed) for event in first.events)
    third = ground.node("laptop.home.test", dc, issued_days_ago=3)
    third.call()
    ground.wait(2.0)
    assert not third.engine.established(third.handle)
    assert dc.events["older_certificate"] >= 1


def test_a_node_cannot_play_relay_or_coordinator() -> None:
    ground = Ground()
    laptop, _ = pair(ground)
    dc = ground.boxes[0]
    fake = m.RelayRegister(0, (laptop.at[1],), 0, 0)
    info = m.InformationRequest(
        0,
        "desk.home.test",
        b"",
        laptop.identity.certificates[0],
        laptop.registered.record if laptop.registered else b"",
        dc.given.sign_certificate,
    )
    for request in (fake, info):
        assert laptop.ask(request).status == m.Status.REFUSED
    assert dc.events["unexpected_message"] == 2
    assert len(dc.core.relays) == 1


def test_a_relay_of_another_domain_is_refused() -> None:
    ground = Ground()
    dc, lab = ground.box("home.test", "198.51.100.1"), ground.box("lab.test", "198.51.100.2")
    relay = Station(
        ground, ground.platform.rs("rs.lab.test", "lab.test"), dc, Endpoint("203.0.113.60", 4331)
    )
    relay.call()
    ground.wait(2.0)
    assert not relay.engine.established(relay.handle)
    assert dc.events["other_domain"] >= 1
    del lab


def test_rubbish_costs_a_counter_only() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    source = Endpoint("203.0.113.99", 999)
    for data in (b"", b"\x05", bytes(16), bytes([8]) + bytes(40), bytes([9]) + bytes(60)):
        dc.core.handle(DatagramReceived(data, 1, source), ground.now)
    dc.core.handle(object(), ground.now)
    assert not dc.rows
    assert dc.events["unknown_input"] == 1
    for command in dc.core.take_commands():
        if isinstance(command, SendDatagram):
            assert len(command.data) < 60


# ------------------------------------------------------------------ restart


def test_after_a_restart_the_nodes_are_called_and_known_again() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    dc = ground.boxes[0]
    before = {name: row.address for name, row in dc.rows.items()}
    ground.wait(60.0)
    laptop.registered = desk.registered = None
    dc.start()
    began = ground.now
    assert ground.wait(3.0, lambda: bool(laptop.registered and desk.registered))
    assert ground.now - began <= 3.0
    assert {name: row.address for name, row in dc.rows.items()} == before
    reply = laptop.ask(m.DirectionRequest(0, "desk.home.test"))
    assert reply.status == m.Status.OK
    assert reply.route.grants
    relay = ground.stations[0]
    assert len(relay.replies) == 2, "the relay was called back too, and registered again"


def test_a_question_right_after_a_restart_waits_for_the_called_end() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    dc = ground.boxes[0]
    dc.start()
    ground.cut.add(desk.at[1])
    ground.wait(0.3)
    number = laptop.engine.ask(laptop.handle, m.DirectionRequest(0, "desk.home.test"), ground.now)
    ground.wait(0.2)
    assert number not in laptop.replies
    ground.cut.clear()
    ground.wait(3.0, lambda: number in laptop.replies)
    assert laptop.replies[number].status == m.Status.OK


def test_the_recall_is_spread() -> None:
    ground = Ground()
    dc = ground.box("home.test", "198.51.100.1")
    for number in range(60):
        ground.node(f"n{number}.home.test", dc).join("192.168.1.5")
    for station in ground.stations:
        station.registered = None
    dc.start()
    dc.core.settings  # noqa: B018 - the rate below is the default one
    began = ground.now
    assert ground.wait(4.0, lambda: all(station.registered for station in ground.stations))
    assert ground.now - began <= 3.0 + 60 / 1000
    assert ground.now - began >= 50 / 1000
    assert dc.events["recalled"] == 60


def test_stored_rows_of_another_prefix_are_left_alone() -> None:
    ground = Ground()
    laptop, _ = pair(ground)
    dc = ground.boxes[0]
    row = dc.rows["laptop.home.test"]
    dc.rows["laptop.home.test"] = type(row)(row.name, bytes(16), row.key, row.certificate)
    core = dc.start()
    assert core.registry.by_name("laptop.home.test") is None
    assert dc.events["stored_refused"] == 1
    del laptop


# ------------------------------------------------------------------ the operator


def test_the_operator_sees_and_forgets_nodes() -> None:
    ground = Ground()
    laptop, _ = pair(ground)
    dc = ground.boxes[0]
    for token, what in enumerate(("status", "nodes", "nonsense"), 1):
        dc.core.handle(UserAsked(token, what, {}), ground.now)
    ground.pump()
    assert dc.answers[1].result["online"] == 2
    assert [each["name"] for each in dc.answers[2].result] == ["laptop.home.test", "desk.home.test"]
    assert dc.answers[3].error
    dc.core.handle(UserAsked(4, "forget", {"name": "laptop.home.test"}), ground.now)
    dc.core.handle(UserAsked(5, "node", {"name": "laptop.home.test"}), ground.now)
    ground.wait(0.5)
    assert dc.answers[5].exit_code == 1
    assert "laptop.home.test" not in dc.rows
    assert any(isinstance(event, PeerClosed) for event in laptop.events)


# ------------------------------------------------------------------ certificates, determinism


def test_a_revoked_node_is_shown_out_and_stays_out() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    dc = ground.boxes[0]
    gone = DirectoryUpdated((), (sha256(laptop.key),))
    dc.core.handle(gone, ground.now)
    ground.wait(0.5)
    assert any(isinstance(event, PeerClosed) for event in laptop.events)
    assert desk.ask(m.DirectionRequest(0, "laptop.home.test")).status == m.Status.PEER_OFFLINE
    laptop.call()
    ground.wait(2.0)
    assert not laptop.engine.established(laptop.handle)
    assert dc.events["certificate_revoked"] >= 1
    assert desk.engine.established(desk.handle)


def test_renewed_certificates_are_used_and_foreign_ones_are_not() -> None:
    ground = Ground()
    laptop, desk = pair(ground)
    dc = ground.boxes[0]
    given, fresh = dc.given, ground.platform.renewed
    name, prefix = given.identity.name, given.prefix
    signer = ed25519_public(given.sign_private)
    renewed = CertificatesRenewed(
        (fresh(given.peer.key, Role.DC, name, "home.test", prefix),),
        fresh(signer, Role.DC_SIGN, name, "home.test", prefix),
    )
    dc.core.handle(renewed, ground.now)
    assert laptop.ask(laptop.register()).dc_sign == renewed.dc_sign != given.sign_certificate
    laptop.engine.rekey(laptop.handle, ground.now)
    ground.wait(1.0)
    remote = laptop.engine.remote(laptop.handle)
    assert remote is not None
    assert remote.leaf.der == renewed.certificates[0]
    assert desk.engine.established(desk.handle)
    other = ground.platform.dc("dc.far.test", "far.test")
    for wrong in (
        replace(renewed, dc_sign=other.sign_certificate),
        replace(renewed, dc_sign=b"rubbish"),
        replace(renewed, certificates=other.identity.certificates),
        replace(renewed, certificates=()),
    ):
        dc.core.handle(wrong, ground.now)
        assert laptop.ask(laptop.register()).dc_sign == renewed.dc_sign
    assert dc.events["certificates_renewed"] == 1


def test_the_same_inputs_give_the_same_bytes() -> None:
    def story(seed: int) -> list[tuple[Endpoint, bytes]]:
        ground = Ground(seed, loss=0.1)
        sent: list[tuple[Endpoint, bytes]] = []
        put = ground.put

        def noting(source: Endpoint, destination: Endpoint, data: bytes) -> None:
            sent.append((destination, data))
            put(source, destination, data)

        ground.put = noting  # type: ignore[method-assign]
        dc = ground.box("home.test", "198.51.100.1")
        nodes = [ground.node(f"n{number}.home.test", dc) for number in range(4)]
        for node in nodes:
            node.join("192.168.1.5")
        nodes[0].ask(m.DirectionRequest(0, "n3.home.test"), 5.0)
        dc.start()
        ground.wait(3.0)
        return sent

    first = story(3)
    assert len(first) > 30
    assert first == story(3)
    assert first != story(4)
