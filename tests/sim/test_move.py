"""A node moves while packets flow, or while none do: what is lost, for how long, who follows."""

from __future__ import annotations

import pytest

from ntmd.node.tunnel import Asleep, Open
from ntmd.proto.frame import Kind
from ntmd.proto.types import Endpoint
from tests.sim.link import Packet, Shape
from tests.sim.nat import FULL_CONE, PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage

STEP = 0.010  # between numbered packets, seconds
PLACES: dict[str, NatKind | str] = {
    "public": "public v4",
    "full-cone": FULL_CONE,
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
}


def pair(
    laptop_at: NatKind | str = PORT_RESTRICTED,
    desk_at: NatKind | str = PORT_RESTRICTED,
    *,
    seed: int = 1,
    shape: Shape = NODE_LINK,
) -> tuple[Stage, SimNode, SimNode]:
    """Laptop and desk, connected and settled."""
    stage = Stage(seed)
    stage.domain()
    nodes: list[SimNode] = []
    for label, at in (("laptop", laptop_at), ("desk", desk_at)):
        network, families = stage.place(at)
        nodes.append(stage.node(label, network, families=families, shape=shape))
    stage.all_up()
    # where a fifth of all pings and answers is lost, six in a row are now and then
    stage.first_answer(nodes[0], nodes[1], within=12.0 if shape.loss else 6.0)
    stage.run(2.0)
    return stage, nodes[0], nodes[1]


def move(stage: Stage, node: SimNode, kind: NatKind | str, shape: Shape = NODE_LINK) -> float:
    """A hard move of ``eth0`` into a network never seen before; returns its instant."""
    network, families = stage.place(kind)
    node.host.detach("eth0")
    node.host.attach("eth0", network, shape, families=families)
    return stage.world.clock.now


def delivered(receiver: SimNode) -> dict[int, float]:
    return receiver.inner.times("udp")


def gap(receiver: SimNode, since: float) -> float:
    """Longest hole between numbered packets, minus one interval (what the sender itself waits)."""
    return receiver.inner.longest_gap("udp", since) - STEP


@pytest.mark.parametrize("desk_at", PLACES)
@pytest.mark.parametrize("to", PLACES)
def test_hard_move_while_the_mover_sends(to: str, desk_at: str) -> None:
    stage, laptop, desk = pair(desk_at=PLACES[desk_at])
    stage.stream(laptop, desk, 400, STEP)
    stage.run(1.0)
    at = move(stage, laptop, PLACES[to])
    stage.run(4.0)
    assert gap(desk, at - 0.1) <= 0.100
    assert len(delivered(desk)) >= 395
    assert desk.inner.bad == []


@pytest.mark.parametrize("desk_at", PLACES)
@pytest.mark.parametrize("to", PLACES)
def test_hard_move_of_a_silent_mover_while_its_peer_sends(to: str, desk_at: str) -> None:
    stage, laptop, desk = pair(desk_at=PLACES[desk_at])
    stage.stream(desk, laptop, 400, STEP)
    stage.run(1.0)
    at = move(stage, laptop, PLACES[to])
    stage.run(4.0)
    assert gap(laptop, at - 0.1) <= 0.150, "one relay round trip after the address is usable"
    assert len(delivered(laptop)) >= 385


def test_keys_address_and_tunnel_stay_and_the_old_address_is_left_at_once() -> None:
    stage, laptop, desk = pair()
    address = laptop.address
    before = laptop.core.tunnels.by_name(desk.name)
    keys = dict(before.sessions)
    old = laptop.host.interfaces["eth0"].addresses[4]
    stage.stream(laptop, desk, 100, STEP)
    stage.run(0.5)
    seen: list[Packet] = []
    at = move(stage, laptop, PORT_RESTRICTED)
    laptop.host.interfaces["eth0"].network.taps.append(lambda packet: seen.append(packet))
    stage.run(1.5)
    assert laptop.address == address
    assert laptop.core.tunnels.by_name(desk.name) is before
    assert {n: s.data_out for n, s in keys.items()} == {
        n: before.sessions[n].data_out for n in keys
    }, "the keys of before the move are still in use"
    assert seen
    assert all(packet.source.host != old for packet in seen)
    assert stage.world.clock.now > at


