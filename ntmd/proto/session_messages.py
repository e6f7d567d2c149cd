"""Messages of every session: the sealed handshake payloads, and what any two ends say.

Re-exported by :mod:`ntmd.proto.messages`, which everybody else imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ntmd.proto.fields import (
    U8,
    U32,
    U64,
    Certificate,
    Id16,
    Padding,
    RecordBytes,
    Size,
    Text,
)
from ntmd.proto.structs import (
    Candidates8,
    PskRef,
    SeenCounters,
)
from ntmd.proto.types import Endpoint

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
    n-th endpoint of Registered.probe_endpoints counted from 1 (filtering test). ``spare``: the path
    leads to a link that the sender does not use; no data there until a Move names it."""

    tag: ClassVar[int] = 11
    nonce: U64
    answer_from: U8 = 0
    padding: Padding = b""
    spare: bool = False


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
class MoveReport:
    """What the sender noticed of a move, for the other end's journal. ``own``: the move was the
    sender's. The longest hole in the data that came, ms; data lost and duplicated on the way."""

    tag: ClassVar[int] = 19
    own: bool
    seq: U32
    gap_ms: U32
    lost: U32
    duplicated: U32


@dataclass(frozen=True, slots=True)
class Done:
    """A reply that carries only a status."""

    tag: ClassVar[int] = 18
    id: U32
    status: U8
    retry_after_ms: U32 = 0
    text: Text = ""
