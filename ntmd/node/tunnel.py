"""The states of a tunnel, and every legal move between them.

:data:`TRANSITIONS` is the whole truth: what is not in it does not happen (the input is counted and
changes nothing). ``docs/protocol.md`` draws its diagram from this table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing is under way. ``since`` as in all states: boot-clock instant of entering it."""

    since: float


@dataclass(frozen=True, slots=True)
class Asking:
    """The coordinator was asked for a way."""

    since: float


@dataclass(frozen=True, slots=True)
class Calling:
    """Tunnel Requests are out, on every candidate and over the relay."""

    since: float


@dataclass(frozen=True, slots=True)
class Awaiting:
    """The coordinator said that the peer starts; the own NAT is open."""

    since: float


@dataclass(frozen=True, slots=True)
class Open:
    """A confirmed session carries packets."""

    since: float


@dataclass(frozen=True, slots=True)
class Asleep:
    """Idle: no data key is in use, nothing is kept alive, the association still is."""

    since: float


@dataclass(frozen=True, slots=True)
class Waking:
    """A packet waits while the association makes fresh data keys."""

    since: float


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no way at present; the reason is told to whoever asks before ``until``."""

    since: float
    reason: str
    until: float


State = Closed | Asking | Calling | Awaiting | Open | Asleep | Waking | Failed
StateType = (
    type[Closed]
    | type[Asking]
    | type[Calling]
    | type[Awaiting]
    | type[Open]
    | type[Asleep]
    | type[Waking]
    | type[Failed]
)
STATES: tuple[StateType, ...] = (Closed, Asking, Calling, Awaiting, Open, Asleep, Waking, Failed)


class Input(enum.Enum):
    """What can happen to a tunnel."""

    WANTED = "a packet or a program wants the peer, nothing is known of it"
    WANTED_KNOWN = "a packet or a program wants a peer known from before"
    DIRECTED_TO_CALL = "the coordinator directs us to start"
    DIRECTED_TO_WAIT = "the coordinator directs the peer to start"
    PATIENCE_OVER = "the peer that should have started did not"
    REFUSED = "the coordinator knows no way"
    CONFIRMED = "a session is confirmed"
    CALL_FAILED = "no handshake came through"
    IDLE = "no data for a while, or the last data key expired"
    WOKEN = "a packet waits and a data key still lives"
    PEER_CLOSED = "the peer ended the session"
    STOPPED = "this node goes down, or forgets the peer"


I = Input  # noqa: E741  # the table below reads better so

TRANSITIONS: dict[tuple[StateType, Input], StateType] = {
    (Closed, I.WANTED): Asking,
    (Closed, I.WANTED_KNOWN): Calling,
    (Closed, I.DIRECTED_TO_CALL): Calling,
    (Closed, I.DIRECTED_TO_WAIT): Awaiting,
    (Closed, I.CONFIRMED): Open,
    (Asking, I.DIRECTED_TO_CALL): Calling,
    (Asking, I.DIRECTED_TO_WAIT): Awaiting,
    (Asking, I.REFUSED): Failed,
    (Asking, I.CONFIRMED): Open,
    (Asking, I.STOPPED): Closed,
    (Calling, I.DIRECTED_TO_CALL): Calling,
    (Calling, I.DIRECTED_TO_WAIT): Calling,
    (Calling, I.CONFIRMED): Open,
    (Calling, I.CALL_FAILED): Failed,
    (Calling, I.STOPPED): Closed,
    (Awaiting, I.DIRECTED_TO_CALL): Calling,
    (Awaiting, I.DIRECTED_TO_WAIT): Awaiting,
    (Awaiting, I.PATIENCE_OVER): Calling,
    (Awaiting, I.CONFIRMED): Open,
    (Awaiting, I.STOPPED): Closed,
    (Open, I.CONFIRMED): Open,
    (Open, I.DIRECTED_TO_CALL): Open,
    (Open, I.DIRECTED_TO_WAIT): Open,
    (Open, I.IDLE): Asleep,
    (Open, I.PEER_CLOSED): Closed,
    (Open, I.STOPPED): Closed,
    (Asleep, I.WOKEN): Open,
    (Asleep, I.WANTED): Waking,
    (Asleep, I.WANTED_KNOWN): Waking,
    (Asleep, I.CONFIRMED): Open,
    (Asleep, I.DIRECTED_TO_CALL): Waking,
    (Asleep, I.DIRECTED_TO_WAIT): Asleep,
    (Asleep, I.PEER_CLOSED): Closed,
    (Asleep, I.STOPPED): Closed,
    (Waking, I.CONFIRMED): Open,
    (Waking, I.DIRECTED_TO_CALL): Waking,
    (Waking, I.DIRECTED_TO_WAIT): Waking,
    (Waking, I.CALL_FAILED): Failed,
    (Waking, I.PEER_CLOSED): Closed,
    (Waking, I.STOPPED): Closed,
    (Failed, I.WANTED): Asking,
    (Failed, I.WANTED_KNOWN): Calling,
    (Failed, I.DIRECTED_TO_CALL): Calling,
    (Failed, I.DIRECTED_TO_WAIT): Awaiting,
    (Failed, I.CONFIRMED): Open,
    (Failed, I.STOPPED): Closed,
}
"""(state, input) -> next state."""

FAILURE_PAUSE = 2.0  # a peer that could not be reached is not called again for this long, seconds


def step(
    state: State, event: Input, now: float, reason: str = "", pause: float = FAILURE_PAUSE
) -> State | None:
    """The state after ``event``; None if the table has no such move."""
    following = TRANSITIONS.get((type(state), event))
    if following is None:
        return None
    if following is Failed:
        return Failed(now, reason, now + pause)
    if following is type(state):
        return state
    return following(now)  # type: ignore[call-arg]


def word(state: State) -> str:
    """The state in the words of ``ntmd status``."""
    if isinstance(state, Open):
        return "established"
    if isinstance(state, Asleep):
        return "idle"
    return type(state).__name__.lower()