def test_both_ends_write_the_same_entry_and_its_figures_are_those_of_the_wire() -> None:
    stage, laptop, desk = pair()
    stage.stream(desk, laptop, 600, STEP)
    stage.run(1.0)
    at = move(stage, laptop, PORT_RESTRICTED)
    stage.run(8.0)
    [mine] = laptop.ask("handovers")[-1].result["handovers"]
    [theirs] = desk.ask("handovers")[-1].result["handovers"]
    assert mine["id"] == theirs["id"]
    assert mine["cause"] == "new address on eth0"
    assert theirs["cause"] == "peer moved: network changed"
    measured = laptop.inner.longest_gap("udp", at - 0.1) * 1000
    assert abs(mine["gap_ms"] - measured) <= 20
    lost = 600 - len(delivered(laptop))
    assert mine["lost"] == lost
    assert mine["first_out_ms"] is not None
    assert mine["first_in_ms"] >= mine["first_out_ms"]
    assert mine["to"].startswith("direct via eth0")
    assert "new address on eth0" in mine["evidence"]
    assert "send on relay" in mine["decision"]
    assert theirs["evidence"].startswith("sealed Move 1 came ")
    assert (mine["own"], theirs["own"]) == (True, False)
    assert theirs["gap_out_ms"] == round(mine["gap_in_ms"])
    assert (theirs["lost_out"], theirs["duplicated_out"]) == (lost, mine["duplicated"])
    assert (mine["lost_out"], mine["gap_out_ms"]) == (0, None), "the laptop sent nothing"


def test_followers_hear_of_a_move_once_and_with_the_other_end_s_figures() -> None:
    stage, laptop, desk = pair()
    followed = desk.ask("handovers", follow=True)
    stage.stream(desk, laptop, 300, STEP)
    stage.run(1.0)
    move(stage, laptop, PORT_RESTRICTED)
    stage.run(9.0)
    told = [answer.result["handovers"] for answer in followed]
    assert [len(entries) for entries in told] == [0, 1]
    assert told[1][0]["gap_out_ms"] > 0


def test_a_peer_that_dies_within_the_move_is_not_waited_for() -> None:
    stage, laptop, desk = pair()
    followed = laptop.ask("handovers", follow=True)
    move(stage, laptop, PORT_RESTRICTED)
    stage.run(1.0)
    desk.crash()
    stage.run(9.0)
    assert followed[-1].result["handovers"][0]["lost_out"] is None


def test_an_idle_tunnel_follows_a_move_and_answers_its_peer_at_once() -> None:
    stage, laptop, desk = pair()
    stage.run(400.0)
    assert isinstance(laptop.core.tunnels.by_name(desk.name).state, Asleep)
    move(stage, laptop, PORT_RESTRICTED)
    stage.run(5.0)
    assert stage.first_answer(desk, laptop) <= 0.300


def test_idle_for_three_hours_then_moved_then_called() -> None:
    stage, laptop, desk = pair()
    sent = laptop.sent_bytes
    stage.run(3 * 3600.0)
    assert laptop.sent_bytes - sent <= 3 * 15_000, "half of 30 kB an hour, the rest is answers"
    move(stage, laptop, SYMMETRIC)
    stage.run(5.0)
    assert stage.first_answer(desk, laptop) <= 0.300


def test_both_ends_move_at_once_and_meet_at_the_relay() -> None:
    stage, laptop, desk = pair()
    stage.stream(laptop, desk, 500, STEP)
    stage.stream(desk, laptop, 500, STEP)
    stage.run(1.0)
    at = move(stage, laptop, PORT_RESTRICTED)
    move(stage, desk, PORT_RESTRICTED)
    stage.run(5.0)
    assert gap(desk, at - 0.1) <= 0.300
    assert gap(laptop, at - 0.1) <= 0.300
    assert stage.path_kind(laptop, desk) == stage.path_kind(desk, laptop) == "direct"


def test_to_the_other_address_family_and_back() -> None:
    stage, laptop, desk = pair()
    stage.stream(laptop, desk, 900, STEP)
    stage.run(1.0)
    at = move(stage, laptop, "v6")
    stage.run(3.0)
    assert gap(desk, at - 0.1) <= 0.300
    assert stage.path_kind(laptop, desk) == "relay"
    at = move(stage, laptop, PORT_RESTRICTED)
    stage.run(5.0)
    assert gap(desk, at - 0.1) <= 0.300
    assert stage.path_kind(laptop, desk) == stage.path_kind(desk, laptop) == "direct"


