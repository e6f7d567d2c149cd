"""Two domains under one platform: each node's coordinator finds the other by the DNS."""

from __future__ import annotations

import pytest

from ntmd.proto import messages as m
from ntmd.proto.crypto import public_key
from ntmd.proto.events import Identity, MessageReceived, OpenPolicy
from ntmd.proto.frame import Kind
from ntmd.proto.io import SendDatagram
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Endpoint, Role
from tests.sim.machine import Socket
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage

RTT = 0.040
COLD = 7 * RTT + 0.300


def two_domains(
    seed: int = 1, mn_kind: NatKind = PORT_RESTRICTED, cn_kind: NatKind = PORT_RESTRICTED
) -> tuple[Stage, SimNode, SimNode]:
    stage = Stage(seed)
    stage.domain("home.test")
    stage.domain("lab.test")
    stage.directory()
    mn = stage.node("laptop", stage.world.home(mn_kind), domain="home.test")
    cn = stage.node("desk", stage.world.home(cn_kind), domain="lab.test")
    stage.all_up()
    return stage, mn, cn


def call_by_name(stage: Stage, mn: SimNode, cn: SimNode) -> float:
    """Resolve and ping; seconds from the question to the first answer."""
    begun = stage.world.clock.now
    token = mn.resolve(cn.name)
    assert stage.world.run(4.6, lambda: token in mn.names), stage.explain(mn, cn)
    assert mn.names[token].address == cn.address, (mn.names[token], stage.explain(mn, cn))
    mn.inner.ping(cn.address, 1)
    assert stage.world.run(3.0, lambda: bool(mn.inner.times("echo", cn.address)))
    return stage.world.clock.now - begun


def test_addresses_are_of_each_domains_own_prefix() -> None:
    stage, mn, cn = two_domains()
    assert mn.address[:8] != cn.address[:8]
    assert mn.address[:6] == cn.address[:6]
    for node, domain in ((mn, "home.test"), (cn, "lab.test")):
        prefix = stage.domains[domain].identity.prefix
        assert node.address[:8] == prefix.network_address.packed[:8]


@pytest.mark.parametrize(
    ("mn_kind", "cn_kind", "path"),
    [(PORT_RESTRICTED, PORT_RESTRICTED, "direct"), (SYMMETRIC, SYMMETRIC, "relay")],
)
def test_call_by_name_with_dns_cold(mn_kind: NatKind, cn_kind: NatKind, path: str) -> None:
    stage, mn, cn = two_domains(1, mn_kind, cn_kind)
    assert call_by_name(stage, mn, cn) <= COLD
    stage.stream(mn, cn, 150)
    stage.stream(cn, mn, 150)
    stage.run(3)
    assert stage.path_kind(mn, cn) == path
    assert set(cn.inner.times("udp")) == set(mn.inner.times("udp")) == set(range(150))
    assert stage.dns.asked


def test_order_over_two_coordinators() -> None:
    stage, mn, cn = two_domains()
    call_by_name(stage, mn, cn)
    lines = [line for line in stage.world.trace.lines if line.what == "heard"]
    told = [(line.where, type(line.value)) for line in lines]
    chain = [
        ("dc.home.test", m.DirectionRequest),
        ("dc.lab.test", m.InformationRequest),
        ("dc.home.test", m.InformationResponse),
        ("dc.lab.test", m.RouteDirection),
        (cn.name, m.RouteDirection),
        ("dc.lab.test", m.RouteDirectionResponse),
        ("dc.home.test", m.RouteDirectionResponse),
        (mn.name, m.RouteDirectionToCaller),
    ]
    places = [told.index(step) for step in chain]
    assert places == sorted(places), list(zip(chain, places, strict=True))


def test_established_tunnel_outlives_both_coordinators_and_the_dns() -> None:
    stage, mn, cn = two_domains()
    call_by_name(stage, mn, cn)
    for domain in stage.domains.values():
        domain.dc.crash()
    stage.dns.silent = True
    stage.stream(mn, cn, 400, interval=1.0)
    stage.run(402)  # over three rekeys
    assert set(cn.inner.times("udp")) == set(range(400))


