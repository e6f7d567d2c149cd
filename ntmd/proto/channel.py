"""Sealed control frames: sealing, opening, fragments, Confirm, Close (rules C1, C10, S5, N7).

Every control plaintext begins with the path id it leaves on, the sender's primary path id and the
sender's Move sequence.
"""

from __future__ import annotations

import struct

from ntmd.proto import timing
from ntmd.proto.association import Association, Ciphers, Session
from ntmd.proto.codec import UnknownTag, decode, encode, encode_greased
from ntmd.proto.context import Context, Delivery
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import MessageReceived
from ntmd.proto.exchange import Exchange
from ntmd.proto.fragments import Reassembly, cut
from ntmd.proto.frame import FRAGMENT, HEADER, HEADER_SIZE, OVERHEAD, Kind
from ntmd.proto.lifecycle import Lifecycle
from ntmd.proto.messages import (
    Close,
    CloseReason,
    Confirm,
    Message,
    Probe,
    Reply,
    Request,
    Unsupported,
)
from ntmd.proto.types import Endpoint, Path, path_id

PREFIX = struct.Struct(">BBI")
SMALLEST = OVERHEAD + PREFIX.size + 1
CIPHERS = 2048  # sessions whose ciphers stay in memory
UNSUPPORTED_KEPT = 8  # unknown tags that were answered, per association

_REQUESTS = frozenset(Request.__args__)
_REPLIES = frozenset(Reply.__args__)
_CONFIRM = encode(Confirm())


def padded_probe(nonce: int, size: int) -> Probe:
    """A challenge whose sealed datagram has ``size`` bytes, if it is not larger without padding."""
    bare = OVERHEAD + PREFIX.size + len(encode(Probe(nonce)))
    count = size - bare
    if count > 255:
        count -= 1  # the length then takes two bytes
    return Probe(nonce, padding=bytes(max(0, count)))


