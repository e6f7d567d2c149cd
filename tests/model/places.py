"""Where a node may sit, and what RFC 4787 lets two such places do.

This is the reference: it reasons over mapping and filtering of the middleboxes in between, never
over what a node believes of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ntmd.proto.types import NatFiltering, NatMapping
from tests.sim.nat import (
    ADDRESS_RESTRICTED,
    ADDRESS_SYMMETRIC,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    NatKind,
)
from tests.sim.story import Stage
from tests.sim.world import Network


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of network. ``v4``: its NAT (None: none, the address is public); ``families`` it
    speaks; ``open6``: no IPv6 firewall; ``nested``: behind a second, port-restricted NAT; ``udp``:
    whether any passes."""

    families: tuple[int, ...]
    v4: NatKind | None = None
    open6: bool = False
    nested: bool = False
    udp: bool = True

    def build(self, stage: Stage) -> tuple[Network, tuple[int, ...]]:
        """A network of this kind that nobody has seen yet, and the families to use on it."""
        world = stage.world
        if self.v4 is None and (4 in self.families or self.open6):
            return world.internet, self.families
        outside = world.home(PORT_RESTRICTED) if self.nested else None
        network = world.home(self.v4, v6=6 in self.families, outside=outside)
        if not self.udp:
            network.taps.append(lambda packet: packet.tcp)
        return network, self.families

    def open(self, family: int) -> bool:
        """Whether a datagram from anybody comes in, as long as the mapping stands."""
        if family not in self.families or self.nested:
            return False
        if family == 6:
            return self.open6
        return self.v4 is None or self.v4.filtering is NatFiltering.ENDPOINT_INDEPENDENT

    def fixed(self, family: int) -> bool:
        """Whether it comes in without any mapping."""
        return self.open(family) and (family == 6 or self.v4 is None)

    def _mapping(self, family: int) -> NatMapping:
        if family == 6 or self.v4 is None:
            return NatMapping.ENDPOINT_INDEPENDENT
        return self.v4.mapping

    def _filtering(self, family: int) -> NatFiltering:
        if self.open(family):
            return NatFiltering.ENDPOINT_INDEPENDENT
        if family == 6 or self.v4 is None or self.nested:
            return NatFiltering.ADDRESS_AND_PORT_DEPENDENT
        return self.v4.filtering

    def punches(self, other: Place, family: int) -> bool:
        """Whether the two can reach each other once both were told where the other is."""
        if family not in self.families or family not in other.families:
            return False
        return _gets_in(self, other, family) or _gets_in(other, self, family)


def _gets_in(one: Place, other: Place, family: int) -> bool:
    """Whether a datagram of ``one`` passes the filter of ``other``, who sent some to where the
    servers see ``one``: that is the right address always, the right port only with a mapping that
    does not depend on the endpoint. The answer to it gets back in any case."""
    if other._mapping(family) is not NatMapping.ENDPOINT_INDEPENDENT:
        return False  # one does not know where to send to
    if other._filtering(family) is NatFiltering.ADDRESS_AND_PORT_DEPENDENT:
        return one._mapping(family) is NatMapping.ENDPOINT_INDEPENDENT
    return True


PLACES: dict[str, Place] = {
    "public v4": Place((4,)),
    "public v6": Place((6,), open6=True),
    "full cone": Place((4,), FULL_CONE),
    "address restricted": Place((4,), ADDRESS_RESTRICTED),
    "port restricted": Place((4,), PORT_RESTRICTED),
    "short": Place((4,), replace(PORT_RESTRICTED, expiry=40.0, preserve=False)),
    "address symmetric": Place((4,), ADDRESS_SYMMETRIC),
    "symmetric": Place((4,), SYMMETRIC),
    "v6": Place((6,)),
    "dual": Place((4, 6), PORT_RESTRICTED),
    "nested": Place((4,), PORT_RESTRICTED, nested=True),
}

BLOCKED: dict[str, Place] = {
    "no udp": Place((4,), PORT_RESTRICTED, udp=False),
    "no udp, dual": Place((4, 6), SYMMETRIC, udp=False),
}
"""Places with nothing but TCP: only where the servers listen for TLS too."""
EVERY = PLACES | BLOCKED
