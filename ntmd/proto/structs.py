"""What messages are made of: status codes and causes, and the structs inside messages (no tag).

Re-exported by :mod:`ntmd.proto.messages`, which everybody else imports.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

from ntmd.proto.fields import (
    U8,
    U16,
    U64,
    Certificate,
    GrantBytes,
    Id16,
    Name,
    OptionalCertificate,
    RecordBytes,
    Size,
)
from ntmd.proto.types import Endpoint


class Status(enum.IntEnum):
    """The one table of status codes."""

    OK = 0
    BAD_REQUEST = 1
    REFUSED = 2  # policy, role or authority
    NO_SUCH_NAME = 3
    PEER_OFFLINE = 4
    COORDINATOR_UNREACHABLE = 5  # the other domain's DC, or its DNS, does not answer
    TOO_MANY = 6  # a limit; see retry_after_ms
    EXPIRED = 7
    TRY_AGAIN = 8
    INTERNAL = 9


class MoveCause(enum.IntEnum):
    """Why a node moved, as carried in Move."""

    NETWORK_CHANGED = 1
    LINK_LOST = 2
    PATH_SILENT = 3
    SEND_ERROR = 4
    WAKE = 5
    PROMOTION = 6


class CloseReason(enum.IntEnum):
    """Why a session ends."""

    DOWN = 1
    REPLACED = 2
    REVOKED = 3
    REFUSED = 4
    UNKNOWN_SLOT = 5  # the slot is the sender's own: it holds no keys for it (any more)


@dataclass(frozen=True, slots=True)
class CandidateField:
    """A candidate on the wire; ``kind`` is :class:`ntmd.proto.types.CandidateKind`."""

    kind: U8
    endpoint: Endpoint


Candidates16 = Annotated[tuple[CandidateField, ...], Size(0, 16)]
Candidates8 = Annotated[tuple[CandidateField, ...], Size(0, 8)]
Endpoints8 = Annotated[tuple[Endpoint, ...], Size(0, 8)]


@dataclass(frozen=True, slots=True)
class RelayInfo:
    """A relay server: its certificate, where it listens, and where over TLS (rule S12)."""

    name: Name
    certificate: Certificate
    endpoints: Endpoints8
    tls: Endpoints8 = ()


RelayRtts = Annotated[tuple[tuple[Name, U16], ...], Size(0, 4)]
Relays4 = Annotated[tuple[RelayInfo, ...], Size(0, 4)]


@dataclass(frozen=True, slots=True)
class RelayGrant:
    """A grant for one leg pair, and the relay it is good at."""

    relay: RelayInfo
    grant: GrantBytes


Grants4 = Annotated[tuple[RelayGrant, ...], Size(0, 4)]


@dataclass(frozen=True, slots=True)
class PskRef:
    """Names a pre-shared key (rule C4); ``kind`` is :class:`ntmd.proto.types.PskKind`."""

    kind: U8
    id: Id16


@dataclass(frozen=True, slots=True)
class NatView:
    """NAT behaviour: positions of the RFC 4787 words in NatMapping and NatFiltering."""

    mapping: U8 = 4
    filtering: U8 = 4


@dataclass(frozen=True, slots=True)
class SeenCounters:
    """What arrived of the peer's data under ``slot``: greatest counter, 64 before it, counts."""

    slot: U8
    greatest: U64
    bitmap: U64
    received: Annotated[tuple[tuple[U8, U64], ...], Size(0, 8)] = ()  # (path id, datagrams)


@dataclass(frozen=True, slots=True)
class RouteInfo:
    """What one end is told of the other: identity, whereabouts, keys, relay legs, who starts."""

    name: Name
    certificate: Certificate
    record: RecordBytes
    dc_sign: OptionalCertificate
    candidates: Candidates16
    nat: NatView
    psk_id: Id16
    psk: Annotated[bytes, Size(32, 32)]
    grants: Grants4
    start: bool  # True: send the Tunnel Request; False: open the NAT and wait
    relay_only: bool = False
    home_relay: Name = ""  # the peer's home relay: send to the leg there
