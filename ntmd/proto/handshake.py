"""What both ends of a handshake do: payloads, padding, checking the other end, making the session.

Rules C1, C4, C8, C9 and N6. The caller's part is :mod:`ntmd.proto.calling`, the called end's
:mod:`ntmd.proto.answering`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ntmd.proto import noise, timing
from ntmd.proto.association import Association, Session
from ntmd.proto.certs import Leaf, check_leaf, parse_leaf
from ntmd.proto.codec import encode_payload
from ntmd.proto.context import Context
from ntmd.proto.crypto import sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Psk, Remote, SessionInfo
from ntmd.proto.frame import HEADER_SIZE
from ntmd.proto.messages import AnswerPayload, CallPayload, PskRef
from ntmd.proto.noise import MAC, SessionSecrets
from ntmd.proto.plane import DataKey
from ntmd.proto.records import Record
from ntmd.proto.types import Peer, PskKind, Role, Suite

INITIATION_OVERHEAD = HEADER_SIZE + noise.MESSAGE1_OVERHEAD + 2 * MAC
RESPONSE_OVERHEAD = HEADER_SIZE + noise.MESSAGE2_OVERHEAD + 2 * MAC
SESSION_ROLES = (Role.NODE, Role.DC, Role.RS)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a payload shows of its sender: certificates and record, or their hashes (rule C8)."""

    certificates: tuple[bytes, ...]
    record: bytes
    certificate_hash: bytes
    record_hash: bytes
    capabilities: int


def shown_fields(context: Context, *, hashes: bool, room: int) -> Shown:
    """Our own identity; a second certificate goes along where it fits into ``room`` bytes."""
    me = context.identity
    if hashes:
        return Shown((), b"", context.certificate_hash, context.record_hash, me.capabilities)
    certificates = me.certificates[:2]
    if sum(len(each) + 3 for each in certificates) + len(me.record) > room:
        certificates = certificates[:1]
    return Shown(certificates, me.record, b"", b"", me.capabilities)


def pad(payload: CallPayload | AnswerPayload, overhead: int, size: int) -> bytes:
    """Encoded payload with zeros behind it, so that the datagram has ``size`` bytes (0: none)."""
    body = encode_payload(payload)
    if overhead + len(body) > timing.HANDSHAKE_SIZE:
        raise ValueError("certificate and record do not fit a handshake datagram")
    return body.ljust(size - overhead, b"\0")


def finish(context: Context, receiver_key: bytes, datagram: bytes) -> bytes:
    """Append mac1 for ``receiver_key``, and an empty mac2."""
    return datagram + noise.mac1(noise.mac1_key(receiver_key), datagram) + bytes(MAC)


# ------------------------------------------------------------------ the other end


def verify(
    context: Context,
    shown: CallPayload | AnswerPayload,
    known: Remote | None,
    expected: Peer | None,
    key: bytes,
    now: float,
    read: Leaf | None = None,
) -> Remote:
    """The other end, whose static key Noise has proven to be ``key``; raises ProtocolError.

    ``known`` resolves hashes, ``expected`` is whom a call was meant for, ``read`` a certificate of
    the peer that was parsed before: the same one is not parsed again, but checked like any other. A
    certificate in its grace is accepted here; whether it may be is for :func:`check_grace`.
    """
    read = read or (known.leaf if known is not None else None)
    if shown.certificates:
        der, record = shown.certificates[0], shown.record
        leaf = read if read is not None and read.der == der else parse_leaf(der)
    elif known is None or known.leaf.hash != shown.certificate_hash:
        raise ProtocolError("certificate_unknown")
    else:
        leaf = known.leaf
        record = known.record_bytes if shown.record_hash else b""
        if record and sha256(record) != shown.record_hash:
            raise ProtocolError("record_unknown")
    if leaf.key != key:
        raise ProtocolError("certificate_key")
    if leaf.role not in SESSION_ROLES:
        raise ProtocolError("certificate_role")
    role, name = (expected.role, expected.name) if expected else (leaf.role, None)
    in_grace = _check_time(context, leaf, role, name, now)
    parsed = Record.unpack(record) if record else None
    return Remote(leaf, record, parsed, shown.capabilities, in_grace)


def _check_time(context: Context, leaf: Leaf, role: Role, name: str | None, now: float) -> bool:
    """Check everything about a certificate; whether it counts by its grace only."""
    now_ms = context.platform_ms(now)
    slack = context.slack_ms if role in (Role.DC, Role.RS) else 0
    try:
        check_leaf(leaf, context.trust, role=role, name=name, now_ms=now_ms, slack_ms=slack)
    except ProtocolError as error:
        if error.kind != "certificate_expired":
            raise
        grace = int(timing.EXPIRY_GRACE * 1000)
        check_leaf(
            leaf,
            context.trust,
            role=role,
            name=name,
            now_ms=now_ms,
            slack_ms=slack,
            grace_ms=grace,
        )
        return True
    return False


def check_grace(remote: Remote, psk: Psk | None) -> None:
    """An expired certificate counts only beside a resumption psk (rule C9)."""
    if remote.in_grace and (psk is None or psk.kind != PskKind.RESUMPTION):
        raise ProtocolError("certificate_expired")


# ------------------------------------------------------------------ the session


@dataclass(frozen=True, slots=True)
class Facts:
    """What one end knows of a handshake that has just succeeded."""

    suite: Suite
    initiator: bool
    association: int
    own_index: int
    peer_index: int
    own_slot: int
    peer_slot: int
    peer_reset: bytes
    born: float
    psk: Psk | None
    shown: bytes


def make_session(context: Context, remote: Remote, facts: Facts, keys: SessionSecrets) -> Session:
    """Both directions' keys (rule C1), with the resumption psk for the next call (rule C4)."""
    number, suite = context.session_number(), facts.suite
    data_out, data_in = keys.data_r, keys.data_i
    seal, opened, caller = keys.ctl_r, keys.ctl_i, remote.leaf.key
    if facts.initiator:
        data_out, data_in = data_in, data_out
        seal, opened, caller = opened, seal, context.public
    info = SessionInfo(
        number=number,
        association=facts.association,
        slot_in=facts.own_slot,
        slot_out=facts.peer_slot,
        suite=suite,
        data_in=DataKey(facts.own_slot, suite, data_in, number),
        data_out=DataKey(facts.peer_slot, suite, data_out, number),
        own_index=facts.own_index,
        peer_index=facts.peer_index,
        born=facts.born,
        initiator=facts.initiator,
        resume=Psk(PskKind.RESUMPTION, sha256(keys.resume)[:16], keys.resume),
    )
    used = PskRef(int(facts.psk.kind), facts.psk.id) if facts.psk else None
    return Session(
        info,
        remote,
        seal,
        opened,
        caller,
        used,
        facts.peer_reset,
        facts.shown,
    )


def may_use_hashes(context: Context, association: Association, now: float) -> bool:
    """Whether the peer surely still has what we showed it, so that hashes do (rule C8)."""
    return (
        association.current is not None
        and association.peer_knows == context.fingerprint
        and now - association.last_heard < timing.DATA_KEY_LIFETIME
    )
