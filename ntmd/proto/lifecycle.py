"""Sessions over their life: ready, confirmed, in use, replaced, erased (rules C1, C10, C12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ntmd.proto import timing
from ntmd.proto.association import Association, Session, prefer
from ntmd.proto.context import Context
from ntmd.proto.events import (
    Established,
    PeerClosed,
    RequestFailed,
    SessionInUse,
    SessionReady,
    SessionsGone,
)
from ntmd.proto.plane import DataKey
from ntmd.proto.types import Path


class Lifecycle:
    """Changes what sessions an association has; nothing here seals or opens.

    ``begun`` is called whenever an association has got a session to send on, and
    ``caller_confirmed`` (set by the owner) with the key of a caller whose session counts.
    """

    def __init__(self, context: Context, begun: Callable[[Association, float], None]) -> None:
        self._context = context
        self._begun = begun
        self.caller_confirmed: Callable[[bytes], None] = lambda key: None

    def ready(self, association: Association, session: Session, path: Path, now: float) -> None:
        """A handshake gave keys: receive under them from now on."""
        waiting = association.unconfirmed()
        if len(waiting) >= timing.HALF_OPEN_PER_KEY:
            self.drop(association, [waiting[0]], now)
        association.sessions[session.info.slot_in] = session
        session.path = path
        context, info = self._context, session.info
        context.tokens[session.peer_reset] = (association.handle, info.peer_index)
        context.emit(SessionReady(association.handle, session.remote, info, path))
        context.at(info.born + timing.DATA_KEY_LIFETIME, self._data_over, association, session)
        if not session.info.initiator:
            context.at(now + timing.HANDSHAKE_LIFETIME, self._half_open_over, association, session)

    def confirm(self, association: Association, session: Session, path: Path, now: float) -> None:
        """The peer holds the keys: the session counts (rule C10)."""
        if session.confirmed:
            return
        first = session.info.association not in association.numbers
        if first and association.crosses(session):
            association.numbers = (*association.numbers[-3:], session.info.association)
            first = False
        session.confirmed = True
        if not session.info.initiator:
            self.caller_confirmed(session.caller_key)
        association.remote, association.last_heard = session.remote, now
        association.peer_knows = session.shown
        if first:
            self._new_association(association, session.info.association, now)
        if first or association.primary is None:
            association.primary = path
        info = session.info
        self._context.emit(
            Established(
                association.handle,
                session.remote,
                info,
                path,
                first,
                info.initiator,
                session.psk,
            )
        )
        self._choose(association, session, now)
        self._begun(association, now)

    def _new_association(self, association: Association, number: int, now: float) -> None:
        known = bool(association.numbers)
        association.numbers = (number,)
        association.answered = {}
        association.unsupported = ()
        association.move_seq = 0
        if not known:
            when = now + timing.CONTROL_KEY_LIFETIME
            self._context.at(when, self._silence_over, association)

    def _choose(self, association: Association, new: Session, now: float) -> None:
        old = association.current
        chosen = new if old is None else prefer(old, new)
        loser = old if chosen is new else new
        association.current = chosen
        if chosen is not old:
            self._context.emit(SessionInUse(association.handle, chosen.info.number))
        if loser is not None and not loser.replaced:
            loser.replaced = True
            when = now + timing.DATA_KEY_LIFETIME
            self._context.at(when, self._replaced_over, association, loser)

    # -------------------------------------------------------------- ends

    def _half_open_over(self, association: Association, session: Session, now: float) -> None:
        if not session.confirmed:
            self.drop(association, [session], now)

    def _data_over(self, association: Association, session: Session, now: float) -> None:
        """Data keys are erased at 180 s of age; control keys live on."""
        if association.sessions.get(session.info.slot_in) is session and not session.data_erased:
            self._erase(session)
            self._context.emit(SessionsGone(association.handle, (session.info.number,)))

    def _erase(self, session: Session) -> None:
        session.data_erased = True
        info = session.info
        none_in = DataKey(info.slot_in, info.suite, b"", info.number)
        none_out = DataKey(info.slot_out, info.suite, b"", info.number)
        session.info = replace(info, data_in=none_in, data_out=none_out)

    def _replaced_over(self, association: Association, session: Session, now: float) -> None:
        if session.replaced:
            self.drop(association, [session], now)

    def _silence_over(self, association: Association, now: float) -> None:
        """24 h without an authenticated frame end everything."""
        if self._context.associations.get(association.handle) is not association:
            return
        due = association.last_heard + timing.CONTROL_KEY_LIFETIME
        if due > now:
            self._context.at(due, self._silence_over, association)
        else:
            self.end(association, list(association.sessions.values()), 0, now)

    def drop(self, association: Association, sessions: list[Session], now: float) -> None:
        """Forget sessions, their keys and indices. An association without anything goes too."""
        gone = []
        for session in sessions:
            slot = session.info.slot_in
            if association.sessions.get(slot) is not session:
                continue
            del association.sessions[slot]
            session.erase()
            self._context.free_index(session.info.own_index, now)
            self._context.tokens.pop(session.peer_reset, None)
            if not session.data_erased:
                self._erase(session)
                gone.append(session.info.number)
        if association.current is not None and association.current in sessions:
            association.current = None
        if gone:
            self._context.emit(SessionsGone(association.handle, tuple(gone)))
        self.release(association, now)

    def end(
        self, association: Association, sessions: list[Session], reason: int, now: float
    ) -> None:
        """The peer ended these sessions, or silence did. Reported if none is left to send on."""
        had = association.current is not None
        self.drop(association, sessions, now)
        if association.current is None and had:
            left = association.confirmed()
            if left:
                self._resurrect(association, left[-1])
            else:
                association.numbers = ()
                self.fail_requests(association, "closed")
                self._context.emit(PeerClosed(association.handle, reason))
                self.release(association, now)

    def _resurrect(self, association: Association, session: Session) -> None:
        association.current = session
        session.replaced = False
        self._context.emit(SessionInUse(association.handle, session.info.number))

    def release(self, association: Association, now: float) -> None:
        """Forget an association that has no session, no call and no history to keep."""
        if association.sessions or association.call is not None:
            return
        self.fail_requests(association, "closed")
        if self._context.associations.get(association.handle) is association:
            del self._context.associations[association.handle]
            del self._context.by_key[association.peer.key]

    def fail_requests(self, association: Association, reason: str) -> None:
        """Requests that can no longer be answered."""
        asked, association.asked = association.asked, {}
        for request_id in asked:
            self._context.emit(RequestFailed(association.handle, request_id, reason))
