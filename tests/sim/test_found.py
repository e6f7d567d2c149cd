"""Stories that the random histories found (tests/model), each reduced to what mattered."""

from __future__ import annotations

import pytest

from tests.sim.nat import FULL_CONE, PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.servers import SimServer
from tests.sim.story import NODE_LINK, Stage


def pair(
    one_at: NatKind | str, two_at: NatKind | str, *, second_relay: bool = False
) -> tuple[Stage, SimNode, SimNode, SimServer | None]:
    """Two nodes that have just met."""
    stage = Stage(1)
    stage.domain()
    relay = stage.relay("rs2") if second_relay else None
    nodes = []
    for label, at in (("one", one_at), ("two", two_at)):
        network, families = stage.place(at)
        nodes.append(stage.node(label, network, families=families))
    stage.all_up()
    one, two = nodes
    stage.first_answer(one, two)
    return stage, one, two, relay


def both_carry(stage: Stage, one: SimNode, two: SimNode, within: float) -> float:
    """Seconds until a fresh ping was answered both ways, ten a second."""
    begun = stage.world.clock.now
    first = 1000 + max(len(one.inner.sent), len(two.inner.sent))
    ends = ((one, two), (two, one))
    for number in range(int(within * 10)):
        for sender, to in ends:
            sender.inner.ping(to.address, first + number)
        heard = lambda: all(max(s.inner.times("echo"), default=0) >= first for s, _ in ends)  # noqa: E731
        if stage.world.run(0.1, heard):
            return stage.world.clock.now - begun
    raise AssertionError(f"not carried in {within} s: {stage.explain(one, two)}")


def hard_move(stage: Stage, node: SimNode, to: NatKind | str) -> None:
    network, families = stage.place(to)
    node.host.detach("eth0")
    node.host.attach("eth0", network, NODE_LINK, families=families)


@pytest.mark.parametrize("crashed", [0, 1])
def test_a_node_that_crashes_right_after_a_handshake_is_followed_to_its_new_keys(
    crashed: int,
) -> None:
    """Rule C12 chooses between two sessions that both ends hold; a crashed end holds one."""
    stage, one, two, _ = pair("public v4", FULL_CONE)
    node = (one, two)[crashed]
    node.restart()
    hard_move(stage, node, "v6 open")
    both_carry(stage, one, two, 3.0)


def test_a_nat_that_rebinds_right_after_a_move_is_followed() -> None:
    """No implicit move follows an explicit one for 2 s (C6), yet the old mapping is dead."""
    stage, one, two, _ = pair(PORT_RESTRICTED, "public v4")
    hard_move(stage, one, FULL_CONE)
    both_carry(stage, one, two, 1.0)
    stage.run(0.6)
    gateway = one.host.interfaces["eth0"].network.gateway
    assert gateway is not None
    gateway.rebind()
    both_carry(stage, one, two, 2.0)


@pytest.mark.parametrize("rebound", [0, 1])
def test_a_nat_that_rebinds_while_the_relay_carries_is_told_to_the_relay(rebound: int) -> None:
    stage, one, two, _ = pair(SYMMETRIC, PORT_RESTRICTED)
    stage.run(5.0)
    assert stage.path_kind(one, two) == "relay"
    gateway = (one, two)[rebound].host.interfaces["eth0"].network.gateway
    assert gateway is not None
    gateway.rebind(new_address=True)
    both_carry(stage, one, two, 2.0)


def test_a_relay_dies_and_the_pair_goes_on_over_the_second_one_without_a_coordinator() -> None:
    stage, one, two, second = pair(SYMMETRIC, PORT_RESTRICTED, second_relay=True)
    stage.run(5.0)
    domain = stage.domains["home.test"]
    domain.dc.crash()
    home = one.core.relays.home_name
    (domain.rs if home == domain.rs.label else second or domain.rs).crash()
    both_carry(stage, one, two, 4.0)
    hard_move(stage, two, PORT_RESTRICTED)
    both_carry(stage, one, two, 4.0)
    stage.run(10.0)
    both_carry(stage, one, two, 0.2)
    assert one.core.relays.home_name != home


