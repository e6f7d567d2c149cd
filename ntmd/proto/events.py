"""What the session engine is built from, asks of its owner, and tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ntmd.proto.certs import Leaf
from ntmd.proto.messages import Message, PskRef
from ntmd.proto.plane import DataKey
from ntmd.proto.records import Record
from ntmd.proto.types import Arrival, Path, Peer, PskKind, Role, Suite


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: role, FQDN, static X25519 key, certificate chain (leaf first), node record."""

    role: Role
    name: str
    private_key: bytes
    certificates: tuple[bytes, ...]
    record: bytes = b""
    capabilities: int = 0


@dataclass(frozen=True, slots=True)
class Remote:
    """A peer whose certificate verified and whose static key is proven.

    ``record`` is parsed only: whoever relies on its address checks it with the dc-sign
    certificate. ``in_grace``: the certificate has expired less than the grace of rule C9 ago.
    """

    leaf: Leaf
    record_bytes: bytes
    record: Record | None
    capabilities: int
    in_grace: bool = False

    @property
    def peer(self) -> Peer:
        """Role, name and key in one value."""
        return Peer(self.leaf.role, self.leaf.name, self.leaf.key)


@dataclass(frozen=True, slots=True)
class Psk:
    """A pre-shared key (rule C4)."""

    kind: PskKind
    id: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class Admission:
    """A caller may come in, with the psk at ``position`` (1..4) of its list; 0: none."""

    psk: Psk | None = None
    position: int = 0


class Policy(Protocol):
    """What the owner of an engine decides about handshakes."""

    def admit(
        self, caller: Remote, offered: tuple[PskRef, ...], arrival: Arrival, now: float
    ) -> Admission | None:
        """Whether a verified caller may come in; None refuses."""

    def accept_unauthorised(self, peer: Peer, now: float) -> bool:
        """Whether a called peer may answer without any of the psks that we offered."""


@dataclass(frozen=True, slots=True)
class OpenPolicy:
    """Admits every valid certificate of the given roles without psk (infrastructure sessions)."""

    roles: tuple[Role, ...]

    def admit(
        self, caller: Remote, offered: tuple[PskRef, ...], arrival: Arrival, now: float
    ) -> Admission | None:
        """By role alone."""
        return Admission() if caller.leaf.role in self.roles else None

    def accept_unauthorised(self, peer: Peer, now: float) -> bool:
        """Infrastructure sessions use no psk."""
        return True


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Keys and numbers of one session. ``born``: instant of its handshake, boot clock."""

    number: int
    association: int
    slot_in: int
    slot_out: int
    suite: Suite
    data_in: DataKey
    data_out: DataKey
    own_index: int
    peer_index: int
    born: float
    initiator: bool
    resume: Psk


# ------------------------------------------------------------------ events


@dataclass(frozen=True, slots=True)
class SessionReady:
    """Keys exist: receive under them. Sending waits for Established and SessionInUse."""

    handle: int
    remote: Remote
    session: SessionInfo
    path: Path


@dataclass(frozen=True, slots=True)
class Established:
    """A session is confirmed (rule C10). ``first``: a new association, whose Move seq and path
    ids start anew; otherwise a rekey."""

    handle: int
    remote: Remote
    session: SessionInfo
    path: Path
    first: bool
    initiator: bool
    psk: PskRef | None


@dataclass(frozen=True, slots=True)
class SessionInUse:
    """Send data on this session from now on (rules C10 and C12)."""

    handle: int
    number: int


@dataclass(frozen=True, slots=True)
class SessionsGone:
    """Erase the data keys of these sessions (age, Close, replacement)."""

    handle: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """An authenticated control message; ``path`` leads back to where it came from."""

    handle: int
    message: Message
    path: Path
    path_id: int
    primary_id: int
    move_seq: int
    at: float


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to a request of ours."""

    handle: int
    request_id: int
    reply: Message


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """No answer in time, or the session ended."""

    handle: int
    request_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A handshake got no acceptable answer. ``reason`` is "silence" or an error kind."""

    handle: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer ended the session in use; ``reason`` is a CloseReason, or 0 for expired keys."""

    handle: int
    reason: int


@dataclass(frozen=True, slots=True)
class ResetSeen:
    """The peer (or relay) lost its state (rule S4); the engine has begun a new handshake."""

    handle: int


Event = (
    SessionReady
    | Established
    | SessionInUse
    | SessionsGone
    | MessageReceived
    | Replied
    | RequestFailed
    | CallFailed
    | PeerClosed
    | ResetSeen
)
