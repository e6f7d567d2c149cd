"""Every control message: its tag, its fields, and which answers which.

Names follow the seed paper (Registration, Direction Request, NTM Information, Route Direction).
A message with an ``id`` is a request or its reply: requests are retransmitted on the ladder and
answered idempotently (:mod:`ntmd.proto.exchange`). The classes live in three modules by who speaks;
everybody imports them here. Encoding and strict decoding are in :mod:`ntmd.proto.codec`; nothing
else knows bytes of a message.
"""

from __future__ import annotations

from ntmd.proto.coordinator_messages import (
    Deregister,
    DirectionRequest,
    InformationRequest,
    InformationResponse,
    Register,
    Registered,
    RouteDirection,
    RouteDirectionRequest,
    RouteDirectionResponse,
    RouteDirectionToCaller,
)
from ntmd.proto.relay_messages import (
    Draining,
    LegClose,
    LegMove,
    LegMoved,
    LegOpen,
    LegOpened,
    RelayRegister,
    RelayRegistered,
)
from ntmd.proto.session_messages import (
    Answer,
    AnswerPayload,
    CallPayload,
    CandidateUpdate,
    Close,
    Confirm,
    Done,
    Move,
    MoveReport,
    Probe,
    Seen,
    Unsupported,
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
    "Draining",
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
    "MoveReport",
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

Message = (
    Confirm
    | Probe
    | Answer
    | Seen
    | Move
    | CandidateUpdate
    | Close
    | Unsupported
    | MoveReport
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
    | Draining
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
    | Draining
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
