"""A machine sleeps, and wakes up where it was or elsewhere: what the first packet waits for."""

from __future__ import annotations

import pytest

from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage

LINK_UP_AFTER = 0.5  # a link comes up a moment after the machine, seconds
RTT = 0.048  # over the relay: 10 ms of each node's link and 2 ms of the relay's, twice
HOURS = 3600.0


def pair(at: NatKind | str = PORT_RESTRICTED) -> tuple[Stage, SimNode, SimNode]:
    stage = Stage(1)
    stage.domain()
    network, families = stage.place(at)
    laptop = stage.node("laptop", network, families=families)
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    stage.first_answer(laptop, desk)
    stage.run(3.0)
    return stage, laptop, desk


@pytest.mark.parametrize(
    ("hours", "to"),
    [(10.0 / 3600, SYMMETRIC), (10.0 / 3600, "v6"), (10.0, PORT_RESTRICTED)],
    ids=["10 s", "10 s, v6", "10 h"],
)
def test_wake_on_another_network(hours: float, to: NatKind | str) -> None:
    stage, laptop, desk = pair()
    laptop.host.suspend()
    laptop.host.detach("eth0")
    stage.run(hours * HOURS)
    laptop.host.resume()
    stage.run(LINK_UP_AFTER)
    network, families = stage.place(to)
    laptop.host.attach("wlan0", network, NODE_LINK, families=families)
    took = stage.fresh_answer(laptop, desk, 2.0)
    assert took <= 1.5 * RTT + 0.150
    assert laptop.inner.bad == desk.inner.bad == []


@pytest.mark.parametrize("seconds", [10.0, 600.0])
@pytest.mark.parametrize("sender", ["laptop", "desk"])
def test_wake_on_the_same_network_whose_nat_forgot_us(seconds: float, sender: str) -> None:
    """No event of the network: the boot clock alone tells, and who calls the sleeper gets him."""
    stage, laptop, desk = pair()
    laptop.host.suspend()
    stage.run(seconds)
    gateway = laptop.host.interfaces["eth0"].network.gateway
    assert gateway is not None
    gateway.rebind(new_address=True)
    laptop.host.resume()
    stage.run(0.1)
    ends = (laptop, desk) if sender == "laptop" else (desk, laptop)
    assert stage.fresh_answer(*ends, 2.0) <= 1.5 * RTT + 0.150


def test_wake_without_any_coordinator() -> None:
    stage, laptop, desk = pair()
    stage.domains["home.test"].dc.crash()
    laptop.host.suspend()
    laptop.host.detach("eth0")
    stage.run(1 * HOURS)
    laptop.host.resume()
    network, _ = stage.place(PORT_RESTRICTED)
    laptop.host.attach("wlan0", network, NODE_LINK)
    assert stage.fresh_answer(laptop, desk, 2.0) <= 1.5 * RTT + 0.150


def test_a_tunnel_in_use_before_a_short_sleep_is_moved_on_waking_without_any_packet() -> None:
    stage, laptop, desk = pair()
    stage.stream(desk, laptop, 3000, 0.010)
    stage.run(1.0)
    laptop.host.suspend()
    stage.run(5.0)
    gateway = laptop.host.interfaces["eth0"].network.gateway
    assert gateway is not None
    gateway.rebind(new_address=True)
    laptop.host.resume()
    woke = stage.world.clock.now
    stage.run(3.0)
    first = min(at for at in laptop.inner.times("udp").values() if at > woke)
    assert first - woke <= 0.1
    entry = laptop.ask("handovers")[-1].result["handovers"][-1]
    assert entry["cause"] == "woke after 5 s"


def test_a_laptop_that_wakes_says_little_to_peers_that_it_does_not_talk_to() -> None:
    stage, laptop, _ = pair()
    stage.run(300.0)
    laptop.host.suspend()
    stage.run(600.0)
    sent = laptop.sent_bytes
    laptop.host.resume()
    stage.run(2.0)
    assert laptop.sent_bytes - sent <= 4000, "servers, and nobody else"


def test_an_answer_that_waited_for_the_process_measures_no_round_trip() -> None:
    """The process stands still (SIGSTOP, a debugger) while servers are asked for a sign of life:
    the answers lie in the kernel's buffers, and say nothing of how far the servers are."""
    stage, laptop, _desk = pair()
    uplinks = [laptop.core.registration.uplink, *laptop.core.relays.uplinks()]
    before = [uplink.rtt for uplink in uplinks]
    assert stage.world.run(60.0, lambda: len(laptop.core.prober.attempts()) >= len(uplinks))
    laptop.stand_still(100.0)
    stage.run(130.0)
    assert all(uplink.up for uplink in uplinks)
    assert [uplink.rtt for uplink in uplinks] == pytest.approx(before, abs=0.010)