def test_a_move_needs_no_coordinator() -> None:
    stage, laptop, desk = pair()
    stage.domains["home.test"].dc.crash()
    stage.stream(laptop, desk, 500, STEP)
    stage.run(1.0)
    at = move(stage, laptop, PORT_RESTRICTED)
    stage.run(5.0)
    assert gap(desk, at - 0.1) <= 0.100
    stage.run(10.0)
    assert laptop.state == "degraded"
    assert stage.path_kind(laptop, desk) == "direct"


def test_a_move_towards_a_public_peer_needs_no_server_at_all() -> None:
    stage, laptop, desk = pair(desk_at="public v4")
    stage.domains["home.test"].dc.crash()
    stage.domains["home.test"].rs.crash()
    stage.stream(laptop, desk, 500, STEP)
    stage.run(1.0)
    at = move(stage, laptop, PORT_RESTRICTED)
    stage.run(5.0)
    assert gap(desk, at - 0.1) <= 0.100


@pytest.mark.parametrize("seed", range(1, 9))
def test_moves_over_bad_links_arrive_in_the_end(seed: int) -> None:
    bad = Shape(delay=0.020, jitter=0.005, loss=0.15, duplicate=0.05, reorder=0.05)
    stage, laptop, desk = pair(seed=seed, shape=bad)
    for kind in (SYMMETRIC, FULL_CONE, PORT_RESTRICTED):
        stage.stream(laptop, desk, 300, STEP)
        move(stage, laptop, kind, bad)
        stage.run(4.0)
        got = delivered(desk)
        assert len([n for n in got if n >= len(laptop.inner.sent) - 100]) >= 50, kind
    assert desk.inner.copies("udp") == 0, "the replay window drops every copy"
    assert laptop.inner.bad == desk.inner.bad == []


def test_an_outage_of_a_minute_ends_with_the_new_link() -> None:
    stage, laptop, desk = pair()
    stage.stream(desk, laptop, 8000, STEP)
    stage.run(1.0)
    laptop.host.detach("eth0")
    stage.run(60.0)
    assert laptop.state == "offline"
    network, _ = stage.place(PORT_RESTRICTED)
    at = stage.world.clock.now
    laptop.host.attach("wlan0", network, NODE_LINK)
    stage.run(5.0)
    first = min(t for t in delivered(laptop).values() if t > at)
    assert first - at <= 0.300
    entry = laptop.ask("handovers")[-1].result["handovers"][-1]
    assert entry["cause"] == "link down eth0"


def test_when_one_of_two_links_dies_the_other_carries_on() -> None:
    stage, laptop, desk = pair()
    network, _ = stage.place(PORT_RESTRICTED)
    laptop.host.attach("wwan0", network, NODE_LINK, metric=600)
    stage.stream(laptop, desk, 700, STEP)
    stage.run(3.0)
    second = laptop.core.tunnels.by_name(desk.name).paths.primary
    assert laptop.core.underlay.interface(second.socket) == "eth0"
    at = stage.world.clock.now
    laptop.host.detach("eth0")
    stage.run(4.0)
    assert gap(desk, at - 0.1) <= 0.050, "its paths were validated before"
    assert stage.path_kind(laptop, desk) == "direct"


# ------------------------------------------------------------------ what must not move anything


def test_copies_and_reordering_never_change_the_path() -> None:
    wild = Shape(delay=0.010, jitter=0.010, duplicate=0.3, reorder=0.2, reorder_by=0.05)
    stage, laptop, desk = pair(shape=wild)
    switched = _switches(desk)
    stage.stream(laptop, desk, 3000, 0.002)
    stage.run(8.0)
    assert switched == []
    assert desk.ask("handovers")[-1].result["handovers"] == []
    assert len(delivered(desk)) == 3000


