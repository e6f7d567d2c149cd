"""Messages of the direction coordinator: between a node and its DC, and between two DCs.

Re-exported by :mod:`ntmd.proto.messages`, which everybody else imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ntmd.proto.fields import (
    U8,
    U16,
    U32,
    U64,
    Certificate,
    Name,
    OptionalCertificate,
    RecordBytes,
    Size,
    Text,
)
from ntmd.proto.structs import (
    Candidates16,
    Endpoints8,
    Grants4,
    NatView,
    RelayRtts,
    Relays4,
    RouteInfo,
)
from ntmd.proto.types import Endpoint

# ------------------------------------------------------------------ node and DC


@dataclass(frozen=True, slots=True)
class Register:
    """Registration Request: where this node is. The session proves who it is."""

    tag: ClassVar[int] = 30
    id: U32
    candidates: Candidates16
    nat: NatView
    capabilities: U32 = 0
    home_relay: Name = ""
    lease_s: U32 = 0
    relay_rtts: RelayRtts = ()  # relays kept warm: name, round trip in ms


@dataclass(frozen=True, slots=True)
class Registered:
    """Registration Response."""

    tag: ClassVar[int] = 31
    id: U32
    status: U8
    retry_after_ms: U32
    platform_ms: U64
    address: Annotated[bytes, Size(0, 16)]
    record: RecordBytes
    dc_sign: OptionalCertificate
    observed: Endpoint | None
    probe_endpoints: Endpoints8
    relays: Relays4
    keepalive_s: U16
    domains: Annotated[tuple[Name, ...], Size(0, 16)]
    text: Text = ""
    tls: Endpoints8 = ()  # of this coordinator (rule S12)


@dataclass(frozen=True, slots=True)
class Deregister:
    """The node goes down; answered by Done."""

    tag: ClassVar[int] = 32
    id: U32


@dataclass(frozen=True, slots=True)
class DirectionRequest:
    """MN asks its DC for a way to a name, or (name empty) to a virtual address."""

    tag: ClassVar[int] = 33
    id: U32
    name: Name
    address: Annotated[bytes, Size(0, 16)] = b""


@dataclass(frozen=True, slots=True)
class RouteDirectionToCaller:
    """Route Direction to MN: the reply to its Direction Request, sent after CN is ready."""

    tag: ClassVar[int] = 34
    id: U32
    status: U8
    retry_after_ms: U32
    text: Text
    route: RouteInfo | None


@dataclass(frozen=True, slots=True)
class RouteDirection:
    """Route Direction to DC_CN and on to CN; answered by RouteDirectionResponse."""

    tag: ClassVar[int] = 35
    id: U32
    to: Name
    route: RouteInfo


@dataclass(frozen=True, slots=True)
class RouteDirectionResponse:
    """CN is ready (its NAT open), or not."""

    tag: ClassVar[int] = 36
    id: U32
    status: U8
    retry_after_ms: U32 = 0
    text: Text = ""


@dataclass(frozen=True, slots=True)
class RouteDirectionRequest:
    """A node that was woken asks for the directions waiting for it; answered by Done."""

    tag: ClassVar[int] = 37
    id: U32


# ------------------------------------------------------------------ DC and DC


@dataclass(frozen=True, slots=True)
class InformationRequest:
    """NTM Information Request: DC_MN asks DC_CN about CN, showing MN's certificate and record."""

    tag: ClassVar[int] = 50
    id: U32
    name: Name  # empty: by address
    address: Annotated[bytes, Size(0, 16)]
    caller_certificate: Certificate
    caller_record: RecordBytes
    caller_dc_sign: OptionalCertificate


@dataclass(frozen=True, slots=True)
class InformationResponse:
    """NTM Information Response."""

    tag: ClassVar[int] = 51
    id: U32
    status: U8
    retry_after_ms: U32
    name: Name
    certificate: OptionalCertificate
    record: RecordBytes
    dc_sign: OptionalCertificate
    candidates: Candidates16
    nat: NatView
    awake: bool
    grants: Grants4
    home_relay: Name = ""
    text: Text = ""
