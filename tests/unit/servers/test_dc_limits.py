"""What one foreign coordinator may ask, and make our nodes send (rule S7)."""

from __future__ import annotations

from ntm_dc.contact import OPENER_BYTES, ContactBudgets
from ntmd.proto import messages as m
from ntmd.proto.timing import CANDIDATE_COPIES, DIRECTION_BYTES, HANDSHAKE_SIZE
from ntmd.proto.types import CandidateKind, Endpoint
from tests.unit.servers.dc_ground import Ground, nat
from tests.unit.servers.dc_rogue import Rogue, rogue_case, shown

REFLEXIVE = int(CandidateKind.REFLEXIVE)


def route(
    rogue: Rogue, hosts: list[str], *, start: bool = True, name: str = "mallory.evil.test"
) -> m.RouteInfo:
    certificate, record, signer = shown(rogue, "honest")
    listed = tuple(
        m.CandidateField(REFLEXIVE, Endpoint(host, 5000 + number))
        for number, host in enumerate(hosts)
    )
    psk = (bytes(16), bytes(32))
    return m.RouteInfo(name, certificate, record, signer, listed, nat(), *psk, (), start)


def test_a_victim_listed_ten_thousand_times_gets_the_budget_of_a_minute() -> None:
    ground = Ground()
    _, rogue, _ = rogue_case(ground)
    budgets, victim = ContactBudgets(), route(rogue, ["192.0.2.1", "192.0.2.77"] * 8)
    each = CANDIDATE_COPIES * HANDSHAKE_SIZE
    passed = sum(len(budgets.allowed(b"dc", victim, call / 200)) for call in range(10_000))
    assert 0.9 * DIRECTION_BYTES < passed * each <= DIRECTION_BYTES  # 50 s
    assert len(budgets.allowed(b"dc", route(rogue, ["198.51.100.1"]), 50.0)) == 1
    assert len(budgets.allowed(b"other dc", victim, 50.0)) == 16
    assert len(budgets.allowed(b"dc", victim, 61.0)) == 16
    waits = route(rogue, ["2001:db8::1"] * 16, start=False)
    calls = [len(budgets.allowed(b"dc", waits, 100.0)) for _ in range(200)]
    assert 0.9 * DIRECTION_BYTES < sum(calls) * OPENER_BYTES <= DIRECTION_BYTES


def test_our_nodes_are_told_of_a_victim_within_the_budget_only() -> None:
    ground = Ground()
    lab, rogue, desk = rogue_case(ground)
    lamp = ground.node("lamp.lab.test", lab)
    lamp.join("10.0.0.8")
    victim = route(rogue, ["192.0.2.1"] * 16)
    for _ in range(4):
        for node in (desk, lamp):
            reply = rogue.ask(m.RouteDirection(0, node.identity.name, victim))
            assert isinstance(reply, m.RouteDirectionResponse)
            assert reply.status == m.Status.OK
        ground.wait(1.0)
    told = sum(len(each.route.candidates) for node in (desk, lamp) for each in node.directed)
    assert 16 < told <= DIRECTION_BYTES // (CANDIDATE_COPIES * HANDSHAKE_SIZE)
    assert lab.events["contact_budget"] == 8 * 16 - told


def test_how_often_a_coordinator_may_direct_is_limited() -> None:
    ground = Ground()
    lab, rogue, desk = rogue_case(ground)
    request = m.RouteDirection(0, "desk.lab.test", route(rogue, []))
    numbers = [rogue.engine.ask(rogue.handle, request, ground.now) for _ in range(30)]
    ground.wait(1.0)
    statuses = [rogue.replies[number].status for number in numbers]  # type: ignore[attr-defined]
    assert (statuses.count(m.Status.OK), statuses.count(m.Status.TOO_MANY)) == (10, 20)
    assert len(desk.directed) == 10
    assert lab.events["directions_limited"] == 20


def test_a_coordinator_may_ask_so_much_in_all() -> None:
    """Many callers, each within its own limit."""
    ground = Ground(information_per_dc=15.0)
    _, rogue, _ = rogue_case(ground)
    numbers = []
    prefix = rogue.given.prefix.network_address.packed[:8]
    for caller in range(20):
        name = f"m{caller}.evil.test"
        node = ground.platform.node(name, "evil.test")
        record = rogue.record(name, Rogue.key_of(node), prefix + bytes(7) + bytes([caller + 1]))
        signer = rogue.given.sign_certificate
        ask = m.InformationRequest(0, "desk.lab.test", b"", node.certificates[0], record, signer)
        numbers.append(rogue.engine.ask(rogue.handle, ask, ground.now))
    ground.wait(1.0)
    statuses = [rogue.replies[number].status for number in numbers]  # type: ignore[attr-defined]
    assert (statuses.count(m.Status.OK), statuses.count(m.Status.TOO_MANY)) == (15, 5)
    ground.wait(1.0)
    assert rogue.ask(ask).status == m.Status.OK  # type: ignore[union-attr]
