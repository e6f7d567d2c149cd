"""Networks that let no UDP pass: the relay leg over TLS, and back (rule S12)."""

from __future__ import annotations

import pytest

from ntmd.proto.timing import STREAM_QUEUE, STREAM_UNPROVEN
from ntmd.proto.types import Endpoint
from tests.sim.link import Packet
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, TLS_PORT, Stage
from tests.sim.tcp import BUFFER
from tests.sim.world import Network

BYTES_GO_ON = 2.0  # the streams of the world repeat themselves this often at least, seconds


class UdpEater:
    """A network's firewall that drops all UDP while it is ``on``."""

    def __init__(self, network: Network, on: bool = True) -> None:
        self.on = on
        self.eaten = 0
        network.taps.append(self._pass)

    def _pass(self, packet: Packet) -> bool | None:
        if self.on and not packet.tcp:
            self.eaten += 1
            return False
        return None


def transport(stage: Stage, node: SimNode, peer: SimNode) -> tuple[str, str]:
    """Kind and transport of the path, as ``ntmd status`` says."""
    entry = next(e for e in stage.status(node)["peers"] if e["name"] == peer.name)
    return str(entry["path"]["kind"]), str(entry["path"].get("transport"))


def udp_words(stage: Stage, node: SimNode) -> list[str]:
    """``open`` or ``blocked`` for each interface, as ``ntmd netcheck`` says."""
    answers = node.ask("netcheck")
    stage.run(5)
    return [str(row["udp"]) for row in answers[-1].result["underlay"]]


def ping(stage: Stage, node: SimNode, peer: SimNode) -> float:
    """Seconds until a fresh ping (repeated each second) is answered."""
    begun = stage.world.clock.now

    def answered() -> bool:
        return any(at > begun for at in node.inner.times("echo", peer.address).values())

    for _ in range(6):
        number = 1000 + len(node.inner.sent)
        node.inner.ping(peer.address, number)
        if stage.world.run(1.0, answered):
            return stage.world.clock.now - begun
    raise AssertionError(f"no answer: {stage.explain(node, peer)}")


def arrived(node: SimNode) -> dict[int, float]:
    """When each numbered UDP packet first arrived."""
    return node.inner.times("udp")


def blocked_pair(seed: int = 1, *, both: bool = False) -> tuple[Stage, SimNode, SimNode, UdpEater]:
    """A laptop in a network that eats UDP, and a desk in an ordinary (or such a) one."""
    stage = Stage(seed)
    stage.domain(tls=True)
    hotel, office = stage.world.home(PORT_RESTRICTED), stage.world.home(PORT_RESTRICTED)
    eater = UdpEater(hotel)
    if both:
        UdpEater(office)
    laptop, desk = stage.node("laptop", hotel), stage.node("desk", office)
    stage.all_up()
    return stage, laptop, desk, eater


def test_udp_blocked_from_the_start() -> None:
    stage, laptop, desk, eater = blocked_pair()
    assert eater.eaten
    up = next(at for at, state in laptop.states if state == "up")
    assert up < 1.0, laptop.states
    assert ping(stage, laptop, desk) < 0.5
    stage.run(3)
    assert ping(stage, desk, laptop) < 0.2
    assert transport(stage, laptop, desk) == ("relay", "tls")
    assert transport(stage, desk, laptop) == ("relay", "udp")
    assert udp_words(stage, laptop) == ["blocked"]
    assert udp_words(stage, desk) == ["open"]
    told = laptop.ask("why", name=desk.name)[-1].result
    assert told["facts"][-1]["text"].endswith("and over TLS: nothing answers over UDP on eth0")
    health = [item["code"] for item in stage.status(laptop)["health"]]
    assert "udp-blocked" in health
    assert "udp-blocked" not in [item["code"] for item in stage.status(desk)["health"]]


def test_both_ends_blocked() -> None:
    stage, laptop, desk, _ = blocked_pair(both=True)
    assert ping(stage, laptop, desk) < 0.6
    stage.run(5)
    stage.stream(laptop, desk, 200)
    stage.stream(desk, laptop, 200)
    stage.run(5)
    for node in (laptop, desk):
        assert sorted(arrived(node)) == list(range(200))
    assert transport(stage, laptop, desk) == transport(stage, desk, laptop) == ("relay", "tls")


def test_udp_blocked_in_the_middle_and_back() -> None:
    """Silently: no event, no ICMP. The tunnel goes on over TLS, and returns to a direct path."""
    stage, laptop, desk, eater = blocked_pair(3)
    eater.on = False
    stage.run(65)
    assert ping(stage, laptop, desk) < 1.0
    stage.run(3)
    assert transport(stage, laptop, desk) == ("direct", "udp")
    assert udp_words(stage, laptop) == ["open"]

    stage.stream(laptop, desk, 1500)
    stage.stream(desk, laptop, 1500)
    stage.run(2)
    eater.on = True
    cut = stage.world.clock.now
    stage.run(8)
    assert transport(stage, laptop, desk) == ("relay", "tls")
    for node in (laptop, desk):
        times = [at for at in arrived(node).values() if at > cut + 0.1]
        assert min(times, default=99.0) - cut < 1.5, node.name
    stage.run(6)
    assert min(len(arrived(laptop)), len(arrived(desk))) > 1500 - 120
    eater.on = False
    stage.run(20)
    assert ping(stage, laptop, desk) < 1.0
    stage.run(65)
    assert ping(stage, laptop, desk) < 1.0
    stage.run(10)
    assert transport(stage, laptop, desk) == ("direct", "udp")
    assert not laptop.streams, "the connection is closed once UDP carries"