def test_silent_dns_is_told_as_such_and_in_time() -> None:
    stage, mn, cn = two_domains()
    stage.dns.silent = True
    begun = stage.world.clock.now
    token = mn.resolve(cn.name)
    assert stage.world.run(5.0, lambda: token in mn.names)
    assert stage.world.clock.now - begun <= 4.6
    assert mn.names[token].address is None


def test_domain_that_does_not_exist() -> None:
    stage, mn, _ = two_domains()
    token = mn.resolve("desk.nowhere.test")
    stage.run(5)
    assert mn.names[token].address is None


@pytest.mark.parametrize("attacker", ["node", "relay", "other coordinator", "stranger"])
def test_poisoned_dns_reaches_nobody_who_is_believed(attacker: str) -> None:
    """SRV, A and TXT all lead to an attacker with a valid certificate of another role."""
    stage, mn, cn = two_domains()
    platform = stage.platform
    identity = {
        "node": lambda: platform.node("mallory.home.test", "home.test"),
        "relay": lambda: platform.rs("rs9.lab.test", "lab.test"),
        "other coordinator": lambda: platform.dc("dc.evil.test", "evil.test").identity,
        "stranger": lambda: Stage(99).platform.dc("dc.lab.test", "lab.test").identity,
    }[attacker]()
    trap = Trap(stage, identity)
    stage.dns.publish("lab.test", "dc.lab.test", public_key(identity.private_key), (trap.at,))
    token = mn.resolve(cn.name)
    stage.run(5.0)
    assert trap.initiations > 0
    assert trap.messages == []
    assert mn.names[token].address is None
    lab = stage.domains["lab.test"]
    stage.dns.publish("lab.test", "dc.lab.test", lab.identity.peer.key, lab.home.endpoints)
    stage.run(65)
    assert call_by_name(stage, mn, cn) <= COLD


def test_stored_coordinator_still_works_under_poisoned_dns() -> None:
    stage, mn, cn = two_domains()
    call_by_name(stage, mn, cn)
    other = stage.node("second", stage.world.home(PORT_RESTRICTED), domain="home.test")
    stage.all_up()
    trap = Trap(stage, stage.platform.node("mallory.home.test", "home.test"))
    stage.dns.publish("lab.test", "dc.lab.test", bytes(range(32)), (trap.at,))
    stage.domains["home.test"].dc.restart()
    stage.run(400)
    call_by_name(stage, other, cn)


@pytest.mark.parametrize("called", [False, True])
def test_address_of_a_domain_known_before_the_restart(called: bool) -> None:
    """Its prefix came with the account server's list, which is not there again yet."""
    stage, mn, cn = two_domains()
    if called:
        call_by_name(stage, mn, cn)
    other = stage.node("second", stage.world.home(PORT_RESTRICTED), domain="home.test")
    stage.all_up()
    stage.domains["home.test"].dc.restart()
    stage.run(60.0)
    assert stage.first_answer(other, cn) <= COLD


class Trap:
    """Answers handshakes on a public address with an identity of its own."""

    def __init__(self, stage: Stage, identity: Identity) -> None:
        self.messages: list[object] = []
        self.initiations = 0
        host = stage.world.host(f"trap.{identity.name}")
        eth = host.attach("eth0", stage.world.internet)
        self._host = host
        self._socket = host.bind(Socket(4, 4330, self._receive, address=eth.addresses[4]))
        self.at = Endpoint(eth.addresses[4], 4330)
        self._engine = SessionEngine(
            identity,
            stage.platform.trust,
            OpenPolicy((Role.NODE, Role.DC, Role.RS)),
            random=stage.world.clock.stream("trap").randbytes,
            platform_ms=lambda now: host.wall_ms(),
            sequencer=Sequencer(0, lambda mark: None),
        )

    def _receive(self, data: bytes, source: Endpoint) -> None:
        self.initiations += data[0] == Kind.INITIATION
        self._engine.receive(data, 1, source, self._host.now)
        for output in self._engine.take_outputs():
            if isinstance(output, SendDatagram):
                self._host.send(self._socket, output.data, output.path.remote)
            elif isinstance(output, MessageReceived):
                self.messages.append(output.message)