class Channel:
    """Control frames of all associations."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.exchange = Exchange(context, self.send)
        self.life = Lifecycle(context, self._begun)
        self._ciphers = Ciphers(CIPHERS)

    # -------------------------------------------------------------- out

    def tell(self, association: Association, message: Message, path: Path | None) -> None:
        """Send a message on the session in use."""
        session, way = association.current, path or association.primary
        if isinstance(message, Probe) and message.padding and session and way:
            self._seal(association, session, encode(message), way)  # its size is its purpose
        else:
            self.send(association, encode_greased(message), path)

    def send(self, association: Association, body: bytes, path: Path | None) -> None:
        """Send an encoded message on the session in use; without one it is counted and lost."""
        session, way = association.current, path or association.primary
        if session is None or way is None:
            self._context.counters["no_session"] += 1
        else:
            self._send_on(association, session, body, way)

    def _send_on(self, association: Association, session: Session, body: bytes, way: Path) -> None:
        if len(body) <= timing.CONTROL_PAYLOAD:
            self._seal(association, session, body, way)
            return
        if len(body) > timing.CONTROL_MESSAGE_MAX:
            self._context.counters["message_too_large"] += 1
            return
        number = session.next_fragment
        session.next_fragment = (number + 1) & 0xFFFF_FFFF
        for piece in cut(body, number, timing.CONTROL_PAYLOAD):
            self._seal(association, session, piece, way)

    def _seal(self, association: Association, session: Session, body: bytes, way: Path) -> None:
        self._context.send(self._sealed(association, session, body, way), way)

    def _sealed(self, association: Association, session: Session, body: bytes, way: Path) -> bytes:
        counter = session.counter
        session.counter = counter + 1
        index = way.leg or session.info.peer_index
        header = HEADER.pack(Kind.CONTROL, session.info.slot_out, 0, 0, index, counter)
        primary = association.primary or way
        plain = (
            PREFIX.pack(path_id(way.socket), path_id(primary.socket), association.move_seq) + body
        )
        nonce = header[:4] + header[8:]
        return header + self._ciphers.of(session)[0].seal(nonce, plain)

    # -------------------------------------------------------------- in

    def receive(self, data: bytes, socket: int, source: Endpoint, now: float) -> bool:
        """Take a control frame. False: its index is not ours. Raises ProtocolError."""
        if len(data) < SMALLEST:
            raise ProtocolError("truncated")
        _, slot, _, _, index, counter = HEADER.unpack_from(data)
        context = self._context
        use = context.indexes.get(index)
        if use is None:
            return False
        leg = 0
        if isinstance(use, Delivery):
            leg, association = use.leg, context.by_key.get(use.peer_key)
        else:
            association = context.associations.get(use)
        session = association.sessions.get(slot) if association is not None else None
        if association is None or session is None:
            if association is not None:
                self._not_held(association, slot, now)
            raise ProtocolError("unknown_slot")
        if not session.window.check(counter):
            raise ProtocolError("replayed")
        plain = self._ciphers.of(session)[1].open(
            data[:4] + data[8:HEADER_SIZE], data[HEADER_SIZE:]
        )
        session.window.accept(counter)
        if association.of_earlier_life(session):
            raise ProtocolError("earlier_life")  # the peer began anew since it sent this
        path = Path(socket, source, leg)
        self.heard(association, session, path, now)
        body = plain[PREFIX.size :]
        if not body:
            raise ProtocolError("truncated")
        if body[0] == FRAGMENT:
            if session.fragments is None:
                session.fragments = Reassembly(timing.FRAGMENT_BYTES)
            whole = session.fragments.add(body, now)
            if whole is None:
                return True
            body = whole
        self._message(association, session, plain, body, path, now)
        return True

    def heard(self, association: Association, session: Session, path: Path, now: float) -> None:
        """The peer used a session: it is confirmed, and alive."""
        association.last_heard = now
        if session.heard_at is None:
            session.heard_at = now
            if not session.confirmed:
                self.life.confirm(association, session, path, now)

    def _message(
        self,
        association: Association,
        session: Session,
        plain: bytes,
        body: bytes,
        path: Path,
        now: float,
    ) -> None:
        try:
            message = decode(body)
        except UnknownTag as error:
            self._unsupported(association, error.tag, path)
            raise
        kind = type(message)
        if kind is Confirm:
            # Its sender repeats it until it hears this very slot.
            if not session.info.initiator:
                self._send_on(association, session, _CONFIRM, path)
            return
        if isinstance(message, Close):
            self._closed(association, session, message, now)
            return
        if kind in _REPLIES:
            self.exchange.replied(association, message)
            return
        if kind in _REQUESTS and self.exchange.repeated(association, message, path, now):
            return
        here, primary, seq = PREFIX.unpack_from(plain)
        self._context.emit(
            MessageReceived(association.handle, message, path, here, primary, seq, now)
        )

    def _unsupported(self, association: Association, tag: int, path: Path) -> None:
        if tag <= 0xFFFF_FFFF and tag not in association.unsupported:
            association.unsupported = (*association.unsupported[1 - UNSUPPORTED_KEPT :], tag)
            self.tell(association, Unsupported(tag), path)

    # -------------------------------------------------------------- begin and end of sessions

    def _begun(self, association: Association, now: float) -> None:
        self.exchange.begun(association, now)

    def confirm(
        self, association: Association, session: Session, path: Path, rung: int, now: float
    ) -> None:
        """Send Confirm, and again on the ladder until the peer is heard under the session."""
        if session.heard_at is not None or rung >= len(timing.LADDER):
            return
        if association.sessions.get(session.info.slot_in) is not session:
            return
        self._send_on(association, session, _CONFIRM, path)
        self._context.at(
            now + timing.LADDER[rung], self.confirm, association, session, path, rung + 1
        )

    def close(self, association: Association, reason: int, copies: int, now: float) -> None:
        """Say Close under every session that the peer may still use, then forget all of them."""
        for session in association.confirmed():
            body = encode(Close(session.info.slot_out, reason))
            if association.primary is not None:
                for wait in timing.CLOSE_COPIES[:copies]:
                    data = self._sealed(association, session, body, association.primary)
                    if wait == 0.0:
                        self._context.send(data, association.primary)
                    else:
                        self._context.at(now + wait, self._send_later, data, association.primary)
        self.forget(association, now)

    def _send_later(self, data: bytes, way: Path, now: float) -> None:
        self._context.send(data, way)

    def forget(self, association: Association, now: float) -> None:
        """End an association without a word."""
        call, association.call = association.call, None
        if call is not None:
            for attempt in call.attempts:
                self._context.free_index(attempt.own_index, now)
        self.life.drop(association, list(association.sessions.values()), now)

    def _not_held(self, association: Association, slot: int, now: float) -> None:
        """The peer seals for a session that this end has lost: say so under one that both hold.

        A restarted end may hold the younger of two sessions only, while the rule for simultaneous
        opens makes the other end prefer the older one (rule C12).
        """
        if now - association.last_not_held < timing.NOT_HELD_INTERVAL:
            return
        association.last_not_held = now
        if association.primary is not None and association.current is not None:
            self.tell(association, Close(slot, int(CloseReason.UNKNOWN_SLOT)), None)

    def _closed(self, association: Association, under: Session, message: Close, now: float) -> None:
        """Close names one of our slots and ends only sessions not newer than that one."""
        if message.reason == CloseReason.UNKNOWN_SLOT:
            sessions = association.sessions.values()
            lost = [s for s in sessions if s.info.slot_out == message.slot and s is not under]
            self.life.end(association, lost, message.reason, now)
            return
        named = association.sessions.get(message.slot)
        if named is None:
            raise ProtocolError("unknown_slot")
        number = named.info.number
        ended = [each for each in association.sessions.values() if each.info.number <= number]
        self.life.end(association, ended, message.reason, now)
