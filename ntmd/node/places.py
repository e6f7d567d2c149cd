"""What worked in each network that this node was in, so that it begins there when it comes back.

A network is its gateway and prefix. Many home networks share both, so whatever is remembered is a
hint: it says what to try first, and the next answer corrects it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ntmd.node.common import Common
from ntmd.proto.types import NatFiltering, NatMapping

if TYPE_CHECKING:
    from ntmd.node.underlay import Underlay

MAPPINGS, FILTERINGS = tuple(NatMapping), tuple(NatFiltering)


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of one network. Integers only, in the order in which they are stored.

    ``udp``: a server answered over UDP; ``tls``: only over TLS. ``mapping`` and ``filtering`` are
    positions in NatMapping and NatFiltering. ``kept`` is the keep-alive interval that the NAT's
    mapping survived, ``lapsed`` one that it did not (ms, 0: unknown). ``mtu`` is the largest IP
    packet that passed (0: unknown).
    """

    udp: int = 0
    tls: int = 0
    mapping: int = MAPPINGS.index(NatMapping.UNKNOWN)
    filtering: int = FILTERINGS.index(NatFiltering.UNKNOWN)
    kept: int = 0
    lapsed: int = 0
    mtu: int = 0


class Places:
    """The present networks' entries."""

    def __init__(self, common: Common, underlay: Underlay) -> None:
        self._common, self._underlay = common, underlay

    def at(self, socket: int) -> Place:
        """What is known of the network of an own socket, UDP or TLS."""
        return read(self._common.memory.places.get(self._underlay.place(socket), ()))

    def here(self) -> Place:
        """What is known of the network of the best own socket."""
        best = next(iter(self._underlay.usable()), None)
        return self.at(best.number) if best is not None else Place()

    def learn(self, socket: int, **facts: int) -> None:
        """Something showed in the network of an own socket; the next visit begins with it."""
        name, place = self._underlay.place(socket), self.at(socket)
        known = replace(place, **facts)
        if name and known != place:
            values = tuple(getattr(known, each.name) for each in fields(known))
            self._common.memory.keep_place(name, values)


def read(values: tuple[Any, ...]) -> Place:
    """A stored entry: what cannot be right is unknown, what a later version added is ignored."""
    names = [each.name for each in fields(Place)]
    found = {n: v for n, v in zip(names, values, strict=False) if type(v) is int and v >= 0}
    place = Place(**found)
    if place.mapping >= len(MAPPINGS) or place.filtering >= len(FILTERINGS):
        unknown = Place()
        place = replace(place, mapping=unknown.mapping, filtering=unknown.filtering)
    return place