def test_udp_comes_back_to_an_idle_node() -> None:
    stage, laptop, _, eater = blocked_pair(4)
    assert len(laptop.streams) == 2  # relay and coordinator
    eater.on = False
    stage.run(75)
    assert not laptop.streams
    status = stage.status(laptop)
    assert status["coordinator"]["transport"] == "udp"
    assert [relay["transport"] for relay in status["relays"]] == ["udp"]
    assert udp_words(stage, laptop) == ["open"]
    assert status["underlay"][0]["mapping"] == "endpoint-independent"


def test_moving_from_one_blocked_network_to_another() -> None:
    stage, laptop, desk, _ = blocked_pair(5)
    ping(stage, laptop, desk)
    stage.run(5)
    train = stage.world.home(PORT_RESTRICTED)
    UdpEater(train)
    moved = stage.world.clock.now
    stage.stream(laptop, desk, 400)
    laptop.host.move("eth0", train)
    stage.run(5)
    heard = min(at for at in arrived(desk).values() if at > moved + 0.05)
    assert heard - moved < 0.5
    assert transport(stage, laptop, desk) == ("relay", "tls")


def test_server_restart_breaks_the_connection_only() -> None:
    stage, laptop, desk, _ = blocked_pair(6)
    ping(stage, laptop, desk)
    stage.run(5)
    domain = stage.domains["home.test"]
    domain.rs.restart()
    domain.dc.restart()
    stage.run(3)
    assert len(laptop.streams) == 2
    ping(stage, laptop, desk)  # the idle desk is told by the coordinator
    assert transport(stage, laptop, desk) == ("relay", "tls")
    assert ping(stage, desk, laptop) < 0.2


def test_no_tls_where_udp_answers() -> None:
    stage, _, desk, _ = blocked_pair(7)
    stage.run(1)
    assert not desk.streams
    assert desk.sent_to[Endpoint(domain_tls(stage).host, TLS_PORT)] == 0


def domain_tls(stage: Stage) -> Endpoint:
    """Where the relay listens for TLS."""
    return stage.domains["home.test"].rs.tls[0]


def test_a_slow_reader_costs_the_relay_no_memory() -> None:
    """The laptop's kernel stops reading: the relay keeps at most its queue, oldest data leaves."""
    stage, laptop, desk, _ = blocked_pair(8)
    ping(stage, laptop, desk)
    stage.run(5)
    streams = stage.domains["home.test"].rs.streams
    assert streams is not None
    relay = next(s for s in laptop.streams.values() if s.connection.remote == domain_tls(stage))
    relay.connection.paused = True
    framed = next(iter(streams.by_remote.values()))
    stage.stream(desk, laptop, 4000, 0.001)
    stage.run(5)
    assert framed.queue.bytes <= STREAM_QUEUE
    assert framed.queue.drops["stream_data_dropped"] > 100
    assert framed.queue.drops["stream_control_refused"] == 0
    assert len(framed.connection._out) <= BUFFER
    relay.connection.resume()
    assert stage.fresh_answer(desk, laptop) <= 0.3


def test_a_connection_without_a_session_is_closed() -> None:
    stage, laptop, _, _ = blocked_pair(9)
    stranger = stage.world.host("stranger")
    stranger.attach("eth0", stage.world.internet, families=(4,))
    address = stranger.interfaces["eth0"].addresses[4]
    connection = stranger.tcp.connect("eth0", address, domain_tls(stage))
    assert connection is not None
    ends: list[float] = []
    junk = b"ntm-rs/1\n" + b"\x00\x20" + b"\x09" * 32
    connection.opened = lambda: [connection.write(junk)].clear()
    connection.closed = lambda why: ends.append(stage.world.clock.now)
    begun = stage.world.clock.now
    stage.run(STREAM_UNPROVEN + 1)
    assert ends
    assert STREAM_UNPROVEN - 0.1 < ends[0] - begun < STREAM_UNPROVEN + 0.5
    assert laptop.streams, "those with a session stay"


def test_two_domains_and_both_ends_blocked() -> None:
    """Each end reaches the other's relay over TLS too: no datagram of theirs is UDP."""
    stage = Stage(11)
    stage.domain("home.test", tls=True)
    stage.domain("lab.test", tls=True)
    stage.directory()
    hotel, office = stage.world.home(PORT_RESTRICTED), stage.world.home(PORT_RESTRICTED)
    UdpEater(hotel)
    UdpEater(office)
    laptop = stage.node("laptop", hotel)
    desk = stage.node("desk", office, domain="lab.test")
    stage.all_up()
    laptop.resolve(desk.name)
    stage.run(3)
    assert ping(stage, laptop, desk) < 0.5
    stage.run(5)
    stage.stream(laptop, desk, 100)
    stage.run(3)
    assert sorted(arrived(desk)) == list(range(100))
    assert transport(stage, laptop, desk) == transport(stage, desk, laptop) == ("relay", "tls")


