"""The initiator's half of a handshake: copies on the ladder to every path, cookies, the answer.

All copies of one initiation differ only in index, mac1 and mac2 (rule C11). From the fifth rung on
a second, unpadded initiation with full certificates takes the place of the first (rule C8); either
may be answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from ntmd.proto import noise, timing
from ntmd.proto.association import Association, Attempt, Call
from ntmd.proto.channel import Channel
from ntmd.proto.codec import decode_payload
from ntmd.proto.context import Context, Delivery
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import CallFailed, Psk
from ntmd.proto.frame import (
    HEADER,
    HEADER_SIZE,
    WIRE_VERSION,
    Header,
    Kind,
    pack_header,
    with_index,
)
from ntmd.proto.handshake import (
    INITIATION_OVERHEAD,
    Facts,
    check_grace,
    finish,
    make_session,
    may_use_hashes,
    pad,
    shown_fields,
    verify,
)
from ntmd.proto.messages import AnswerPayload, CallPayload, PskRef
from ntmd.proto.noise import MAC, SessionSecrets
from ntmd.proto.records import choose_suite
from ntmd.proto.types import Endpoint, Path, Peer, Suite

PSKS = 4  # offered in one initiation (rule C4)
PAYLOAD_ROOM = 880  # certificates and record in an initiation of 1,200 bytes with four psk ids


def _too_old(begun: Call | Attempt, now: float) -> bool:
    """Whether nobody answers any more. The two ends of a session agree on its age (rule C12)."""
    return now - begun.began > timing.HANDSHAKE_LIFETIME


class Calling:
    """Handshakes that we begin."""

    def __init__(self, context: Context, channel: Channel) -> None:
        self._context = context
        self._channel = channel

    def call(
        self,
        peer: Peer,
        paths: Sequence[Path],
        now: float,
        psks: Sequence[Psk] = (),
        suite: Suite | None = None,
        *,
        anew: bool = False,
        hashes: bool = False,
    ) -> Association:
        """Begin a handshake, or add paths and psks to the one under way.

        ``anew``: under a new association id, since the peer has lost its state. ``hashes``: instead
        of certificates, where the peer surely still has them.
        """
        association = self._context.association(peer)
        offered = tuple(psks)[:PSKS]
        call = association.call
        if call is not None and not anew and set(offered) <= set(call.psks):
            if _too_old(call, now):  # this process stood still
                call.paths.update(dict.fromkeys(paths, 0))
                self._anew(association, call, now)
            else:
                self.widen(association, paths, now)
            return association
        if association.current is None:
            association.peer = peer
        kept: list[Attempt] = []
        if call is not None:
            kept = self._young(call, now)
            paths = [*call.paths, *paths]
        fresh = anew or association.current is None
        number = int.from_bytes(self._context.random(8), "big") if fresh else association.numbers[0]
        if call is not None and not anew:
            number = call.association
        hashes = hashes and not fresh and may_use_hashes(self._context, association, now)
        call = Call(kept, dict.fromkeys(paths, 0), offered, now, hashes, number)
        self._begin(association, call, suite, now)
        return association

    def _begin(self, association: Association, call: Call, suite: Suite | None, now: float) -> None:
        association.call = call
        self._attempt(association, call, suite, call.hashes, not call.hashes, now)
        self._context.at(now + timing.HANDSHAKE_LIFETIME, self._over, association, call)
        self._step(association, call, now)

    def widen(self, association: Association, paths: Sequence[Path], now: float) -> None:
        """Send the initiation under way on further paths too, now and with each later copy."""
        call = association.call
        if call is None:
            return
        if _too_old(call, now):
            call.paths.update(dict.fromkeys(paths, 0))
            return  # this process stood still: see _over
        for path in paths:
            if path not in call.paths:
                call.paths[path] = 0
                self._copy(call, path)
                if call.rung > len(timing.LADDER):
                    # The ladder was over: the new path gets the slower half of it.
                    call.rung = timing.UNPADDED_FROM_RUNG
                    self._context.at(now + timing.LADDER[call.rung], self._step, association, call)

    # -------------------------------------------------------------- out

    def _attempt(
        self,
        association: Association,
        call: Call,
        suite: Suite | None,
        hashes: bool,
        padded: bool,
        now: float,
    ) -> None:
        """Make a fresh initiation; ``padded`` is to 1,200 bytes, hashes are padded to 320."""
        context, peer = self._context, association.peer
        known = association.remote.capabilities if association.remote else 0
        chosen = suite or choose_suite(context.identity.capabilities, known)
        handshake = noise.Initiator(
            chosen,
            noise.prologue(chosen, context.platform_id, peer.role, peer.name),
            context.static,
            peer.key,
            context.random(32),
        )
        own_index = context.draw_index(now, association.handle)
        slot = context.draw_slot(association, now)
        shown = shown_fields(context, hashes=hashes, room=PAYLOAD_ROOM)
        payload = CallPayload(
            association=call.association,
            sequence=context.sequencer.next(context.platform_ms(now)),
            slot=slot,
            reset_token=context.reset_token(own_index),
            psks=tuple(PskRef(int(each.kind), each.id) for each in call.psks),
            certificates=shown.certificates,
            record=shown.record,
            certificate_hash=shown.certificate_hash,
            record_hash=shown.record_hash,
            capabilities=shown.capabilities,
        )
        size = timing.HANDSHAKE_SIZE if padded else timing.REKEY_SIZE if hashes else 0
        header = pack_header(Kind.INITIATION, WIRE_VERSION, chosen, 0, 0, own_index << 32)
        message = handshake.write_message1(pad(payload, INITIATION_OVERHEAD, size))
        datagram = finish(context, peer.key, header + message)
        began = now
        call.attempts.append(
            Attempt(
                handshake,
                datagram,
                own_index,
                slot,
                call.association,
                call.psks,
                began,
                context.fingerprint,
            )
        )
        while len(call.attempts) > timing.CALL_ATTEMPTS:
            context.free_index(call.attempts.pop(0).own_index, now)

    def _copy(self, call: Call, path: Path) -> None:
        if call.paths[path] >= timing.CANDIDATE_COPIES:
            return
        call.paths[path] += 1
        datagram = call.attempts[-1].datagram
        cookie = call.cookies.get(path)
        if cookie is not None:
            datagram = datagram[:-MAC] + noise.mac2(cookie, datagram[:-MAC])
        self._context.send(with_index(datagram, path.leg), path)

    def _step(self, association: Association, call: Call, now: float) -> None:
        """One rung: a copy on every path."""
        if association.call is not call or call.rung > len(timing.LADDER):
            return
        if _too_old(call, now):
            return  # this process stood still: see _over
        if call.rung == timing.UNPADDED_FROM_RUNG:
            suite = Suite(call.attempts[-1].datagram[2])
            self._attempt(association, call, suite, False, False, now)
        for path in call.paths:
            self._copy(call, path)
        if call.rung < len(timing.LADDER):
            self._context.at(now + timing.LADDER[call.rung], self._step, association, call)
        call.rung += 1

    def _over(self, association: Association, call: Call, now: float) -> None:
        if association.call is not call:
            return
        if call.rung >= timing.UNPADDED_FROM_RUNG:
            self._end(association, "silence", now)
            return
        # Copies due within 0.25 s were not sent in 10 s: this process stood still, nobody was
        # silent.
        self._anew(association, call, now)

    def _anew(self, association: Association, call: Call, now: float) -> None:
        """The initiation is too old to be answered (C10), so a fresh one takes its place."""
        paths, suite = dict.fromkeys(call.paths, 0), Suite(call.attempts[-1].datagram[2])
        kept = self._young(call, now)
        fresh = Call(kept, paths, call.psks, now, call.hashes, call.association)
        self._begin(association, fresh, suite, now)

    def _young(self, call: Call, now: float) -> list[Attempt]:
        """The attempts that may still be answered; the others leave."""
        for attempt in [each for each in call.attempts if _too_old(each, now)]:
            call.attempts.remove(attempt)
            self._context.free_index(attempt.own_index, now)
        return call.attempts

    def _end(self, association: Association, failure: str | None, now: float) -> None:
        """The call is over; the index of the attempt that succeeded has left the list before."""
        call, association.call = association.call, None
        if call is None:
            return
        for attempt in call.attempts:
            self._context.free_index(attempt.own_index, now)
        if failure is not None:
            self._context.emit(CallFailed(association.handle, failure))
            self._channel.life.release(association, now)

    # -------------------------------------------------------------- in

    def cookie(self, data: bytes, socket: int, source: Endpoint, now: float) -> None:
        """The peer is under load: send the last copy again, with mac2 from its cookie."""
        association, leg = self._owner(data)
        call = association.call
        path = Path(socket, source, leg)
        if call is None or path not in call.paths:
            raise ProtocolError("unexpected_cookie")
        trigger = call.attempts[-1].datagram[-2 * MAC : -MAC]
        fresh = noise.open_cookie(data, association.peer.key, trigger)
        if call.cookies.get(path) != fresh:
            call.cookies[path] = fresh
            self._copy(call, path)

    def response(self, data: bytes, socket: int, source: Endpoint, now: float) -> None:
        """Message 2: check it, and the session counts for us (rule C10)."""
        association, leg = self._owner(data)
        call = association.call
        if call is None:
            raise ProtocolError("late_response")
        if not noise.check_mac1(noise.mac1_key(self._context.public), data):
            raise ProtocolError("bad_mac1")
        header = Header(*HEADER.unpack_from(data))
        error = ProtocolError("late_response")
        for attempt in call.attempts:
            if leg == 0 and header.index != attempt.own_index:
                continue
            if _too_old(attempt, now):
                continue  # the peer has forgotten it by now, and its keys would be as old
            try:
                body, secrets = self._open(attempt, header, data)
            except ProtocolError as failure:
                error = failure
                continue
            path = Path(socket, source, leg)
            self._answered(association, attempt, header, body, secrets, path, now)
            return
        raise error

    def _open(self, attempt: Attempt, header: Header, data: bytes) -> tuple[bytes, SessionSecrets]:
        if header.choice > len(attempt.psks):
            raise ProtocolError("unknown_psk")
        secret = attempt.psks[header.choice - 1].secret if header.choice else noise.NO_PSK
        return attempt.noise.read_message2(data[HEADER_SIZE : -2 * MAC], secret)

    def _answered(
        self,
        association: Association,
        attempt: Attempt,
        header: Header,
        body: bytes,
        secrets: SessionSecrets,
        path: Path,
        now: float,
    ) -> None:
        """The answer is the peer's for certain; what is wrong with it ends the call."""
        psk = attempt.psks[header.choice - 1] if header.choice else None
        try:
            answer = decode_payload(body, AnswerPayload)
            peer = association.peer
            known, read = association.remote, association.read
            remote = verify(self._context, answer, known, peer, peer.key, now, read)
            check_grace(remote, psk)
            may = psk is not None or not attempt.psks
            if not may and not self._context.policy.accept_unauthorised(peer, now):
                raise ProtocolError("unauthorised")
        except ProtocolError as error:
            self._end(association, error.kind, now)
            raise
        facts = Facts(
            suite=Suite(attempt.datagram[2]),
            initiator=True,
            association=attempt.association,
            own_index=attempt.own_index,
            peer_index=header.counter >> 32,
            own_slot=attempt.slot,
            peer_slot=answer.slot,
            peer_reset=answer.reset_token,
            born=attempt.began,
            psk=psk,
            shown=attempt.shown,
        )
        session = make_session(self._context, remote, facts, secrets)
        if association.call is not None:
            association.call.attempts.remove(attempt)
        self._end(association, None, now)
        self._channel.life.ready(association, session, path, now)
        self._channel.life.confirm(association, session, path, now)
        self._channel.confirm(association, session, path, 0, now)

    def _owner(self, data: bytes) -> tuple[Association, int]:
        use = self._context.indexes.get(int.from_bytes(data[4:8], "big"))
        leg, association = 0, None
        if isinstance(use, Delivery):
            leg, association = use.leg, self._context.by_key.get(use.peer_key)
        elif use is not None:
            association = self._context.associations.get(use)
        if association is None:
            raise ProtocolError("unknown_index")
        return association, leg
