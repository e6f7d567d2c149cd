"""What two static keys share over rekeys: sessions, the choice among them, requests, replies.

Plain state with short methods. Who sends what and when is in :mod:`ntmd.proto.calling` and
:mod:`ntmd.proto.answering` (handshakes), :mod:`ntmd.proto.lifecycle` (confirmation, choice, ages),
:mod:`ntmd.proto.channel` (sealed frames) and :mod:`ntmd.proto.exchange` (requests).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ntmd.proto import timing
from ntmd.proto.certs import Leaf
from ntmd.proto.crypto import Aead
from ntmd.proto.events import Psk, Remote, SessionInfo
from ntmd.proto.fragments import Reassembly
from ntmd.proto.messages import PskRef, Request
from ntmd.proto.noise import Initiator
from ntmd.proto.replay import ReplayWindow
from ntmd.proto.types import Path, Peer


@dataclass(slots=True, eq=False)
class Session:
    """One finished handshake, as the control plane uses it."""

    info: SessionInfo
    remote: Remote
    seal_key: bytes
    open_key: bytes
    caller_key: bytes  # the initiator's static key settles simultaneous opens (rule C12)
    psk: PskRef | None
    peer_reset: bytes
    shown: bytes  # fingerprint of the certificate and record that we showed in this handshake
    path: Path | None = None  # where its handshake came from
    window: ReplayWindow = field(default_factory=lambda: ReplayWindow(timing.CONTROL_WINDOW))
    counter: int = 0
    confirmed: bool = False  # may be used for sending
    heard_at: float | None = None  # first frame of the peer under it
    replaced: bool = False  # receives only
    data_erased: bool = False
    fragments: Reassembly | None = None
    next_fragment: int = 0
    ciphers: tuple[Aead, Aead] | None = None  # seal, open; made when needed, see Ciphers

    def erase(self) -> None:
        """Forget the control keys."""
        self.seal_key = self.open_key = b""
        self.ciphers = None


class Ciphers:
    """The ciphers in memory: 5 kB each with AES (measured), so idle sessions keep only keys."""

    def __init__(self, limit: int) -> None:
        self._made: deque[Session] = deque()
        self._limit = limit

    def of(self, session: Session) -> tuple[Aead, Aead]:
        """Seal and open of a session."""
        made = session.ciphers
        if made is None:
            suite = session.info.suite
            made = (Aead(suite, session.seal_key), Aead(suite, session.open_key))
            session.ciphers = made
            self._made.append(session)
            if len(self._made) > self._limit:
                self._made.popleft().ciphers = None
        return made


@dataclass(slots=True, eq=False)
class Attempt:
    """One initiation that is under way: fixed bytes, copied to every path on the ladder."""

    noise: Initiator
    datagram: bytes  # index zero, mac1 right, mac2 zero
    own_index: int
    slot: int
    association: int
    psks: tuple[Psk, ...]
    began: float
    shown: bytes


@dataclass(slots=True, eq=False)
class Call:
    """A call to the peer: attempts (only the last is sent, all may be answered) and paths."""

    attempts: list[Attempt]
    paths: dict[Path, int]  # copies sent on each
    psks: tuple[Psk, ...]
    began: float
    hashes: bool  # the first attempt carries hashes instead of certificates
    association: int
    rung: int = 0
    cookies: dict[Path, bytes] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Asked:
    """A request waiting for its reply."""

    request: Request
    body: bytes
    path: Path | None
    expires: float
    rung: int = 0
    started: bool = False


@dataclass(slots=True, eq=False)
class Association:
    """Everything about one peer."""

    handle: int
    peer: Peer
    numbers: tuple[int, ...] = ()  # association ids that are this one; two after a crossing open
    remote: Remote | None = None
    read: Leaf | None = None  # a certificate of the peer that the owner has parsed
    sessions: dict[int, Session] = field(default_factory=dict)  # by own slot, oldest first
    current: Session | None = None
    call: Call | None = None
    primary: Path | None = None
    move_seq: int = 0
    asked: dict[int, Asked] = field(default_factory=dict)
    answered: dict[int, bytes | None] = field(default_factory=dict)
    unsupported: tuple[int, ...] = ()
    next_request: int = 1
    old_slots: tuple[tuple[float, int], ...] = ()
    last_heard: float = 0.0
    peer_knows: bytes = b""  # fingerprint of our certificate and record that the peer has checked
    last_reset: float = -1e9
    last_not_held: float = -1e9

    def confirmed(self) -> list[Session]:
        """Sessions in which the peer has shown to hold the keys, oldest first."""
        return [each for each in self.sessions.values() if each.confirmed]

    def unconfirmed(self) -> list[Session]:
        """Sessions that the peer began and has not used yet, oldest first."""
        return [each for each in self.sessions.values() if not each.confirmed]

    def of_earlier_life(self, session: Session) -> bool:
        """Whether a session is from before the peer began anew."""
        known = session.info.association in self.numbers or session is self.current
        return session.confirmed and not known

    def crosses(self, new: Session) -> bool:
        """Whether ``new`` is the other half of a simultaneous open: begun by the other end within
        10 s of a session under which the peer had not been heard by then."""
        return any(
            old is not new
            and old.caller_key != new.caller_key
            and abs(old.info.born - new.info.born) <= timing.SIMULTANEOUS_OPEN
            and (old.heard_at is None or old.heard_at >= new.info.born)
            for old in self.confirmed()
        )


def prefer(old: Session, new: Session) -> Session:
    """Of two confirmed sessions, the one to use (rule C12)."""
    apart = abs(new.info.born - old.info.born)
    if old.caller_key != new.caller_key and apart <= timing.SIMULTANEOUS_OPEN:
        return old if old.caller_key < new.caller_key else new
    return new
