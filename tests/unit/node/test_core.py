"""The node's core against a scripted coordinator and the production relay, in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ntmd.node.tunnel import Open
from ntmd.proto.certs import parse_leaf
from ntmd.proto.io import UserAsked
from ntmd.proto.messages import CandidateField, RouteInfo
from ntmd.proto.timing import DIRECTION_BYTES
from ntmd.proto.types import Endpoint, NatFiltering, NatMapping
from tests.sim.nat import FULL_CONE, PORT_RESTRICTED, SYMMETRIC
from tests.unit.node.lab import Lab, LabNode

DESK, LAPTOP = "desk.home.test", "laptop.home.test"


def pair(lab: Lab) -> tuple[LabNode, LabNode]:
    laptop, desk = lab.node("laptop"), lab.node("desk")
    lab.run(2.0)
    return laptop, desk


def connected(lab: Lab, laptop: LabNode, desk: LabNode, seconds: float = 2.0) -> None:
    token = laptop.resolve(DESK)
    lab.run(seconds)
    assert laptop.names[token].address == desk.core.common.memory.address


def test_a_node_registers_and_says_up() -> None:
    lab = Lab()
    laptop = lab.node("laptop")
    lab.run(1.0)
    assert laptop.states[-1] == "up"
    assert len(laptop.device) == 1
    assert laptop.device[0].address == laptop.core.common.memory.address
    assert laptop.core.registration.home_relay == "rs1.home.test"
    assert lab.dc.core.clients[LAPTOP].home_relay == "rs1.home.test"


def test_a_domain_that_only_the_account_server_knows_is_served_too() -> None:
    lab = Lab()
    laptop = lab.node("laptop", domains=("lab.test", "home.test"))
    lab.run(1.0)
    assert laptop.core.common.memory.domains == ("home.test",)
    assert laptop.device[-1].domains == ("home.test", "lab.test")


def test_first_contact_is_direct_within_a_second_and_the_name_is_answered() -> None:
    lab = Lab()
    laptop, desk = pair(lab)
    connected(lab, laptop, desk, 1.0)
    assert laptop.way(DESK) == "direct"
    assert desk.way(LAPTOP) == "direct"
    assert lab.dc.core.log == [("ask", DESK), ("ready", DESK)]
    assert laptop.tunnel(DESK).psk_used == "direction"


def test_both_ends_install_keys_that_match() -> None:
    lab = Lab()
    laptop, desk = pair(lab)
    connected(lab, laptop, desk)
    mine = laptop.entries[laptop.tunnel(DESK).number]
    theirs = desk.entries[desk.tunnel(LAPTOP).number]
    assert mine.send is not None
    assert theirs.send is not None
    assert (mine.send.slot, mine.send.key) in [(k.slot, k.key) for k in theirs.receive]
    assert (theirs.send.slot, theirs.send.key) in [(k.slot, k.key) for k in mine.receive]
    assert mine.peer_index in theirs.own_indexes
    assert mine.peer_address == desk.core.common.memory.address


@pytest.mark.parametrize("where", ["laptop", "desk", "both"])
def test_port_restricted_nats_are_punched(where: str) -> None:
    lab = Lab()
    laptop = lab.node("laptop", lab.behind(PORT_RESTRICTED) if where != "desk" else None)
    desk = lab.node("desk", lab.behind(PORT_RESTRICTED) if where != "laptop" else None)
    lab.run(3.0)
    connected(lab, laptop, desk)
    assert laptop.way(DESK) == "direct"
    assert desk.way(LAPTOP) == "direct"


def test_two_symmetric_nats_meet_at_the_relay() -> None:
    lab = Lab()
    laptop = lab.node("laptop", lab.behind(SYMMETRIC))
    desk = lab.node("desk", lab.behind(SYMMETRIC))
    lab.run(3.0)
    connected(lab, laptop, desk)
    assert laptop.way(DESK) == desk.way(LAPTOP) == "relay"
    assert laptop.core.registration.nat.facts
    facts = next(iter(laptop.core.registration.nat.facts.values()))
    assert facts.mapping is NatMapping.ADDRESS_AND_PORT_DEPENDENT


def test_a_coordinator_that_says_relay_only_is_obeyed() -> None:
    lab = Lab()
    laptop, desk = pair(lab)
    lab.dc.core.relay_only = True
    connected(lab, laptop, desk)
    assert laptop.way(DESK) == desk.way(LAPTOP) == "relay"


def test_nat_behaviour_is_named_in_the_words_of_the_standard() -> None:
    lab = Lab()
    cone = lab.node("cone", lab.behind(FULL_CONE))
    restricted = lab.node("restricted", lab.behind(PORT_RESTRICTED))
    public = lab.node("public")
    lab.run(4.0)
    views = [next(iter(n.core.registration.nat.facts.values())) for n in (cone, restricted, public)]
    assert views[0].mapping is NatMapping.ENDPOINT_INDEPENDENT
    assert views[1].mapping is NatMapping.ENDPOINT_INDEPENDENT
    assert views[1].filtering is NatFiltering.UNKNOWN or (
        views[1].filtering is NatFiltering.ADDRESS_AND_PORT_DEPENDENT
    )
    assert views[2].mapping is NatMapping.NONE


def test_an_unknown_name_is_no_name_and_a_foreign_one_is_not_asked_for() -> None:
    lab = Lab()
    laptop, _ = pair(lab)
    nobody, foreign = laptop.resolve("nobody.home.test"), laptop.resolve("www.example.org")
    lab.run(1.0)
    assert laptop.names[nobody].address is None
    assert not laptop.names[nobody].exists
    assert not laptop.names[foreign].exists
    assert ("ask", "www.example.org") not in lab.dc.core.log


def test_the_own_name_needs_nobody() -> None:
    lab = Lab()
    laptop, _ = pair(lab)
    asked = len(lab.dc.core.log)
    token = laptop.resolve(LAPTOP)
    assert laptop.names[token].address == laptop.core.common.memory.address
    assert len(lab.dc.core.log) == asked


def test_a_held_name_gets_its_answer_in_time_when_the_coordinator_is_gone() -> None:
    lab = Lab()
    laptop, _ = pair(lab)
    lab.dc.crash()
    token = laptop.resolve(DESK)
    lab.run(4.6)
    assert laptop.names[token].address is None
    assert laptop.names[token].exists, "SERVFAIL, not NXDOMAIN: nobody said there is no such name"


def substitute(route: RouteInfo, lab: Lab, what: str) -> RouteInfo:
    other = lab.platform.dc("dc.evil.test", "evil.test")
    stranger = lab.platform.node("stranger.home.test", "home.test")
    match what:
        case "name":
            return replace(route, certificate=stranger.certificates[0])
        case "signer":
            return replace(route, dc_sign=other.sign_certificate)
        case "record":
            damaged = bytearray(route.record)
            damaged[20] ^= 1
            return replace(route, record=bytes(damaged))
        case _:
            return replace(route, certificate=route.certificate[:-3])


@pytest.mark.parametrize("what", ["name", "signer", "record", "certificate"])
def test_a_direction_that_does_not_verify_is_refused_and_nothing_is_sent_to_its_candidates(
    what: str,
) -> None:
    lab = Lab()
    laptop, desk = pair(lab)
    lab.tamper = lambda route: substitute(route, lab, what)
    token = laptop.resolve(DESK)
    lab.run(5.0)
    assert laptop.names[token].address is None
    assert laptop.tunnel(DESK) is None or not isinstance(laptop.tunnel(DESK).state, Open)
    assert desk.tunnel(LAPTOP) is None


def test_a_peer_met_before_is_called_although_coordinator_and_memory_of_it_are_all_there_is() -> (
    None
):
    lab = Lab()
    laptop, desk = pair(lab)
    connected(lab, laptop, desk)
    lab.dc.crash()
    laptop.restart()
    lab.run(0.2)
    token = laptop.resolve(DESK)
    lab.run(1.5)
    assert laptop.names[token].address == desk.core.common.memory.address
    assert laptop.tunnel(DESK).psk_used == "resumption"
    assert laptop.way(DESK) == "direct"


def test_down_tells_peers_and_coordinator() -> None:
    lab = Lab()
    laptop, desk = pair(lab)
    connected(lab, laptop, desk)
    laptop.down()
    lab.run(1.0)
    assert ("deregister", "") in lab.dc.core.log
    assert desk.entries == {}
    assert laptop.states[-1] == "down"


@pytest.mark.parametrize("kind", [None, PORT_RESTRICTED, SYMMETRIC])
def test_after_a_move_both_ends_send_on_a_proven_path_and_keep_their_keys(kind: object) -> None:
    lab = Lab()
    laptop, desk = pair(lab)
    connected(lab, laptop, desk)
    before = laptop.entries[laptop.tunnel(DESK).number]
    laptop.active(DESK, sent=10, received=10)
    target = lab.behind(kind) if kind is not None else lab.world.internet  # type: ignore[arg-type]
    laptop.host.move("eth0", target)
    lab.run(0.5)
    tunnel = laptop.tunnel(DESK)
    assert isinstance(tunnel.state, Open)
    assert laptop.entries[tunnel.number].send == before.send
    assert laptop.way(DESK) == "direct"
    assert desk.way(LAPTOP) == "direct"
    assert laptop.paths[tunnel.number][0].path.socket != before.paths[0].path.socket
    entry = laptop.core.journal.entries[-1]
    assert entry.cause.startswith(("new address on eth0", "link down eth0"))
    assert desk.core.journal.entries[-1].id == entry.id


def test_a_move_of_an_idle_peer_is_followed_without_any_data() -> None:
    lab = Lab()
    laptop = lab.node("laptop", lab.behind(PORT_RESTRICTED))
    desk = lab.node("desk", lab.behind(PORT_RESTRICTED))
    lab.run(3.0)
    connected(lab, laptop, desk)
    lab.run(200.0)
    assert type(laptop.tunnel(DESK).state).__name__ == "Asleep"
    laptop.host.move("eth0", lab.behind(PORT_RESTRICTED))
    lab.run(2.0)
    assert desk.tunnel(LAPTOP).peer_seq == 1
    token = desk.resolve(LAPTOP)
    assert desk.names[token].address == laptop.core.common.memory.address


def test_a_relay_that_lost_its_state_gets_its_legs_back_without_coordinator() -> None:
    lab = Lab()
    laptop = lab.node("laptop", lab.behind(SYMMETRIC))
    desk = lab.node("desk", lab.behind(SYMMETRIC))
    lab.run(3.0)
    connected(lab, laptop, desk)
    lab.dc.crash()
    assert lab.rs is not None
    lab.rs.restart()
    lab.run(30.0)
    pong = laptop.ask("ping", name=DESK, count=1, interval=1)
    lab.run(3.0)
    assert pong[0].result["path"]["kind"] == "relay"
    assert pong[0].result["time_ms"] > 0


def test_ping_status_and_why_speak_of_the_path() -> None:
    lab = Lab()
    laptop, _desk = pair(lab)
    pong = laptop.ask("ping", name=DESK, count=2, interval=0.1)
    lab.run(2.0)
    assert [a.result["seq"] for a in pong] == [1, 2]
    assert pong[-1].last
    assert pong[-1].result["path"]["kind"] == "direct"
    status = laptop.ask("status")[0].result
    assert status["state"] == "up"
    assert status["peers"][0]["name"] == DESK
    assert status["peers"][0]["path"]["kind"] == "direct"
    assert status["coordinator"]["reachable"] is True
    assert status["health"] == []
    why = laptop.ask("why", name=DESK)[0].result
    assert any("answered" in fact["text"] for fact in why["facts"])
    assert laptop.ask("why", name="x.home.test")[0].exit_code == 1
    assert laptop.ask("nonsense")[0].exit_code == 2
    resolved = laptop.ask("resolve", name=DESK)[0].result
    assert resolved["vouched_by"]


def test_why_speaks_of_a_name_that_was_refused() -> None:
    lab = Lab()
    laptop = lab.node("laptop")
    lab.run(1.0)
    laptop.resolve("x.home.test")
    lab.run(3.0)
    answered = laptop.ask("why", name="x.home.test")[0]
    assert answered.exit_code == 0
    why = answered.result
    assert why["path"] == {"kind": "none"}
    last = why["facts"][-1]
    assert "the last question for x.home.test failed" in last["text"]
    assert 0 < last["age_s"] <= 3.0
    assert why["advice"] == ["check the name; names are full ones"]
    for number in range(100):
        laptop.resolve(f"x{number}.home.test")
        lab.run(0.5)
    assert len(laptop.core.names.refusals) == 64
    assert laptop.ask("why", name="x.home.test")[0].exit_code == 1
    assert laptop.ask("why", name="x99.home.test")[0].exit_code == 0


def test_the_node_certificate_is_asked_for_anew_in_time() -> None:
    lab = Lab()
    laptop = lab.node("laptop")
    lab.run(1.0)
    leaf = parse_leaf(laptop.identity.certificates[0])
    life = (leaf.not_after_ms - leaf.not_before_ms) / 1000
    renewals = [c for c in laptop.other if type(c).__name__ == "RenewCertificate"]
    assert len(renewals) == 1
    assert life / 4 < renewals[0].after < life / 2


def test_the_same_seed_gives_the_same_datagrams() -> None:
    def run() -> list[bytes]:
        lab = Lab(7)
        laptop, desk = pair(lab)
        connected(lab, laptop, desk)
        return [command.data for _, command in laptop.sent]

    first, second = run(), run()
    assert first == second
    assert len(first) > 10


def test_a_ping_ends_when_its_client_hangs_up() -> None:
    lab = Lab()
    laptop, desk = pair(lab)
    connected(lab, laptop, desk)
    pong = laptop.ask("ping", name=DESK, count=0, interval=0.1)
    lab.run(0.55)
    heard = len(pong)
    assert heard >= 3
    laptop.post(UserAsked(laptop._tokens, "cancel", {}))
    lab.run(2.0)
    assert len(pong) == heard


def test_status_watch_and_followed_handovers_go_on_until_cancelled() -> None:
    lab = Lab()
    laptop, desk = pair(lab)
    connected(lab, laptop, desk)
    shown = laptop.ask("status", watch=True)
    first = laptop._tokens
    followed = laptop.ask("handovers", follow=True)
    lab.run(2.5)
    assert len(shown) == 3
    assert not shown[-1].last
    laptop.host.move("eth0", lab.world.internet)
    lab.run(7.0)
    assert followed[-1].result["handovers"][0]["peer"] == DESK
    laptop.post(UserAsked(first, "cancel", {}))
    count = len(shown)
    lab.run(3.0)
    assert len(shown) == count


def test_a_hostile_coordinator_cannot_make_a_node_flood_a_victim() -> None:
    lab = Lab()
    laptop, _ = pair(lab)
    victim = CandidateField(2, Endpoint("198.18.99.1", 4444))
    lab.tamper = lambda route: replace(
        route,
        candidates=tuple(CandidateField(2, Endpoint("198.18.99.1", 4000 + n)) for n in range(16)),
        grants=(),
    )
    hit = []
    lab.world.internet.taps.append(
        lambda p: hit.append(len(p.data)) if p.destination.host == victim.endpoint.host else None
    )
    begun = lab.world.clock.now
    for _ in range(30):
        laptop.resolve(DESK)
        lab.run(2.0)
    minutes = (lab.world.clock.now - begun) / 60 + 1
    assert hit
    openers = 16 * 3 * 32 * 30
    assert sum(hit) <= DIRECTION_BYTES * minutes + openers
    assert laptop.core.common.counters["contact_budget"] > 0 or sum(hit) < DIRECTION_BYTES
