"""Coordinators among themselves: found by DNS, checked by certificate, refused beyond their own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ntm_dc.values import DirectoryEntry, DirectoryUpdated, DomainTarget
from ntmd.proto import messages as m
from ntmd.proto.crypto import public_key
from ntmd.proto.events import OpenPolicy
from ntmd.proto.io import SendDatagram
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Endpoint, Path, Peer, Role
from tests.unit.servers.dc_ground import Box, Ground, Station, nat
from tests.unit.servers.dc_rogue import Rogue, rogue_case, shown


def two_domains(ground: Ground) -> tuple[Box, Box, Station, Station]:
    home, lab = ground.box("home.test", "198.51.100.1"), ground.box("lab.test", "198.51.100.2")
    ground.relay("rs1.home.test", home)
    ground.relay("rs1.lab.test", lab)
    laptop, desk = ground.node("laptop.home.test", home), ground.node("desk.lab.test", lab)
    laptop.join("192.168.1.5")
    desk.join("10.0.0.9")
    return home, lab, laptop, desk


def test_a_call_across_two_domains() -> None:
    ground = Ground()
    home, _, laptop, desk = two_domains(ground)
    reply = laptop.ask(m.DirectionRequest(0, "desk.lab.test"))
    assert reply.status == m.Status.OK
    route, other = reply.route, desk.directed[0].route
    assert (route.name, other.name) == ("desk.lab.test", "laptop.home.test")
    assert (route.psk, route.psk_id) == (other.psk, other.psk_id)
    assert {given.relay.name for given in route.grants} == {"rs1.home.test", "rs1.lab.test"}
    assert route.grants == other.grants
    assert (route.home_relay, other.home_relay) == ("rs1.lab.test", "rs1.home.test")
    assert ground.order == ["called desk.lab.test", "caller told"]
    assert home.lookups[0].suffixes == ("lab.test", "test")
    hosts = {c.endpoint.host for c in (*route.candidates, *other.candidates)}
    assert hosts == {laptop.at[1].host, desk.at[1].host}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_order_holds_with_loss_across_domains(seed: int) -> None:
    ground = Ground(seed)
    *_, laptop, desk = two_domains(ground)
    ground.loss = 0.15
    reply = laptop.ask(m.DirectionRequest(0, "desk.lab.test"), 6.0)
    if reply is not None and reply.status == m.Status.OK:
        assert ground.order == ["called desk.lab.test", "caller told"]
        assert len(desk.directed) == 1
    else:
        assert "caller told" not in ground.order


@pytest.mark.parametrize("later", [0.0, 0.01])
@pytest.mark.parametrize("known", [False, True])
def test_two_ends_that_ask_at_once_can_meet(later: float, known: bool) -> None:
    ground = Ground()
    *_, laptop, desk = two_domains(ground)
    if known:
        laptop.ask(m.DirectionRequest(0, "desk.lab.test"))
        desk.directed.clear()
    held: list[tuple[Station, m.RouteDirection]] = []
    for station in (laptop, desk):
        station.respond = lambda request, at=station: held.append((at, request))  # type: ignore[misc]
    ours = laptop.engine.ask(laptop.handle, m.DirectionRequest(0, "desk.lab.test"), ground.now)
    ground.wait(later)
    theirs = desk.engine.ask(desk.handle, m.DirectionRequest(0, "laptop.home.test"), ground.now)
    ground.wait(0.02)
    assert {station.identity.name for station, _ in held} == {"laptop.home.test", "desk.lab.test"}
    for station, request in held:
        reply = m.RouteDirectionResponse(request.id, 0)
        station.engine.tell(station.handle, reply, ground.now)
    ground.wait(0.5)
    told = {laptop.replies[ours].route.psk, desk.replies[theirs].route.psk}
    last = {laptop.directed[-1].route.psk, desk.directed[-1].route.psk}
    assert len(told | last) == 1


def test_the_second_call_asks_no_dns() -> None:
    ground = Ground()
    home, _, laptop, _ = two_domains(ground)
    laptop.ask(m.DirectionRequest(0, "desk.lab.test"))
    ground.dns = "silent"
    assert laptop.ask(m.DirectionRequest(0, "desk.lab.test")).status == m.Status.OK
    assert len(home.lookups) == 1


def test_an_address_finds_its_domain_by_the_directory() -> None:
    ground = Ground()
    home, lab, laptop, desk = two_domains(ground)
    assert desk.registered is not None
    home.core.handle(ground.directory(home, lab), ground.now)
    reply = laptop.ask(m.DirectionRequest(0, "", desk.registered.address))
    assert reply.status == m.Status.OK
    assert reply.route.name == "desk.lab.test"


def test_the_domains_of_the_platform_are_told_to_nodes() -> None:
    ground = Ground()
    home, lab, laptop, _ = two_domains(ground)
    home.core.handle(ground.directory(home, lab), ground.now)
    assert laptop.ask(laptop.register()).domains == ("home.test", "lab.test")


# ------------------------------------------------------------------ what users are told


@pytest.mark.parametrize(
    ("dns", "status", "words"),
    [
        ("silent", m.Status.COORDINATOR_UNREACHABLE, "lab.test: the DNS does not answer"),
        ("the DNS does not answer", m.Status.COORDINATOR_UNREACHABLE, "the DNS does not answer"),
        ("up", m.Status.NO_SUCH_NAME, "lab.test: no such domain"),
    ],
)
def test_without_dns_the_caller_hears_why(dns: str, status: m.Status, words: str) -> None:
    ground = Ground()
    *_, laptop, _ = two_domains(ground)
    ground.dns = dns
    ground.zones.clear()
    began = ground.now
    reply = laptop.ask(m.DirectionRequest(0, "desk.lab.test"))
    assert reply.status == status
    assert words in reply.text
    assert ground.now - began < 4.0


def test_a_coordinator_that_is_down_is_named() -> None:
    ground = Ground()
    _, lab, laptop, _ = two_domains(ground)
    lab.up = False
    reply = laptop.ask(m.DirectionRequest(0, "desk.lab.test"))
    assert reply.status == m.Status.COORDINATOR_UNREACHABLE
    assert reply.text == "lab.test: its coordinator does not answer"


@pytest.mark.parametrize(
    ("name", "status"),
    [("none.lab.test", m.Status.NO_SUCH_NAME), ("off.lab.test", m.Status.PEER_OFFLINE)],
)
def test_what_the_other_coordinator_says_reaches_the_caller(name: str, status: m.Status) -> None:
    ground = Ground()
    _, lab, laptop, _ = two_domains(ground)
    off = ground.node("off.lab.test", lab)
    off.join("10.0.0.3")
    off.ask(m.Deregister(0))
    assert laptop.ask(m.DirectionRequest(0, name)).status == status


# ------------------------------------------------------------------ poisoned DNS (C3)


def attacker(ground: Ground, identity: object, at: Endpoint) -> SessionEngine:
    """Somebody with a valid certificate of the platform who answers handshakes at ``at``."""
    engine = SessionEngine(
        identity,  # type: ignore[arg-type]
        ground.platform.trust,
        OpenPolicy((Role.DC, Role.NODE, Role.RS)),
        random=ground.clock.stream("attacker").randbytes,
        platform_ms=ground.platform_ms,
        sequencer=Sequencer(0, lambda mark: None),
    )

    class Shell:
        at_ = {1: at}
        heard: list[object] = []
        engine_ = engine

        def __init__(self) -> None:
            self.at, self.engine = {1: at}, engine

        def receive(self, data: bytes, socket: int, source: Endpoint) -> None:
            engine.receive(data, socket, source, ground.now)

        def work(self) -> None:
            for output in engine.take_outputs():
                if isinstance(output, SendDatagram):
                    ground.put(at, output.path.remote, output.data)
                else:
                    self.heard.append(output)

    ground.stations.append(Shell())  # type: ignore[arg-type]
    return engine


@pytest.mark.parametrize("kind", ["node", "relay", "other domain"])
@pytest.mark.parametrize("known", [False, True])
def test_poisoned_dns_towards_a_valid_certificate_is_refused(kind: str, known: bool) -> None:
    ground = Ground()
    home, lab, laptop, _ = two_domains(ground)
    if known:
        assert laptop.ask(m.DirectionRequest(0, "desk.lab.test")).status == m.Status.OK
        home.start()  # forgets its sessions, keeps what it stored
        ground.wait(3.0)
    evil = Endpoint("203.0.113.66", 4330)
    if kind == "node":
        identity = ground.platform.node("dc.lab.test", "lab.test")
    elif kind == "relay":
        identity = ground.platform.rs("dc.lab.test", "lab.test")
    else:
        identity = ground.platform.dc("dc.evil.test", "evil.test").identity
    attacker(ground, identity, evil)
    name = identity.name
    ground.zones["lab.test"] = (DomainTarget(name, public_key(identity.private_key), (evil,)),)
    reply = laptop.ask(m.DirectionRequest(0, "desk.lab.test"))
    if known:
        assert reply.status == m.Status.OK, "the stored endpoint still works"
        assert reply.route.name == "desk.lab.test"
    else:
        assert reply.status == m.Status.COORDINATOR_UNREACHABLE
        refused = home.events["dc_refused"] + home.events["dc_other_domain"]
        assert refused + sum(home.core.engine.counters.values()) > 0
    del lab


def test_poisoned_addresses_do_not_replace_what_is_stored() -> None:
    ground = Ground()
    home, _, laptop, _ = two_domains(ground)
    assert laptop.ask(m.DirectionRequest(0, "desk.lab.test")).status == m.Status.OK
    stored = home.values["domain/lab.test"]
    (right,) = ground.zones["lab.test"]
    ground.zones["lab.test"] = (replace(right, endpoints=(Endpoint("203.0.113.66", 4330),)),)
    home.start()
    ground.wait(3.0)
    assert laptop.ask(m.DirectionRequest(0, "desk.lab.test")).status == m.Status.OK
    assert home.values["domain/lab.test"] == stored


def test_a_wrong_key_hint_falls_back_to_the_directory() -> None:
    ground = Ground()
    home, lab, laptop, _ = two_domains(ground)
    (right,) = ground.zones["lab.test"]
    ground.zones["lab.test"] = (replace(right, key=public_key(b"\x07" * 32)),)
    home.core.handle(ground.directory(home, lab), ground.now)
    assert laptop.ask(m.DirectionRequest(0, "desk.lab.test")).status == m.Status.OK


def test_directory_entries_that_do_not_verify_are_left_out() -> None:
    ground = Ground()
    home, lab, _, _ = two_domains(ground)
    node = ground.platform.node("dc.far.test", "far.test").certificates[0]
    entries = (DirectoryEntry(node), DirectoryEntry(b"rubbish"), *ground.directory(lab).entries)
    home.core.handle(DirectoryUpdated(entries), ground.now)
    assert home.core.interdomain.domains() == ("lab.test",)
    assert home.events["certificate_role"] == 1
    assert home.events["certificate"] == 1


def test_a_foreign_answer_of_the_dns_is_not_believed() -> None:
    ground = Ground()
    home, lab, laptop, _ = two_domains(ground)
    wish = home.lookups
    laptop.engine.ask(laptop.handle, m.DirectionRequest(0, "desk.far.test"), ground.now)
    ground.dns = "silent"
    ground.pump()
    from ntm_dc.values import DomainResolved

    answer = DomainResolved(wish[-1].token, "lab.test", ground.zones["lab.test"])
    home.core.handle(answer, ground.now)
    ground.wait(4.0)
    assert home.events["dns_foreign_answer"] == 1
    assert home.events["information_given"] == 0
    del lab


# ------------------------------------------------------------------ a coordinator that overreaches


CASES = [
    ("other domain's node", "record_domain"),
    ("other prefix", "record_prefix"),
    ("expired", "certificate_expired"),
    ("other key", "record_key"),
    ("coordinator as node", "certificate_role"),
    ("node as signer", "certificate_role"),
    ("bad signature", "record_signature"),
    ("other signer", "record_domain"),
]


@pytest.mark.parametrize(("case", "kind"), CASES)
def test_an_information_request_that_overreaches_is_refused(case: str, kind: str) -> None:
    ground = Ground()
    lab, rogue, _ = rogue_case(ground)
    reply = rogue.ask(m.InformationRequest(0, "desk.lab.test", b"", *shown(rogue, case)))
    assert isinstance(reply, m.InformationResponse)
    assert (reply.status, reply.text) == (m.Status.REFUSED, kind)
    assert reply.candidates == ()
    assert lab.events[kind] == 1


@pytest.mark.parametrize(("case", "kind"), CASES)
def test_a_route_direction_that_overreaches_is_refused(case: str, kind: str) -> None:
    ground = Ground()
    _, rogue, desk = rogue_case(ground)
    certificate, record, signer = shown(rogue, case)
    route = m.RouteInfo(
        "mallory.evil.test", certificate, record, signer, (), nat(), bytes(16), bytes(32), (), True
    )
    reply = rogue.ask(m.RouteDirection(0, "desk.lab.test", route))
    assert isinstance(reply, m.RouteDirectionResponse)
    assert (reply.status, reply.text) == (m.Status.REFUSED, kind)
    assert desk.directed == []


def test_an_honest_foreigner_is_served_and_told_no_private_address() -> None:
    ground = Ground()
    _, rogue, desk = rogue_case(ground)
    certificate, record, signer = shown(rogue, "honest")
    info = rogue.ask(m.InformationRequest(0, "desk.lab.test", b"", certificate, record, signer))
    assert isinstance(info, m.InformationResponse)
    assert info.status == m.Status.OK
    assert [c.endpoint for c in info.candidates] == [desk.at[1]]
    victim = m.CandidateField(1, Endpoint("192.168.1.1", 4330))
    low = m.CandidateField(2, Endpoint("192.0.2.1", 53))
    route = m.RouteInfo(
        "mallory.evil.test",
        certificate,
        record,
        signer,
        (victim, low),
        nat(),
        bytes(16),
        bytes(32),
        (),
        True,
    )
    reply = rogue.ask(m.RouteDirection(0, "desk.lab.test", route))
    assert isinstance(reply, m.RouteDirectionResponse)
    assert reply.status == m.Status.OK
    assert desk.directed[0].route.candidates == ()


def test_a_binding_is_not_given_up_while_it_is_valid() -> None:
    ground = Ground()
    lab, rogue, _ = rogue_case(ground)
    certificate, record, signer = shown(rogue, "honest")
    ask = m.InformationRequest(0, "desk.lab.test", b"", certificate, record, signer)
    assert rogue.ask(ask).status == m.Status.OK  # type: ignore[union-attr]
    prefix = rogue.given.prefix.network_address.packed[:8]
    from ntmd.proto.certs import parse_leaf

    key = parse_leaf(certificate).key
    other = rogue.record("mallory.evil.test", key, prefix + bytes(7) + b"\x02")
    reply = rogue.ask(replace(ask, caller_record=other))
    assert (reply.status, reply.text) == (m.Status.REFUSED, "binding_conflict")  # type: ignore[union-attr]
    assert lab.events["binding_conflict"] == 1


def test_how_often_a_coordinator_may_ask_is_limited() -> None:
    ground = Ground()
    lab, rogue, _ = rogue_case(ground)
    ask = m.InformationRequest(0, "desk.lab.test", b"", *shown(rogue, "honest"))
    numbers = [rogue.engine.ask(rogue.handle, ask, ground.now) for _ in range(30)]
    ground.wait(1.0)
    statuses = [rogue.replies[number].status for number in numbers]  # type: ignore[attr-defined]
    assert statuses.count(m.Status.OK) == 10
    assert statuses.count(m.Status.TOO_MANY) == 20
    assert lab.events["information_limited"] == 20


def test_a_second_coordinator_of_our_own_domain_is_refused() -> None:
    ground = Ground()
    lab, _, _ = rogue_case(ground)
    twin = Rogue(ground, ground.platform.dc("dc2.lab.test", "lab.test"), "203.0.113.67")
    twin.call(lab)
    assert not twin.engine.established(twin.handle)


def test_a_caller_that_expects_another_name_gets_no_answer() -> None:
    ground = Ground()
    lab, rogue, _ = rogue_case(ground)
    wrong = Peer(Role.DC, "dc.home.test", lab.given.peer.key)
    other = Rogue(ground, ground.platform.dc("dc.far.test", "far.test"), "203.0.113.68")
    handle = other.engine.call(wrong, [Path(1, lab.listen[0])], ground.now)
    ground.wait(2.0)
    assert not other.engine.established(handle)
    del rogue
