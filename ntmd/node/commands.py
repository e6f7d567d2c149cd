"""What a node can want done, in the imperative.

Commands to the data plane (``OpenSocket``, ``InstallTunnel``, ``SwitchPath`` ...) are in
:mod:`ntmd.proto.plane`; ``SendDatagram``, ``Store``, ``Tell`` and ``UserAnswered`` in
:mod:`ntmd.proto.io`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ntmd.proto.types import Endpoint


@dataclass(frozen=True, slots=True)
class ConfigureDevice:
    """Give the TUN its virtual address, the stub resolver's address, routes and domains.

    Sent once the address is known; sent again only if it differs (**the TUN never blinks**).
    """

    address: bytes
    dns_address: bytes
    prefix: str  # the platform's /48 in text form
    mtu: int
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NameAnswered:
    """Answer a held DNS question: an address, NXDOMAIN (``exists`` False) or SERVFAIL."""

    token: int
    address: bytes | None
    exists: bool = True
    ttl: int = 30


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The node's state for ``ntmd status`` and ``up``: joining, up, degraded, offline, down."""

    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RenewCertificate:
    """Fetch a new certificate from the account server (answered by CertificateRenewed)."""

    after: float


@dataclass(frozen=True, slots=True)
class ScoutNetwork:
    """Look what the network of an own socket offers, and keep at it until :class:`EndScout`.

    IPv4: a port mapping at the router (PCP, NAT-PMP, UPnP) towards ``local``. IPv6 without IPv4
    beside it: a NAT64. Answered by ``PortMapped`` and ``Nat64Found``, or by nothing.
    """

    socket: int
    interface: str
    local: Endpoint
    gateway: str


@dataclass(frozen=True, slots=True)
class EndScout:
    """The socket is gone: give its port mapping back."""

    socket: int
