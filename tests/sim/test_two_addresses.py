"""A coordinator that listens at two IPv4 addresses: a NAT that maps by destination shows another
source to each of them, and only the one in use says where the node is."""

from __future__ import annotations

from dataclasses import replace

from ntmd.proto.types import Endpoint, NatMapping
from tests.sim.nat import SYMMETRIC
from tests.sim.story import DC_PORT, SERVER_LINK, Stage


def test_what_the_other_address_sees_in_a_nat_test_is_not_where_the_node_is() -> None:
    stage = Stage(2)
    domain = stage.domain(start=False)
    more = domain.dc.host.attach("eth1", stage.world.internet, SERVER_LINK, families=(4,))
    dc, second = domain.dc, Endpoint(more.addresses[4], DC_PORT)
    dc.settings = replace(dc.settings, listen=(*dc.settings.listen, second))
    dc.ports = dict(dc.settings.sockets())
    domain.home = replace(domain.home, endpoints=dc.settings.listen)
    dc.start()
    domain.rs.start()
    laptop = stage.node("laptop", stage.world.home(SYMMETRIC))
    uplink, found = laptop.core.registration.uplink, []
    stage.run(1.0)
    saw = uplink.saw

    def noted(socket: int, observed: Endpoint | None, *rest: object, **more: bool) -> bool:
        found.append(observed)
        return saw(socket, observed, *rest, **more)  # type: ignore[arg-type]

    uplink.saw = noted
    before, seq = dict(uplink.observed), uplink.seq
    stage.run(10.0)
    (facts,) = laptop.core.registration.nat.facts.values()
    assert second in facts.observed
    assert facts.mapping is NatMapping.ADDRESS_AND_PORT_DEPENDENT
    assert found
    assert uplink.observed == before
    assert uplink.seq == seq
