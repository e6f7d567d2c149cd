"""Own sockets: one per underlay interface, family and address (rule C7).

The watcher hands over the whole state of the underlay each time. A new (interface, network) is a
new socket, hence a new path id; what is no longer there is closed. Which socket is best is the
order of the watcher's interfaces.
"""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import dataclass, replace

from ntmd.node.common import Common
from ntmd.node.inputs import NetworkChanged, UnderlayInterface
from ntmd.node.places import Places
from ntmd.node.streams import Streams
from ntmd.proto.nat64 import Prefix
from ntmd.proto.plane import CloseSocket, OpenSocket, PlanePath, SocketFailed, SocketOpened
from ntmd.proto.timing import DATAGRAM_MAX, HANDSHAKE_SIZE
from ntmd.proto.types import Endpoint, Path, path_id

REOPEN = 0.5  # a socket that could not be opened is tried again this much later, seconds
MAX_SOCKETS = 8
PAST_SOCKETS = 32  # closed sockets whose interface the journal can still name
DEPRECATED, LOSSY, METERED, NO_GATEWAY, SILENT = 500, 600, 700, 1000, 4000
"""Added to the rank of a socket that is a makeshift. A metered link comes after every other one
that works, be it badly, and before what leads nowhere."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a socket is bound to; another value is another network."""

    interface: str
    index: int
    family: int
    address: str
    gateway: str