def test_an_idle_hour_over_tls_stays_in_the_budget() -> None:
    stage, laptop, desk, _ = blocked_pair(12)
    ping(stage, laptop, desk)
    stage.run(3600)
    before = laptop.sent_bytes
    stage.run(3600)
    assert laptop.sent_bytes - before < 20_000  # what comes back is about as much
    assert len(laptop.streams) == 2
    assert ping(stage, desk, laptop) < 1.0


@pytest.mark.parametrize("stall", [1.0, 2.0, 4.0, 7.0])
@pytest.mark.parametrize("sender", [0, 1])
def test_a_stream_that_stalls_while_a_tunnel_wakes_heals_when_it_goes_on(
    stall: float, sender: int
) -> None:
    """All calls of the stall arrive together: the ones that the caller still waits for count."""
    stage, laptop, desk, _ = blocked_pair(both=True)
    ping(stage, laptop, desk)
    stage.run(200.0)
    eth = laptop.host.interfaces["eth0"]
    eth.up.script = eth.down.script = lambda _: 0
    ends = (laptop, desk) if sender == 0 else (desk, laptop)
    for number in range(int((stall + 5.0) / 0.05)):
        stage.world.clock.after(
            number * 0.05,
            lambda n=number: ends[0].inner.ping(ends[1].address, 5000 + n),  # type: ignore[misc]
        )
    stage.run(stall)
    eth.up.script = eth.down.script = None
    begun = stage.world.clock.now
    stage.run(7.0)
    heard = [at for at in ends[0].inner.times("echo").values() if at > begun]
    assert heard
    assert min(heard) - begun <= BYTES_GO_ON + 1.0


def test_connections_that_were_refused_do_not_hold_up_who_waits_now() -> None:
    """The coordinator was dead for ten minutes: the pause has grown to half a minute meanwhile."""
    stage, laptop, desk, _ = blocked_pair(4)
    stage.run(5.0)
    dc = stage.domains["home.test"].dc
    dc.crash()
    stage.run(604.0)
    dc.start()
    assert stage.first_answer(laptop, desk, within=40.0) < 10.0


def carried_by(node: SimNode) -> dict[str, list[str]]:
    """The interface of the way to each server, then those of its other connections."""
    uplinks = [node.core.registration.uplink, *node.core.relays.uplinks()]
    name = node.core.underlay.interface
    found = {}
    for uplink in uplinks:
        assert uplink.path is not None
        others = [way.socket for way in uplink.race.ways() if way != uplink.path]
        found[uplink.peer.name] = [name(uplink.path.socket), *(name(each) for each in others)]
    return found


def test_after_a_stall_the_better_link_carries_again_and_the_other_connection_ends() -> None:
    """A second of silence is enough for another connection; the other link may cost money."""
    stage, laptop, desk, _ = blocked_pair()
    ping(stage, laptop, desk)
    other = stage.world.home(PORT_RESTRICTED)
    UdpEater(other)
    laptop.host.attach("wlan0", other, NODE_LINK, metric=600)
    stage.run(30.0)
    stage.stream(laptop, desk, 1500)
    stage.stream(desk, laptop, 1500)
    stage.run(1.0)
    entry = laptop.host.interfaces["eth0"]
    entry.up.up = entry.down.up = False
    stage.run(0.8)
    entry.up.up = entry.down.up = True
    stage.run(0.2)
    assert "wlan0" in {ways[0] for ways in carried_by(laptop).values()}, "it was not left"
    at = stage.world.clock.now
    stage.run(14.0)
    assert set(map(tuple, carried_by(laptop).values())) == {("eth0",)}
    for node in (laptop, desk):
        assert node.inner.longest_gap("udp", at + 0.5) < 0.2


@pytest.mark.parametrize("warm", [0.1, 8.0], ids=["new", "warm"])
def test_a_connection_on_a_link_that_dies_in_silence_is_left_for_the_other_link(
    warm: float,
) -> None:
    """Neither link lets UDP pass. TCP itself gives up after 10 s only."""
    stage, laptop, desk, _ = blocked_pair()
    ping(stage, laptop, desk)
    other = stage.world.home(PORT_RESTRICTED)
    UdpEater(other)
    laptop.host.attach("wlan0", other, NODE_LINK, metric=600)
    stage.run(warm)
    stage.stream(laptop, desk, 1000)
    stage.stream(desk, laptop, 1000)
    stage.run(1.0)
    at = stage.world.clock.now
    entry = laptop.host.interfaces["eth0"]
    entry.up.up = entry.down.up = False
    stage.run(12.0)
    for node in (laptop, desk):
        back = min((when for when in arrived(node).values() if when > at + 0.2), default=1e9)
        assert back - at < 2.0
