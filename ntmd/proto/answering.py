"""The responder's half of a handshake (rules C4, C8, C10 and C11).

An initiation changes no path, no psk and no session: it only gives a session that is not confirmed
yet. Identical copies within 10 s get the identical response, each to its own source.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ntmd.proto import noise, timing
from ntmd.proto.channel import Channel
from ntmd.proto.codec import decode_payload
from ntmd.proto.context import Context, Delivery
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Admission, Remote
from ntmd.proto.flood import Cookies, Copies, Gate, digest
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
    RESPONSE_OVERHEAD,
    Facts,
    check_grace,
    finish,
    make_session,
    pad,
    shown_fields,
    verify,
)
from ntmd.proto.messages import AnswerPayload, CallPayload
from ntmd.proto.noise import MAC
from ntmd.proto.types import Arrival, Endpoint, Path, Suite

SUITES = frozenset(int(each) for each in Suite)
PAYLOAD_ROOM = 1000  # certificates and record in a response of 1,200 bytes


@dataclass(frozen=True, slots=True)
class _Caller:
    """An initiation whose sender is proven, and may come in."""

    handshake: noise.Responder
    header: Header
    payload: CallPayload
    remote: Remote
    admission: Admission


class Answering:
    """Handshakes that peers begin."""

    def __init__(self, context: Context, channel: Channel) -> None:
        self._context = context
        self._channel = channel
        self._copies = Copies()
        self._cookies = Cookies(context.random)
        self._gate = Gate()
        self._sequences: OrderedDict[bytes, int] = OrderedDict()
        self._mac1_key = noise.mac1_key(context.public)

    def initiation(self, data: bytes, socket: int, source: Endpoint, now: float) -> None:
        """Message 1; raises ProtocolError for whatever is wrong with it."""
        header = Header(*HEADER.unpack_from(data))
        arrival = Arrival(socket, source, header.index)
        path = self._way_back(arrival)
        if len(data) < INITIATION_OVERHEAD or len(data) > timing.HANDSHAKE_SIZE:
            raise ProtocolError("truncated" if len(data) < INITIATION_OVERHEAD else "oversized")
        if header.slot != WIRE_VERSION or header.suite not in SUITES or header.choice:
            raise ProtocolError("unknown_version")
        if not noise.check_mac1(self._mac1_key, data):
            raise ProtocolError("bad_mac1")
        key = digest(data)
        known = self._copies.find(key, now)
        if known is not None:
            self._respond(known, header, path)
            return
        self._admit_source(data, header, arrival, path, now)
        response = self._answer(self._caller(data, header, arrival, now), data, path, now)
        self._copies.keep(key, response, now)
        self._respond(response, header, path)

    def heard(self, key: bytes) -> None:
        """A caller has confirmed its session."""
        self._gate.confirmed(key)

    def _way_back(self, arrival: Arrival) -> Path:
        """Message 1 comes with index 0, or over a relay with one of our delivery indices."""
        use = self._context.indexes.get(arrival.index) if arrival.index else None
        if arrival.index and not isinstance(use, Delivery):
            raise ProtocolError("unknown_index")
        return Path(arrival.socket, arrival.source, use.leg if isinstance(use, Delivery) else 0)

    def _respond(self, response: bytes, header: Header, path: Path) -> None:
        index = path.leg or header.counter >> 32
        self._context.send(with_index(response, index), path)

    def _admit_source(
        self, data: bytes, header: Header, arrival: Arrival, path: Path, now: float
    ) -> None:
        self._gate.arrived(now)
        if self._gate.loaded():
            cookie = self._cookies.make(arrival, now)
            if not self._cookies.valid(data, arrival):
                index = path.leg or header.counter >> 32
                head = pack_header(Kind.COOKIE, WIRE_VERSION, header.suite, 0, index, 0)
                trigger = data[-2 * MAC : -MAC]
                salt = self._context.random(16)
                sealed = noise.seal_cookie(head, self._context.public, cookie, trigger, salt)
                self._context.send(sealed, path)
                raise ProtocolError("cookie_asked")
            if not self._gate.take(arrival, now):
                raise ProtocolError("source_limit")
        if not self._gate.has_room(now):
            raise ProtocolError("half_open_limit")

    # -------------------------------------------------------------- who calls

    def _caller(self, data: bytes, header: Header, arrival: Arrival, now: float) -> _Caller:
        context, suite = self._context, Suite(header.suite)
        me = context.identity
        prologue = noise.prologue(suite, context.platform_id, me.role, me.name)
        handshake = noise.Responder(suite, prologue, context.static)
        message = data[HEADER_SIZE : -2 * MAC]
        key = handshake.read_static(message)
        if key == context.public:
            raise ProtocolError("own_key")
        payload = decode_payload(handshake.read_payload(message), CallPayload)
        if payload.sequence <= self._sequences.get(key, -1):
            raise ProtocolError("old_sequence")
        association = context.by_key.get(key)
        known = association.remote if association is not None else None
        remote = verify(context, payload, known, None, key, now)
        admission = context.policy.admit(remote, payload.psks, arrival, now)
        if admission is None:
            raise ProtocolError("refused")
        check_grace(remote, admission.psk)
        self._gate.open(key, now)
        self._remember(key, payload.sequence)
        return _Caller(handshake, header, payload, remote, admission)

    def _remember(self, key: bytes, sequence: int) -> None:
        self._sequences[key] = sequence
        self._sequences.move_to_end(key)
        if len(self._sequences) > timing.SEQUENCE_KEYS:
            self._sequences.popitem(last=False)

    # -------------------------------------------------------------- the answer

    def _answer(self, caller: _Caller, data: bytes, path: Path, now: float) -> bytes:
        """Make the session and the response, its index zero."""
        context, header, payload = self._context, caller.header, caller.payload
        association = context.association(caller.remote.peer)
        own_index = context.draw_index(now, association.handle)
        slot = context.draw_slot(association, now)
        knows = association.peer_knows == context.fingerprint
        hashes = not payload.certificates and knows
        shown = shown_fields(context, hashes=hashes, room=PAYLOAD_ROOM)
        answer = AnswerPayload(
            slot=slot,
            reset_token=context.reset_token(own_index),
            certificates=shown.certificates,
            record=shown.record,
            certificate_hash=shown.certificate_hash,
            record_hash=shown.record_hash,
            capabilities=shown.capabilities,
            observed=None if path.leg else path.remote,
            platform_ms=context.platform_ms(now),
        )
        padded = len(data) in (timing.HANDSHAKE_SIZE, timing.REKEY_SIZE)
        psk = caller.admission.psk
        message, secrets = caller.handshake.write_message2(
            pad(answer, RESPONSE_OVERHEAD, len(data) if padded else 0),
            psk.secret if psk is not None else noise.NO_PSK,
            context.random(32),
        )
        facts = Facts(
            suite=Suite(header.suite),
            initiator=False,
            association=payload.association,
            own_index=own_index,
            peer_index=header.counter >> 32,
            own_slot=slot,
            peer_slot=payload.slot,
            peer_reset=payload.reset_token,
            born=now,
            psk=psk,
            shown=context.fingerprint,
        )
        session = make_session(context, caller.remote, facts, secrets)
        self._channel.life.ready(association, session, path, now)
        position = caller.admission.position
        head = pack_header(Kind.RESPONSE, WIRE_VERSION, header.suite, position, 0, own_index << 32)
        return finish(context, caller.remote.leaf.key, head + message)
