"""A machine of the world: interfaces that come and go, sockets, a boot clock and a wall clock."""

from __future__ import annotations

import errno
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol

from ntmd.node.inputs import NetworkChanged, UnderlayAddress, UnderlayInterface
from ntmd.proto.types import Endpoint
from tests.sim.clock import EPOCH_MS
from tests.sim.link import Link, Packet, Shape
from tests.sim.tcp import Tcp

if TYPE_CHECKING:
    from tests.sim.world import Network, World

ACCESS = Shape(delay=0.010)
WATCH_DELAY = 0.002  # from a change of the underlay to the host's hearing of it
ROUTE_DELAY = 0.005  # from a link's address to its default route, as a DHCP client sets them
EPHEMERAL = 40_000


class Sleeper(Protocol):
    """Whatever stands still while its machine sleeps."""

    def woke(self, asleep: float) -> None:
        """The machine runs again after ``asleep`` seconds."""


@dataclass(slots=True)
class Interface:
    """A host's attachment to a network."""

    name: str
    index: int
    network: Network
    addresses: dict[int, str]
    up: Link
    down: Link
    mtu: int
    metric: int
    deprecated: bool = False
    routed: bool = True  # there is a default route: without one, only neighbours are reached


@dataclass(slots=True)
class Socket:
    """A UDP socket of a host: on one interface (node) or on one address (server)."""

    family: int
    port: int
    receive: Callable[[bytes, Endpoint], None]
    interface: str = ""
    address: str = ""


@dataclass
class Host:
    """A machine: interfaces, sockets, a boot clock and a wall clock of its own. ``fresh_ports``: a
    socket without a wish gets a port that none had before, instead of the first that is free."""

    world: World
    name: str
    boot: float
    skew_ms: int = 0
    interfaces: dict[str, Interface] = field(default_factory=dict)
    sockets: list[Socket] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    on_change: Callable[[NetworkChanged], None] | None = None
    sleepers: list[Sleeper] = field(default_factory=list)
    asleep_since: float | None = None
    fresh_ports: bool = False
    _port: int = EPHEMERAL
    _indexes: int = 1
    _attachments: int = 0
    _tcp: Tcp | None = None

    @property
    def now(self) -> float:
        """This machine's boot clock."""
        return self.boot + self.world.clock.now

    def wall_ms(self) -> int:
        """This machine's wall clock, which ``skew_ms`` makes wrong."""
        return EPOCH_MS + int(self.world.clock.now * 1000) + self.skew_ms

    @property
    def tcp(self) -> Tcp:
        """This machine's byte streams."""
        if self._tcp is None:
            self._tcp = Tcp(self)
        return self._tcp

    # -------------------------------------------------------------- sleep

    @property
    def asleep(self) -> bool:
        """Whether the machine is suspended: nothing runs, nothing is received."""
        return self.asleep_since is not None

    def suspend(self) -> None:
        """Fall asleep. The boot clock goes on."""
        self.asleep_since = self.now

    def resume(self) -> None:
        """Wake up: the time asleep shows in the boot clock, then the underlay is read again."""
        assert self.asleep_since is not None
        asleep, self.asleep_since = self.now - self.asleep_since, None
        for sleeper in list(self.sleepers):
            sleeper.woke(asleep)
        self.world.clock.after(WATCH_DELAY, self._tell)

    # -------------------------------------------------------------- attachment

    def attach(
        self,
        interface: str,
        network: Network,
        shape: Shape = ACCESS,
        *,
        metric: int = 100,
        families: tuple[int, ...] | None = None,
        route_after: float = ROUTE_DELAY,
    ) -> Interface:
        """Join ``network`` with fresh addresses. The host hears of it a moment later.

        ``route_after``: seconds from the address to the default route.
        """
        if interface in self.interfaces:
            raise ValueError(f"{self.name} has {interface} already")
        clock = self.world.clock
        self._indexes += 1
        self._attachments += 1
        label = f"{self.name}.{interface}.{self._attachments}"
        wanted = families if families is not None else network.families()
        addresses = {family: network.allocate(family) for family in wanted}
        entry = Interface(
            interface,
            self._indexes,
            network,
            addresses,
            Link(clock, f"{label} up", shape),
            Link(clock, f"{label} down", shape),
            shape.mtu,
            metric,
        )
        self.interfaces[interface] = entry
        for address in addresses.values():
            network.join(address, _Attachment(self, entry))
        if route_after:
            entry.routed = False
            clock.after(route_after, partial(self._route, entry))
        self._changed()
        return entry

    def _route(self, entry: Interface) -> None:
        entry.routed = True
        self._changed()

    def detach(self, interface: str) -> None:
        """Leave a network. Packets on their way to the old addresses are lost."""
        entry = self.interfaces.pop(interface)
        entry.up.up = entry.down.up = False
        for address in entry.addresses.values():
            entry.network.leave(address)
        self._changed()

    def move(self, interface: str, network: Network, shape: Shape = ACCESS) -> Interface:
        """The interface leaves its network and joins another at once (hard move)."""
        if interface in self.interfaces:
            self.detach(interface)
        return self.attach(interface, network, shape)

    def prefer(self, interface: str, metric: int) -> None:
        """The interface's default route gets another metric; nothing else changes."""
        self.interfaces[interface].metric = metric
        self._changed()

    def drop_family(self, interface: str, family: int) -> None:
        """The interface loses its address of one family: a lease ended, a router went away."""
        entry = self.interfaces[interface]
        entry.network.leave(entry.addresses.pop(family))
        self._changed()

    def deprecate(self, interface: str, deprecated: bool = True) -> None:
        """The kernel says that the interface's addresses are not to be used for anything new."""
        self.interfaces[interface].deprecated = deprecated
        self._changed()

    def network_state(self) -> NetworkChanged:
        """The underlay as it is now, best interface first."""
        ordered = sorted(self.interfaces.values(), key=lambda entry: (entry.metric, entry.index))
        return NetworkChanged(tuple(_view(entry) for entry in ordered), self.now)

    def _changed(self) -> None:
        if self.world.trace.keep:
            state = self.network_state()
            self.world.trace.add(self.world.clock.now, self.name, "underlay", state)
        self.world.clock.after(WATCH_DELAY, self._tell)

    def _tell(self) -> None:
        if self.on_change is not None and not self.asleep:
            self.on_change(self.network_state())

    # -------------------------------------------------------------- sockets

    def bind(self, socket: Socket) -> Socket:
        """Open a socket; port 0 draws one. Raises OSError as the kernel would."""
        if socket.interface and self._place(socket)[0] is None:
            raise OSError(errno.ENODEV, "no such interface or address")
        if socket.port == 0:
            socket.port = self._port if self.fresh_ports else EPHEMERAL
            while self._taken(socket):
                socket.port += 1
        elif self._taken(socket):
            raise OSError(errno.EADDRINUSE, "address in use")
        self._port = max(self._port, socket.port + 1)
        self.sockets.append(socket)
        return socket

    def close(self, socket: Socket) -> None:
        """Close a socket; twice is harmless."""
        if socket in self.sockets:
            self.sockets.remove(socket)

    def send(self, socket: Socket, data: bytes, remote: Endpoint) -> int:
        """Send a datagram; returns 0 or the errno with which the kernel refuses it."""
        entry, address = self._place(socket)
        if entry is None or remote.family != socket.family:
            return errno.ENETUNREACH
        packet = Packet(Endpoint(address, socket.port), remote, data)
        if packet.size > entry.mtu:
            return errno.EMSGSIZE
        self._trace("send", packet)
        if entry.routed or _near(entry, address, remote):
            entry.up.carry(packet, entry.network.forward)
        else:
            self.drops["no_neighbour"] += 1  # bound to the link, it waits for an answer to ARP
        return 0

    def local(self, socket: Socket) -> Endpoint:
        """Where a socket is bound."""
        return Endpoint(self._place(socket)[1], socket.port)

    def deliver(self, packet: Packet) -> None:
        """A packet came up the interface: to the socket that is bound there."""
        if self.asleep:
            self.drops["asleep"] += 1
            return
        host, port = packet.destination
        for socket in self.sockets:
            if socket.port == port and self._place(socket)[1] == host:
                self._trace("receive", packet)
                socket.receive(packet.data, packet.source)
                return
        self.drops["no_socket"] += 1

    def _place(self, socket: Socket) -> tuple[Interface | None, str]:
        """Interface and address of a socket; (None, "") where it has none."""
        if socket.address:
            for entry in self.interfaces.values():
                if entry.addresses.get(socket.family) == socket.address:
                    return entry, socket.address
        elif (found := self.interfaces.get(socket.interface)) and socket.family in found.addresses:
            return found, found.addresses[socket.family]
        return None, ""

    def _trace(self, what: str, packet: Packet) -> None:
        trace = self.world.trace
        if trace.keep:
            trace.add(self.world.clock.now, self.name, what, packet)

    def _taken(self, wanted: Socket) -> bool:
        return any(
            other.port == wanted.port and self._place(other)[1] == self._place(wanted)[1]
            for other in self.sockets
        )


