"""What an own socket's network offers beside plain sending: a port mapping, a NAT64.

Both are hints from outside the protocol. A mapped endpoint is one more candidate that peers may
challenge; a NAT64 prefix makes IPv4 endpoints reachable from a socket that has IPv6 only. Where a
network offers neither, nothing is lost by having asked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from ntmd.node.commands import EndScout, ScoutNetwork
from ntmd.node.common import Common
from ntmd.node.inputs import Nat64Found, PortMapped
from ntmd.node.probing import Prober, Proof
from ntmd.node.underlay import OwnSocket, Underlay
from ntmd.node.uplink import Uplink
from ntmd.proto.types import Path

LOOKS, LOOK_AGAIN = 20, 0.5  # waiting for a coordinator, seconds


class Reach:
    """Has every network scouted once its socket is open.

    ``told`` is called when there is a candidate more or less, ``widened`` when a socket reaches
    more than before.
    """

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        coordinator: Uplink,
        told: Callable[[float], None],
        widened: Callable[[float], None],
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._coordinator, self._told, self._widened = coordinator, told, widened
        self._scouted: dict[int, ScoutNetwork] = {}

    def look(self) -> None:
        """Sockets came or went, or a gateway became known."""
        for number in [n for n in self._scouted if not self._underlay.is_open(n)]:
            del self._scouted[number]
            self._common.emit(EndScout(number))
        for socket in self._underlay.usable():
            wish = self._wish(socket)
            if wish is not None and self._scouted.get(socket.number) != wish:
                self._scouted[socket.number] = wish
                self._common.emit(wish)

    def _wish(self, socket: OwnSocket) -> ScoutNetwork | None:
        network, local = socket.network, socket.local
        if local is None or not network.gateway:
            return None
        if network.family == 4 and ipaddress.IPv4Address(network.address).is_global:
            return None  # nothing in front that could map
        if network.family == 6 and self._underlay.has_family(network.interface, 4):
            return None
        local = local._replace(host=network.address)
        return ScoutNetwork(socket.number, network.interface, local, network.gateway)

    def port_mapped(self, event: PortMapped, now: float) -> None:
        """A router gave, changed or took a mapping."""
        if self._underlay.note_mapping(event.socket, event.outside, event.protocol):
            self._common.tell("info", "port mapping", by=event.protocol, there=bool(event.outside))
            self._told(now)

    def nat64_found(self, event: Nat64Found, now: float) -> None:
        """IPv4 servers and peers can be reached from this socket from now on."""
        socket = self._underlay.note_nat64(event.socket, event.prefix)
        if socket is not None:
            self._common.tell("info", "NAT64 found", interface=socket.network.interface)
            self._widened(now)
            self._look_outside(socket.number, LOOKS, now)

    def _look_outside(self, number: int, tries: int, now: float) -> None:
        """Ask the coordinator, over IPv4, where the NAT64 makes this socket appear.

        Peers behind a NAT can only be punched if they know; a coordinator that is spoken to over
        native IPv6 does not see it by itself.
        """
        handle, socket = self._coordinator.handle, self._underlay.sockets.get(number)
        if socket is None or socket.nat64 is None or tries == 0:
            return
        there = [e for e in self._coordinator.endpoints if e.family == 4]
        if handle is None or not self._coordinator.up:
            self._common.timers.set(
                ("outside", number),
                now + LOOK_AGAIN,
                lambda at: self._look_outside(number, tries - 1, at),
            )
        elif there:
            path = Path(number, socket.nat64.synthesise(there[0]))
            self._prober.start(handle, path, now, self._seen_outside, purpose="nat64")

    def _seen_outside(self, proof: Proof, now: float) -> None:
        seen = proof.answer.observed
        if seen is None or seen.family == 6:
            return
        if self._underlay.note_outside(proof.path.socket, seen):
            self._told(now)