def _switches(node: SimNode) -> list[tuple[Endpoint, ...]]:
    """From now on: every change of what the plane sends on."""
    seen: list[tuple[Endpoint, ...]] = []
    before = node.plane.command
    last: list[tuple[Endpoint, ...]] = []

    def command(value: object) -> None:
        paths = getattr(value, "paths", None)
        if paths is not None:
            ways = tuple(each.path for each in paths)
            if last and last[-1] != ways:
                seen.append(ways)
            last.append(ways)
        before(value)

    node.plane.command = command  # type: ignore[method-assign, assignment]
    return seen


def test_a_racer_that_forwards_faster_from_its_own_address_is_not_followed_for_long() -> None:
    stage, laptop, desk = pair(desk_at="public v4")
    internet = stage.world.internet
    racer = Endpoint("198.18.77.77", 7777)
    desk_at = Endpoint(desk.host.interfaces["eth0"].addresses[4], 0)
    raced: list[int] = []

    class Racer:
        def arrive(self, packet: Packet) -> None:
            """Whatever is sent to the racer ends there."""

    internet.join(racer.host, Racer())

    def tap(packet: Packet) -> bool | None:
        genuine = packet.source.host != racer.host and packet.destination.host == desk_at.host
        if genuine and packet.data[:1] == bytes((Kind.DATA,)):
            raced.append(1)
            copy = Packet(racer, packet.destination, packet.data)
            internet.forward(copy)
            stage.world.clock.after(0.005, lambda: internet.forward(_marked(packet)))
            return False
        return None

    def _marked(packet: Packet) -> Packet:
        internet.taps.remove(tap)
        try:
            internet.forward(packet)
        finally:
            internet.taps.append(tap)
        return Packet(racer, Endpoint("198.18.0.254", 9), b"")

    internet.taps.append(tap)
    stage.stream(laptop, desk, 500, STEP)
    stage.stream(desk, laptop, 500, STEP)
    stage.run(6.0)
    assert len(raced) > 400
    primary = desk.core.tunnels.by_name(laptop.name).paths.primary
    assert primary.remote != racer
    assert desk.core.common.counters["suspected_forwarder"] == 1
    assert len(delivered(laptop)) == 500, "no datagram of the peer is lost to the racer"
    assert len(delivered(desk)) == 500
    assert any(item["code"] == "suspected-forwarder" for item in stage.status(desk)["health"])


def test_a_rebound_nat_is_followed() -> None:
    stage, laptop, desk = pair(desk_at="public v4")
    stage.stream(laptop, desk, 600, STEP)
    stage.stream(desk, laptop, 600, STEP)
    stage.run(1.0)
    at = stage.world.clock.now
    router = stage.world.routers[0]
    router.rebind(new_address=True)
    stage.run(6.0)
    assert gap(desk, at - 0.1) <= 0.050, "the mover's own packets are not affected"
    assert gap(laptop, at - 0.1) <= 0.150
    primary = desk.core.tunnels.by_name(laptop.name).paths.primary
    assert router.nat is not None
    assert primary.remote.host == router.nat.address
    assert desk.core.common.counters["suspected_forwarder"] == 0


def test_replayed_and_reordered_moves_leave_the_greatest_sequence() -> None:
    stage, laptop, desk = pair()
    recorded: list[Packet] = []
    stage.world.internet.taps.append(lambda packet: recorded.append(packet))
    for kind in (PORT_RESTRICTED, FULL_CONE):
        move(stage, laptop, kind)
        stage.run(3.0)
    stage.world.internet.taps.clear()
    tunnel = desk.core.tunnels.by_name(laptop.name)
    primary, seq = tunnel.paths.primary, tunnel.peer_seq
    assert seq == 2
    control = [p for p in recorded if p.data[:1] == bytes((Kind.CONTROL,))]
    for number, packet in enumerate(reversed(control)):
        stage.world.clock.after(number * 0.001, lambda p=packet: stage.world.internet.forward(p))  # type: ignore[misc]
    stage.run(5.0)
    assert tunnel.peer_seq == seq
    assert tunnel.paths.primary == primary
    assert isinstance(tunnel.state, Open)