@dataclass(frozen=True, slots=True)
class _Attachment:
    host: Host
    entry: Interface

    def arrive(self, packet: Packet) -> None:
        """Over the host's link, if it is still there when the packet is."""
        self.entry.down.carry(packet, self._up)

    def _up(self, packet: Packet) -> None:
        if self.host.interfaces.get(self.entry.name) is not self.entry:
            return
        if packet.tcp:
            self.host.tcp.deliver(packet, self.entry)
        else:
            self.host.deliver(packet)


def _view(entry: Interface) -> UnderlayInterface:
    lengths = entry.network.prefix_length
    addresses = tuple(
        UnderlayAddress(address, lengths[family], entry.deprecated)
        for family, address in sorted(entry.addresses.items())
    )
    gateways = tuple(
        (family, "fe80::1" if family == 6 else _gateway(address, lengths[4]))
        for family, address in sorted(entry.addresses.items())
        if entry.routed
    )
    return UnderlayInterface(
        entry.name, entry.index, entry.mtu, True, addresses, gateways, entry.metric
    )


def _near(entry: Interface, address: str, remote: Endpoint) -> bool:
    length = entry.network.prefix_length[remote.family]
    near = ipaddress.ip_network((address, length), strict=False)
    return ipaddress.ip_address(remote.host) in near


@lru_cache(1024)
def _gateway(address: str, length: int) -> str:
    network = ipaddress.IPv4Interface(f"{address}/{length}").network
    return str(network.broadcast_address - 1)
