"""What can happen to a node, in the past tense.

Shared inputs (datagrams, user requests) are in :mod:`ntmd.proto.io`; what the data plane reports
(``SocketOpened``, ``NoTunnelFor``, ``PeerMoved``, ``TunnelActivity`` ...) in
:mod:`ntmd.proto.plane`. All of them are handed to :meth:`ntmd.node.core.NodeCore.handle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ntmd.proto.nat64 import Prefix
from ntmd.proto.types import Endpoint


@dataclass(frozen=True, slots=True)
class UnderlayAddress:
    """An address of an underlay interface. ``deprecated``/``tentative`` as the kernel says."""

    address: str
    prefix_length: int
    deprecated: bool = False
    tentative: bool = False


@dataclass(frozen=True, slots=True)
class UnderlayInterface:
    """An interface that may carry tunnels: never the TUN itself, loopback or a link that is down.

    ``gateways`` are default gateways by family (4, 6), empty where the default route has none;
    without a default route a family is missing. ``metric`` is that of the best default route,
    ``mtu`` of the link; ``carrier`` whether the link is up.
    """

    name: str
    index: int
    mtu: int
    carrier: bool
    addresses: tuple[UnderlayAddress, ...]
    gateways: tuple[tuple[int, str], ...] = ()
    metric: int = 0


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """The underlay as it is now, whole (never a delta), best interface first."""

    interfaces: tuple[UnderlayInterface, ...]
    at: float = 0.0  # boot-clock instant of the kernel's message


@dataclass(frozen=True, slots=True)
class NameAsked:
    """A program asked the stub resolver for a name of the platform; hold the answer."""

    token: int
    name: str


@dataclass(frozen=True, slots=True)
class DeviceReady:
    """The TUN has its addresses, routes and MTU."""

    interface: str


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """The shell could not do what a command wished."""

    command: str
    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class ClockRead:
    """The shell's wall clock, in ms since the epoch, at the instant of the input (rule S8)."""

    wall_ms: int


@dataclass(frozen=True, slots=True)
class Woke:
    """The machine was asleep for so many seconds: the boot clock ran ahead of the monotonic one.

    Comes before anything that became due or arrived meanwhile.
    """

    asleep: float


@dataclass(frozen=True, slots=True)
class Stopping:
    """The daemon ends: tell peers and the coordinator."""

    reason: str = "down"


@dataclass(frozen=True, slots=True)
class CertificateRenewed:
    """The shell fetched a new certificate from the account server."""

    certificates: tuple[bytes, ...]
    extra: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PortMapped:
    """The router in front of an own socket mapped a port to it; ``outside`` None: not any more.

    ``protocol`` is pcp, nat-pmp or upnp. A hint: whether it lets anybody in shows in use.
    """

    socket: int
    outside: Endpoint | None
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Nat64Found:
    """The network of an own IPv6 socket reaches IPv4 hosts through ``prefix``."""

    socket: int
    prefix: Prefix