def test_one_way_traffic_is_never_doubted_until_the_path_eats_it() -> None:
    stage, laptop, desk = pair()
    stage.stream(laptop, desk, 3000, 0.020)
    stage.run(60.0)
    assert laptop.core.common.counters["path_doubted"] == 0
    assert desk.inner.copies("udp") == 0
    stage.stream(laptop, desk, 500, STEP)
    stage.run(1.0)
    eaten = laptop.core.tunnels.by_name(desk.name).paths.primary.remote

    def tap(packet: Packet) -> bool | None:
        return False if eaten.host == packet.destination.host else None

    at = stage.world.clock.now
    stage.world.internet.taps.append(tap)
    stage.run(4.0)
    assert laptop.core.common.counters["path_doubted"] >= 1
    assert stage.path_kind(laptop, desk) == "relay"
    assert gap(desk, at - 0.1) <= 0.9


def test_the_same_seed_gives_the_same_trace() -> None:
    def run() -> str:
        stage, laptop, desk = pair(seed=11)
        stage.stream(laptop, desk, 100, STEP)
        move(stage, laptop, SYMMETRIC)
        stage.run(3.0)
        return stage.world.trace.digest()

    assert run() == run()


@pytest.mark.parametrize("outage", [0.15, 0.25, 0.4, 0.8, 1.6])
def test_a_peer_that_doubted_the_old_path_takes_the_new_direct_one(outage: float) -> None:
    """No link for a while: the peer, which sends, doubts the old path before the Move comes; it
    must not wait for that doubt to end, nor forget to look at the direct way afterwards."""
    stage, laptop, desk = pair()
    stage.stream(laptop, desk, 500, STEP)
    stage.stream(desk, laptop, 500, STEP)
    stage.run(1.0)
    laptop.host.detach("eth0")
    stage.run(outage)
    network, families = stage.place(PORT_RESTRICTED)
    laptop.host.attach("eth0", network, NODE_LINK, families=families)
    at = stage.world.clock.now
    stage.run(1.0)
    for one, other in ((laptop, desk), (desk, laptop)):
        primary = one.core.tunnels.by_name(other.name).paths.primary
        assert primary is not None
        assert not primary.relayed, f"{one.name} stays on the relay"
    assert gap(laptop, at) <= 0.150


def test_a_forged_source_of_a_move_gets_no_more_than_three_times_what_it_sent() -> None:
    """Somebody sends the mover's Move on with a victim's address before it arrives (rule C6)."""
    stage, laptop, desk = pair(desk_at="public v4")
    internet = stage.world.internet
    victim = Endpoint("198.18.77.78", 7777)
    desk_host = desk.host.interfaces["eth0"].addresses[4]
    forged: list[int] = []
    struck: list[int] = []

    class Victim:
        def arrive(self, packet: Packet) -> None:
            struck.append(packet.size)

    internet.join(victim.host, Victim())

    def tap(packet: Packet) -> bool | None:
        home = laptop.host.interfaces["eth0"].network.gateway
        assert home is not None
        assert home.nat is not None
        if packet.source.host != home.nat.address or packet.destination.host != desk_host:
            return None
        copy = Packet(victim, packet.destination, packet.data)
        forged.append(copy.size)
        desk.host.interfaces["eth0"].down.carry(copy, desk.host.deliver)
        return False

    for n in range(1500):
        stage.world.clock.after(n * 0.002, lambda n=n: desk.inner.udp(laptop.address, n, 1200))  # type: ignore[misc]
    stage.run(1.0)
    at = move(stage, laptop, PORT_RESTRICTED)
    internet.taps.append(tap)
    stage.run(3.0)
    assert forged
    assert struck
    assert sum(struck) <= 3 * sum(forged)
    assert gap(laptop, at - 0.1) <= 0.150, "the relay leg carries meanwhile"


def test_what_an_outage_ate_is_sent_once_more_when_it_ends() -> None:
    """Rule S14: the newest packets of a slow flow arrive at once, and none arrives twice."""
    stage, laptop, desk = pair()
    stage.stream(desk, laptop, 60, 0.5)
    stage.run(5.2)
    laptop.host.detach("eth0")
    stage.run(3.0)
    network, _ = stage.place(PORT_RESTRICTED)
    at = stage.world.clock.now
    laptop.host.attach("wlan0", network, NODE_LINK)
    stage.run(0.250)
    late = [n for n, when in delivered(laptop).items() if when > at]
    assert len(late) >= 4, "of the six that were sent into the void"
    stage.run(25.0)
    assert laptop.inner.copies("udp") == 0
    assert laptop.plane.drops.get("in_replayed", 0) == 0