@dataclass(frozen=True, slots=True)
class OwnSocket:
    """An own socket. ``local`` is None until the plane has opened it; ``rank`` 0 is best.

    ``mapped`` is the endpoint that a router mapped to it by the protocol ``mapped_by``; ``nat64``
    the prefix through which its network reaches IPv4, and ``outside`` what IPv4 sees of it there.
    ``routed``: there is or was a default route. A socket without one is not ``ready`` until it has
    waited for it in vain: a route comes some milliseconds after the address, and what leaves in
    between reaches nobody.
    """

    number: int
    network: Network
    mtu: int
    rank: int
    routed: bool
    ready: bool
    local: Endpoint | None = None
    deprecated: bool = False
    mapped: Endpoint | None = None
    mapped_by: str = ""
    nat64: Prefix | None = None
    outside: Endpoint | None = None

    @property
    def usable(self) -> bool:
        """Whether it may be sent on."""
        return self.local is not None and self.ready


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of the underlay did: sockets that are gone; sockets that are ready by now;
    sockets that were, without a route, and have one now; sockets before which another one is
    preferred by now."""

    gone: tuple[OwnSocket, ...]
    ready: tuple[OwnSocket, ...]
    routed: tuple[OwnSocket, ...]
    demoted: tuple[OwnSocket, ...]


@dataclass(frozen=True, slots=True)
class _Wish:
    """How a network is wanted."""

    rank: int
    mtu: int
    deprecated: bool
    routed: bool


def _same(a: Network, b: Network) -> bool:
    """Same network: a gateway that is not known yet, or for the moment, makes no difference."""
    if (a.interface, a.index, a.family, a.address) != (b.interface, b.index, b.family, b.address):
        return False
    return a.gateway == b.gateway or not a.gateway or not b.gateway


def _private(address: str) -> bool:
    return ipaddress.ip_address(address).is_private


class Underlay:
    """Keeps the sockets in step with the underlay."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._numbers = itertools.count(1)
        self._interfaces: tuple[UnderlayInterface, ...] = ()
        self._past: dict[int, OwnSocket] = {}
        self._silent: dict[int, None] = {}
        self._lossy: dict[int, None] = {}
        self.sockets: dict[int, OwnSocket] = {}
        self.streams = Streams(common, self._numbers)
        self.places = Places(common, self)
        self.mtus: dict[Path, int] = {}  # IP packet sizes that probes proved
        self.changed_at = 0.0

    def change(self, event: NetworkChanged, now: float) -> Change:
        """Follow the underlay; new sockets are reported later, when the plane has opened them."""
        self._interfaces = event.interfaces
        self.changed_at = event.at if 0 < event.at <= now else now
        wanted = self._wanted()
        gone: list[OwnSocket] = []
        ready: list[OwnSocket] = []
        routed: list[OwnSocket] = []
        demoted: list[OwnSocket] = []
        for socket in list(self.sockets.values()):
            match = next((n for n in wanted if _same(n, socket.network)), None)
            if match is None:
                self._drop(socket.number)
                gone.append(socket)
                continue
            wish = wanted.pop(match)
            route_came = wish.routed and not socket.routed
            arrived = ready if not socket.ready else routed
            network = match if match.gateway else socket.network
            if wish.rank > socket.rank:
                demoted.append(socket)
            socket = replace(
                socket,
                network=network,
                rank=wish.rank,
                mtu=wish.mtu,
                deprecated=wish.deprecated,
                routed=wish.routed or socket.routed,
                ready=wish.routed or socket.ready,
            )
            self.sockets[socket.number] = socket
            if route_came and socket.local is not None:
                arrived.append(socket)
        for socket in self.streams.without(self.sockets):
            self._keep_past(socket)
            gone.append(socket)
        self._open(wanted)
        return Change(tuple(gone), tuple(ready), tuple(routed), tuple(demoted))

    def _drop(self, number: int) -> None:
        socket = self.sockets.pop(number, None)
        if socket is None:
            return
        self._silent.pop(number, None)
        self._lossy.pop(number, None)
        self._common.emit(CloseSocket(number))
        self._keep_past(socket)

    def _keep_past(self, socket: OwnSocket) -> None:
        self._past[socket.number] = socket
        while len(self._past) > PAST_SOCKETS:
            del self._past[next(iter(self._past))]

    def _open(self, wanted: dict[Network, _Wish]) -> None:
        for network, wish in wanted.items():
            number = next(self._numbers)
            self.sockets[number] = OwnSocket(
                number,
                network,
                wish.mtu,
                wish.rank,
                wish.routed,
                ready=wish.routed,
                deprecated=wish.deprecated,
            )
            port = self._common.settings.port
            self._common.emit(
                OpenSocket(number, network.interface, network.family, network.address, port)
            )

    def _wanted(self) -> dict[Network, _Wish]:
        wanted: dict[Network, _Wish] = {}
        for place, interface in enumerate(self._interfaces):
            if not interface.carrier or interface.name == self._common.settings.interface:
                continue
            gateways = dict(interface.gateways)
            for family in (4, 6):
                gateway, routed = gateways.get(family, ""), family in gateways
                for address, deprecated in self._addresses(interface, family):
                    if len(wanted) >= MAX_SOCKETS:
                        return wanted
                    rank = place * 2 + (0 if routed else NO_GATEWAY)
                    rank += DEPRECATED if deprecated else 0
                    rank += METERED if interface.name in self._common.settings.metered else 0
                    network = Network(interface.name, interface.index, family, address, gateway)
                    wanted[network] = _Wish(rank, interface.mtu, deprecated, routed)
        return wanted

    def _addresses(self, interface: UnderlayInterface, family: int) -> list[tuple[str, bool]]:
        """Addresses to bind on, with whether they are deprecated, best first.

        The one in use is kept while it stays usable; once it is deprecated, a fresh one is opened
        beside it, so that the traffic can leave it before it goes.
        """
        usable = [
            a.address
            for a in interface.addresses
            if not a.tentative and self._usable(a.address, family)
        ]
        kept = [
            s.network.address
            for s in self.sockets.values()
            if s.network.index == interface.index and s.network.family == family
        ]
        fresh = {a.address for a in interface.addresses if not a.deprecated}
        usable.sort(key=lambda a: (a not in fresh, a not in kept, _private(a)))
        found = [(a, a not in fresh) for a in usable[:1]]
        if found and not found[0][1]:
            found += [(a, True) for a in usable[1:] if a in kept and a not in fresh][:1]
        return found

    def _usable(self, address: str, family: int) -> bool:
        ip = ipaddress.ip_address(address)
        if ip.version != family or ip.is_loopback or ip.is_multicast or ip.is_unspecified:
            return False
        if isinstance(ip, ipaddress.IPv6Address):
            return not ip.is_link_local and ip not in self._common.virtual_network()
        return True

    def opened(self, event: SocketOpened) -> OwnSocket | None:
        """The plane opened a socket; None if it is not wanted any more."""
        socket = self.sockets.get(event.socket)
        if socket is None:
            return None
        socket = replace(socket, local=event.local)
        self.sockets[event.socket] = socket
        return socket

    def without_route(self, number: int) -> OwnSocket | None:
        """No route came: from now on the socket is used as it is, there may be neighbours. None if
        that is nothing new."""
        socket = self.sockets.get(number)
        if socket is None or socket.ready:
            return None
        self.sockets[number] = socket = replace(socket, ready=True)
        return socket

    def failed(self, event: SocketFailed, now: float) -> OwnSocket | None:
        """A socket could not be opened or died; it is tried again while its network is there."""
        socket = self.sockets.get(event.socket)
        if socket is None:
            return None
        self._drop(socket.number)
        self._common.tell(
            "warning",
            "socket failed",
            interface=socket.network.interface,
            errno=event.errno,
            text=event.text,
        )
        self._common.timers.set("underlay reopen", now + REOPEN, self._reopen)
        return socket

    def _reopen(self, now: float) -> None:
        have = [s.network for s in self.sockets.values()]
        wanted = self._wanted()
        self._open({n: v for n, v in wanted.items() if not any(_same(n, h) for h in have)})

    def usable(self, family: int | None = None) -> list[OwnSocket]:
        """Open sockets, best first, of one family or both."""
        found = [
            s for s in self.sockets.values() if s.usable and family in (None, s.network.family)
        ]
        return sorted(found, key=lambda s: (self.rank(s.number), s.number))

    def is_open(self, number: int) -> bool:
        """Whether the own socket may be sent on."""
        socket = self.find(number)
        return socket is not None and socket.usable

    def find(self, number: int) -> OwnSocket | None:
        """The present own socket of this number, UDP or TLS."""
        return self.sockets.get(number) or self.streams.socket(number)

    def transport(self, number: int) -> str:
        """``udp`` or ``tls``."""
        return "tls" if self.streams.has(number) else "udp"

    def rank(self, number: int) -> int:
        """Preference of a socket, smaller is better."""
        socket = self.find(number)
        if socket is None:
            return 1 << 20
        lossy = LOSSY if number in self._lossy else 0
        return socket.rank + lossy + (SILENT if number in self._silent else 0)

    def set_silent(self, number: int, silent: bool) -> bool:
        """A link fell silent, or answers again; False if that changes nothing."""
        return self._set(self._silent, number, silent)

    def set_lossy(self, number: int, lossy: bool) -> bool:
        """A link loses much, or does not any more; False if that changes nothing."""
        return self._set(self._lossy, number, lossy)

    def _set(self, marked: dict[int, None], number: int, mark: bool) -> bool:
        if number not in self.sockets or mark == (number in marked):
            return False
        if mark:
            marked[number] = None
        else:
            del marked[number]
        return True

    def metered(self, number: int) -> bool:
        """Whether an own socket is on a link that costs by the byte."""
        return self.interface(number) in self._common.settings.metered

    def same_link(self, one: int, other: int) -> bool:
        """Whether two own sockets are on one interface and address generation."""
        a, b = self.find(one), self.find(other)
        if a is None or b is None:
            return one == other
        return a.network.index == b.network.index and a.deprecated == b.deprecated

    def ways(self, endpoints: tuple[Endpoint, ...]) -> list[Path]:
        """Every pair of an open socket and an endpoint it can reach, best socket first.

        IPv4 endpoints are reached from an IPv6 socket through the NAT64 of its network.
        """
        found: list[Path] = []
        for socket in self.usable():
            for endpoint in endpoints:
                if endpoint.family == socket.network.family:
                    found.append(Path(socket.number, endpoint))
                elif endpoint.family == 4 and socket.nat64 is not None:
                    found.append(Path(socket.number, socket.nat64.synthesise(endpoint)))
        return found

    def native(self, path: Path) -> Endpoint:
        """The endpoint of a path as the rest of the world writes it."""
        socket = self.sockets.get(path.socket) or self._past.get(path.socket)
        if socket is None or socket.nat64 is None:
            return path.remote
        return socket.nat64.native(path.remote) or path.remote

    def has_family(self, interface: str, family: int) -> bool:
        """Whether an interface has an own socket of this family."""
        networks = [socket.network for socket in self.sockets.values()]
        return any(n.interface == interface and n.family == family for n in networks)

    def note_mapping(self, number: int, mapped: Endpoint | None, by: str) -> bool:
        """A router mapped an endpoint to a socket, or None any more; whether that is news."""
        socket = self.sockets.get(number)
        if socket is None or socket.mapped == mapped:
            return False
        self.sockets[number] = replace(socket, mapped=mapped, mapped_by=by if mapped else "")
        return True

    def note_outside(self, number: int, outside: Endpoint) -> bool:
        """IPv4 saw a socket behind a NAT64 as ``outside``; whether that is news."""
        socket = self.sockets.get(number)
        if socket is None or socket.outside == outside:
            return False
        self.sockets[number] = replace(socket, outside=outside)
        return True

    def note_nat64(self, number: int, prefix: Prefix) -> OwnSocket | None:
        """A NAT64 serves a socket's network; None if the socket is gone or it was known."""
        socket = self.sockets.get(number)
        if socket is None or socket.nat64 == prefix:
            return None
        self.sockets[number] = socket = replace(socket, nat64=prefix)
        return socket

    def place(self, number: int) -> str:
        """The network of an own socket by what tells it from others: gateway and prefix."""
        socket = self.find(number)
        if socket is None or not socket.network.gateway:
            return ""
        for interface in self._interfaces:
            for each in interface.addresses if interface.name == socket.network.interface else ():
                if each.address == socket.network.address:
                    near = ipaddress.ip_network((each.address, each.prefix_length), strict=False)
                    return f"{socket.network.gateway} {near}"
        return ""

    def for_plane(self, path: Path) -> PlanePath:
        """The path with what the plane needs beside it."""
        settled = path in self.mtus or self.streams.has(path.socket)
        return PlanePath(path, self.mtu(path), path_id(path.socket), settled=settled)

    def mtu(self, path: Path) -> int:
        """Largest IP packet that is known to pass on a path."""
        socket = self.find(path.socket)
        own = min(socket.mtu if socket else DATAGRAM_MAX, DATAGRAM_MAX)
        if self.streams.has(path.socket):
            return own
        return min(self.mtus.get(path, self.least_mtu(path)), own)

    def least_mtu(self, path: Path) -> int:
        """What the padded handshake proved (rule C8)."""
        return HANDSHAKE_SIZE + (28 if path.remote.family == 4 else 48)

    def describe(self, path: Path | None, relay: str = "") -> str:
        """Words for the journal and for ``ntmd ping``: how and over what."""
        if path is None:
            return "none"
        socket = self.find(path.socket) or self._past.get(path.socket)
        interface = socket.network.interface if socket else "?"
        if path.relayed:
            over = " over TLS" if self.streams.has(path.socket) else ""
            return f"relay {relay or path.remote}{over} via {interface}"
        return f"direct via {interface} {path.remote}"

    def interface(self, number: int) -> str:
        """Name of the interface of a present or past socket."""
        socket = self.find(number) or self._past.get(number)
        return socket.network.interface if socket else ""