def test_a_dead_relay_is_found_out_although_every_doubt_announces_anew() -> None:
    stage, one, two, _ = pair(SYMMETRIC, PORT_RESTRICTED, second_relay=True)
    stage.run(5.0)
    domain = stage.domains["home.test"]
    domain.dc.crash()
    domain.rs.crash()
    for _ in range(10):  # moves too: each takes a new sequence
        hard_move(stage, two, PORT_RESTRICTED)
        both_carry(stage, one, two, 4.0)
        stage.run(1.0)
    assert not two.core.relays.by_name[domain.rs.label].uplink.up


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_direction_that_only_one_end_got_does_not_part_the_pair(elsewhere: bool) -> None:
    """Nobody is left to ask when both restart: they must still hold a leg in common.

    ``elsewhere``: the newer direction names another relay than the older one, and that one is gone
    afterwards.
    """
    stage, one, two, _ = pair(SYMMETRIC, PORT_RESTRICTED)
    stage.run(5.0)
    domain = stage.domains["home.test"]
    other = stage.relay("rs2") if elsewhere else None
    domain.dc.restart()
    if other is not None:
        domain.rs.crash()
        stage.run(120.0)
    stage.run(5.0)
    coordinator = domain.dc.host.interfaces["eth0"].addresses[4]
    down = one.host.interfaces["eth0"].down
    down.script = lambda packet: 0 if packet.source.host == coordinator else None
    before = two.core.tunnels.all()[0].directed
    one.core.calls.directions.ask(two.name, b"", one.host.now)
    one.post(one.host.network_state())
    stage.run(5.0)
    assert two.core.tunnels.all()[0].directed is not before
    domain.dc.crash()
    if other is not None:
        domain.rs.start()
        other.crash()
    down.script = None
    both_carry(stage, one, two, 4.0)
    one.restart()
    two.restart()
    both_carry(stage, one, two, 4.0)


def test_a_leg_move_of_an_older_association_does_not_hold_up_the_next_ones() -> None:
    """It waits in the queue while the relay restarts, and reaches it under the new session."""
    stage, one, two, _ = pair(SYMMETRIC, PORT_RESTRICTED)
    stage.run(5.0)
    relay = stage.domains["home.test"].rs
    for _ in range(3):
        one.core.relays.renew(relay.label, one.host.now)
    relay.crash()
    stage.run(0.1)
    one.core.relays.renew(relay.label, one.host.now)
    one.post(one.host.network_state())
    relay.start()
    both_carry(stage, one, two, 4.0)
    stage.run(2.0)
    hard_move(stage, one, SYMMETRIC)
    both_carry(stage, one, two, 2.0)


def test_a_call_over_a_relay_that_no_longer_knows_our_source_tells_it() -> None:
    """The peer said Close and came back; at that very moment the own NAT maps anew."""
    stage, one, two, _ = pair("v6", PORT_RESTRICTED)
    one.down()
    stage.run(0.2)
    one.restart()
    gateway = two.host.interfaces["eth0"].network.gateway
    assert gateway is not None
    gateway.rebind()
    both_carry(stage, one, two, 3.0)


@pytest.mark.parametrize("dead", [130.0, 700.0])
def test_silent_servers_are_called_before_their_time_when_somebody_waits_for_a_peer(
    dead: float,
) -> None:
    """A node came up on a link that carried nothing for minutes: its pauses have grown long."""
    stage, one, two, _ = pair(PORT_RESTRICTED, SYMMETRIC)
    interface = one.host.interfaces["eth0"]
    interface.up.script = interface.down.script = lambda _: 0
    one.restart()
    stage.run(20.0 + dead)
    one.inner.ping(two.address, 900)
    stage.run(5.0)
    interface.up.script = interface.down.script = None
    both_carry(stage, one, two, 12.0)


@pytest.mark.parametrize("sources", [4, 5, 6])
def test_a_relay_does_not_ask_without_end_where_a_node_speaks_from_many_sources(
    sources: int,
) -> None:
    """It keeps four: what answers from a fifth must not be asked again for having answered."""
    stage = Stage(1)
    stage.domain()
    home = stage.world.home(PORT_RESTRICTED, v6=True)
    one = stage.node("one", home)
    for number in range(1, sources // 2):
        network = stage.world.home(PORT_RESTRICTED, v6=True)
        one.host.attach(f"wlan{number}", network, NODE_LINK, metric=100 + number)
    if sources % 2:
        network = stage.world.home(PORT_RESTRICTED)
        one.host.attach("wlan9", network, NODE_LINK, metric=200)
    stage.all_up()
    for _ in range(4):
        for router in stage.world.routers:
            router.rebind()
        one.post(one.host.network_state())
        stage.run(30.0)
    turns = one.turns
    stage.run(60.0)
    assert one.turns - turns < 100
