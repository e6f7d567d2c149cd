"""Every control message: its tag, its fields, and which answers which.

Names follow the seed paper (Registration, Direction Request, NTM Information, Route Direction).
A message with an ``id`` is a request or its reply: requests are retransmitted on the ladder and
answered idempotently (:mod:`ntmd.proto.exchange`). Encoding and strict decoding are in
:mod:`ntmd.proto.codec`; nothing else knows bytes of a message.
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
    GrantBytes,
    Id16,
    Name,
    OptionalCertificate,
    Padding,
    RecordBytes,
    Size,
    Text,
)
from ntmd.proto.structs import (
    CandidateField,
    Candidates8,
    Candidates16,
    CloseReason,
    Endpoints8,
    Grants4,
    MoveCause,
    NatView,
    PskRef,
    RelayGrant,
    RelayInfo,
    Relays4,
    RouteInfo,
    SeenCounters,
    Status,
)
from ntmd.proto.types import Endpoint

__all__ = [
    "Answer",
    "AnswerPayload",
    "CallPayload",
    "CandidateField",
    "CandidateUpdate",
    "Candidates16",
    "Candidates8",
    "Close",
    "CloseReason",
    "Confirm",
    "Deregister",
    "DirectionRequest",
    "Done",
    "Endpoints8",
    "Grants4",
    "InformationRequest",
    "InformationResponse",
    "LegClose",
    "LegMove",
    "LegMoved",
    "LegOpen",
    "LegOpened",
    "Message",
    "Move",
    "MoveCause",
    "NatView",
    "Probe",
    "PskRef",
    "RESERVED_TAGS",
    "Register",
    "Registered",
    "RelayGrant",
    "RelayInfo",
    "RelayRegister",
    "RelayRegistered",
    "Relays4",
    "Reply",
    "Request",
    "RouteDirection",
    "RouteDirectionRequest",
    "RouteDirectionResponse",
    "RouteDirectionToCaller",
    "RouteInfo",
    "Seen",
    "SeenCounters",
    "Status",
    "Unsupported",
]

# ------------------------------------------------------------------ handshake payloads


@dataclass(frozen=True, slots=True)
class CallPayload:
    """Sealed payload of an initiation (Tunnel Request). Certificate and record, or their hashes."""

    tag: ClassVar[int] = 1
    association: U64
    sequence: U64
    slot: U8
    reset_token: Id16
    psks: Annotated[tuple[PskRef, ...], Size(0, 4)]
    certificates: Annotated[tuple[Certificate, ...], Size(0, 2)]
    record: RecordBytes
    certificate_hash: Annotated[bytes, Size(0, 32)] = b""
    record_hash: Annotated[bytes, Size(0, 32)] = b""
    capabilities: U32 = 0


@dataclass(frozen=True, slots=True)
class AnswerPayload:
    """Sealed payload of a response (Tunnel Response)."""

    tag: ClassVar[int] = 2
    slot: U8
    reset_token: Id16
    certificates: Annotated[tuple[Certificate, ...], Size(0, 2)]
    record: RecordBytes
    certificate_hash: Annotated[bytes, Size(0, 32)] = b""
    record_hash: Annotated[bytes, Size(0, 32)] = b""
    capabilities: U32 = 0
    observed: Endpoint | None = None
    platform_ms: U64 = 0


# ------------------------------------------------------------------ in every session


@dataclass(frozen=True, slots=True)
class Confirm:
    """Says that a new session is in use; repeated until the peer is heard under its slot (C10)."""

    tag: ClassVar[int] = 10


@dataclass(frozen=True, slots=True)
class Probe:
    """Challenge of a path, keep-alive, mapping test. ``answer_from``: 0 the same socket, n the
    n-th endpoint of Registered.probe_endpoints counted from 1 (filtering test)."""

    tag: ClassVar[int] = 11
    nonce: U64
    answer_from: U8 = 0
    padding: Padding = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answers a Probe or a Move where it came from, with the source observed there."""

    tag: ClassVar[int] = 12
    nonce: U64
    observed: Endpoint | None
    platform_ms: U64 = 0
    seen: SeenCounters | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Feedback for one-way flows (rule S15)."""

    tag: ClassVar[int] = 13
    counters: SeenCounters


@dataclass(frozen=True, slots=True)
class Move:
    """Rule C6, 2: "send to me here from now on". Answered by Answer(nonce)."""

    tag: ClassVar[int] = 14
    seq: U32
    path: U8
    cause: U8
    nonce: U64
    candidates: Candidates8
    old_dead: bool
    seen: SeenCounters | None = None
    padding: Padding = b""


@dataclass(frozen=True, slots=True)
class CandidateUpdate:
    """Further candidates under the seq of the last Move (a reflexive address learned since)."""

    tag: ClassVar[int] = 15
    seq: U32
    candidates: Candidates8


@dataclass(frozen=True, slots=True)
class Close:
    """Ends the session with ``slot`` (the receiver's) and older ones (rule N7)."""

    tag: ClassVar[int] = 16
    slot: U8
    reason: U8


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Answers an unknown tag, once (rule S11)."""

    tag: ClassVar[int] = 17
    unknown: U32


@dataclass(frozen=True, slots=True)
class Done:
    """A reply that carries only a status."""

    tag: ClassVar[int] = 18
    id: U32
    status: U8
    retry_after_ms: U32 = 0
    text: Text = ""


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


# ------------------------------------------------------------------ RS and its DC, node and RS


@dataclass(frozen=True, slots=True)
class RelayRegister:
    """A relay reports to its DC: where it listens and how busy it is."""

    tag: ClassVar[int] = 60
    id: U32
    endpoints: Endpoints8
    legs: U32
    kbit_s: U32
    draining: bool = False


@dataclass(frozen=True, slots=True)
class RelayRegistered:
    """Answer to RelayRegister; ``dc_sign`` verifies the grants."""

    tag: ClassVar[int] = 61
    id: U32
    status: U8
    retry_after_ms: U32
    platform_ms: U64
    dc_sign: OptionalCertificate
    lease_s: U32 = 60


@dataclass(frozen=True, slots=True)
class LegOpen:
    """Open my leg of a granted pair; I will know its datagrams by ``delivery_index`` (rule C5)."""

    tag: ClassVar[int] = 62
    id: U32
    grant: GrantBytes
    delivery_index: U32


@dataclass(frozen=True, slots=True)
class LegOpened:
    """The leg id to put into the index of datagrams sent to this relay; idempotent."""

    tag: ClassVar[int] = 63
    id: U32
    status: U8
    retry_after_ms: U32
    leg: U32
    reset_token: Annotated[bytes, Size(0, 16)]
    observed: Endpoint | None
    text: Text = ""


@dataclass(frozen=True, slots=True)
class LegMove:
    """My primary source is where this comes from (greatest ``seq`` wins); moves all my legs."""

    tag: ClassVar[int] = 64
    id: U32
    seq: U32
    also: U8 = 0  # path id to duplicate towards for ``for_ms`` (rule C7)
    for_ms: U16 = 0


@dataclass(frozen=True, slots=True)
class LegMoved:
    """Answer to LegMove; ``legs`` are (old, fresh) leg ids (rule S3), old ones hold for 10 s."""

    tag: ClassVar[int] = 65
    id: U32
    seq: U32
    observed: Endpoint | None
    legs: Annotated[tuple[tuple[U32, U32], ...], Size(0, 256)] = ()


@dataclass(frozen=True, slots=True)
class LegClose:
    """Forget my leg of this grant id; answered by Done."""

    tag: ClassVar[int] = 66
    id: U32
    grant_id: Id16


Message = (
    Confirm
    | Probe
    | Answer
    | Seen
    | Move
    | CandidateUpdate
    | Close
    | Unsupported
    | Done
    | Register
    | Registered
    | Deregister
    | DirectionRequest
    | RouteDirectionToCaller
    | RouteDirection
    | RouteDirectionResponse
    | RouteDirectionRequest
    | InformationRequest
    | InformationResponse
    | RelayRegister
    | RelayRegistered
    | LegOpen
    | LegOpened
    | LegMove
    | LegMoved
    | LegClose
)
"""A control message."""

Request = (
    Register
    | Deregister
    | DirectionRequest
    | RouteDirection
    | RouteDirectionRequest
    | InformationRequest
    | RelayRegister
    | LegOpen
    | LegMove
    | LegClose
)
"""A message that is retransmitted until it is answered."""

Reply = (
    Done
    | Registered
    | RouteDirectionToCaller
    | RouteDirectionResponse
    | InformationResponse
    | RelayRegistered
    | LegOpened
    | LegMoved
)
"""A message that answers a request with the same id."""

RESERVED_TAGS = (70, 71)  # post-quantum exchange (rule N1): answered by Unsupported
