"""The session engine: one for every core, on top of handshakes, sealed control frames and requests.

Pure: datagrams, paths and instants go in, datagrams and events come out of :meth:`take_outputs`.
The owner decides whom to call, on which paths, and which path is the primary; the engine decides
about keys. Parts, in reading order: :mod:`~ntmd.proto.events`, :mod:`~ntmd.proto.association`,
:mod:`~ntmd.proto.calling`, :mod:`~ntmd.proto.answering`, :mod:`~ntmd.proto.lifecycle`,
:mod:`~ntmd.proto.channel`, :mod:`~ntmd.proto.exchange`, :mod:`~ntmd.proto.resets`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ntmd.proto import plane, timing
from ntmd.proto.answering import Answering
from ntmd.proto.association import Association
from ntmd.proto.calling import Calling
from ntmd.proto.certs import Leaf, Trust
from ntmd.proto.channel import Channel
from ntmd.proto.context import Context, Delivery, Sequencer
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import (
    Admission,
    CallFailed,
    Established,
    Event,
    Identity,
    MessageReceived,
    OpenPolicy,
    PeerClosed,
    Policy,
    Psk,
    Remote,
    Replied,
    RequestFailed,
    ResetSeen,
    SessionInfo,
    SessionInUse,
    SessionReady,
    SessionsGone,
)
from ntmd.proto.frame import HEADER_SIZE, Kind
from ntmd.proto.io import SendDatagram
from ntmd.proto.messages import Message, Reply, Request
from ntmd.proto.resets import Resets
from ntmd.proto.types import Endpoint, Path, Peer, Role, Suite

__all__ = [
    "Admission",
    "CallFailed",
    "Established",
    "Event",
    "Identity",
    "MessageReceived",
    "OpenPolicy",
    "PeerClosed",
    "Policy",
    "Psk",
    "Remote",
    "Replied",
    "RequestFailed",
    "ResetSeen",
    "Sequencer",
    "SessionEngine",
    "SessionInUse",
    "SessionInfo",
    "SessionReady",
    "SessionsGone",
]

REKEY_MARGIN = 0.5  # a rekey that a simultaneous open would undo waits this much longer, seconds


class SessionEngine:
    """Sessions with all peers. ``random(n)`` gives n bytes; ``platform_ms(now)`` platform time."""

    def __init__(
        self,
        identity: Identity,
        trust: Trust,
        policy: Policy,
        *,
        random: Callable[[int], bytes],
        platform_ms: Callable[[float], int],
        sequencer: Sequencer,
    ) -> None:
        self._context = Context(identity, trust, policy, random, platform_ms, sequencer)
        self._channel = Channel(self._context)
        self._calling = Calling(self._context, self._channel)
        self._answering = Answering(self._context, self._channel)
        self._channel.life.caller_confirmed = self._answering.heard
        self._resets = Resets(self._context)

    @property
    def counters(self) -> Counter[str]:
        """What was dropped or refused, by kind."""
        return self._context.counters

    def set_identity(self, identity: Identity) -> None:
        """A renewed certificate or record; role, name and key must be the same."""
        self._context.set_identity(identity)

    def set_slack(self, milliseconds: int) -> None:
        """Tolerance for servers' certificates while the platform time is not known (rule S8)."""
        self._context.slack_ms = milliseconds

    # -------------------------------------------------------------- indices

    def draw_index(self, now: float) -> int:
        """A random index for the owner (leg, delivery), unique among live and recent ones."""
        return self._context.draw_index(now)

    def free_index(self, index: int, now: float) -> None:
        """Give an index back; it is not drawn again for 180 s."""
        self._context.free_index(index, now)

    def reset_token(self, index: int) -> bytes:
        """The token (16 bytes) of our reset for an index; it is handed over sealed (rule S4)."""
        return self._context.reset_token(index)

    def add_delivery(self, index: int, peer_key: bytes, leg: int, relay: Endpoint) -> None:
        """Datagrams with this own index come from ``peer_key``; ``leg`` at ``relay`` leads back."""
        self._forget_delivery(index)
        self._context.indexes[index] = Delivery(peer_key, leg, relay)
        self._context.relays[relay] += 1

    def drop_delivery(self, index: int, now: float) -> None:
        """The leg is gone; unknown indices are ignored."""
        if self._forget_delivery(index):
            self._context.free_index(index, now)

    def _forget_delivery(self, index: int) -> bool:
        old = self._context.indexes.get(index)
        if not isinstance(old, Delivery):
            return False
        relays = self._context.relays
        relays[old.relay] -= 1
        if relays[old.relay] <= 0:
            del relays[old.relay]
        return True

    # -------------------------------------------------------------- calls

    def call(
        self,
        peer: Peer,
        paths: Sequence[Path],
        now: float,
        psks: Sequence[Psk] = (),
        suite: Suite | None = None,
        read: Leaf | None = None,
    ) -> int:
        """Begin a handshake on all ``paths``; returns the association's handle.

        While a handshake with this peer is under way, its paths and psks are added to it. ``read``:
        a certificate of the peer that was parsed already (a tenth of what a handshake costs).
        """
        association = self._calling.call(peer, paths, now, psks, suite)
        association.read = read or association.read
        return association.handle

    def widen(self, handle: int, paths: Sequence[Path], now: float) -> None:
        """Send the initiation under way on further paths too; without one nothing happens."""
        association = self._context.associations.get(handle)
        if association is not None:
            self._calling.widen(association, paths, now)

    def rekey(self, handle: int, now: float) -> None:
        """A new handshake in the same association, on its primary path."""
        association = self._context.associations.get(handle)
        if association is None or association.call is not None:
            return
        current = association.current
        if current is None or association.primary is None:
            return
        settled = current.info.born + timing.SIMULTANEOUS_OPEN + REKEY_MARGIN
        if current.caller_key < self._context.public and now < settled:
            # Both ends would go on sending on the session that they have (rule C12).
            self._context.at(settled, self._later_rekey, handle, current)
            return
        psks = self._own_psks(association)
        self._calling.call(association.peer, [association.primary], now, psks, hashes=True)

    def _later_rekey(self, handle: int, session: object, now: float) -> None:
        association = self._context.associations.get(handle)
        if association is not None and association.current is session:
            self.rekey(handle, now)

    def _own_psks(self, association: Association) -> list[Psk]:
        """Resumption psks that this engine itself knows of (rule C4): nodes only."""
        if self._context.identity.role != Role.NODE or association.peer.role != Role.NODE:
            return []
        sessions = association.confirmed()[-2:]
        return [session.info.resume for session in reversed(sessions)]

    # -------------------------------------------------------------- what is known

    def handle_of(self, peer_key: bytes) -> int | None:
        """The association with a static key, if there is one."""
        association = self._context.by_key.get(peer_key)
        return None if association is None else association.handle

    def remote(self, handle: int) -> Remote | None:
        """The verified peer; None before the first session and for unknown handles."""
        association = self._context.associations.get(handle)
        return None if association is None else association.remote

    def peer(self, handle: int) -> Peer:
        """Whom the association is with; KeyError for an unknown handle."""
        return self._context.associations[handle].peer

    def established(self, handle: int) -> bool:
        """Whether there is a session to send control messages on."""
        association = self._context.associations.get(handle)
        return association is not None and association.current is not None

    # -------------------------------------------------------------- messages

    def tell(self, handle: int, message: Message, now: float, path: Path | None = None) -> None:
        """Send a one-way message, by default on the primary path."""
        association = self._context.associations.get(handle)
        if association is None:
            self.counters["no_session"] += 1
        else:
            self._channel.tell(association, message, path)

    def ask(
        self,
        handle: int,
        request: Request,
        now: float,
        path: Path | None = None,
        timeout: float = timing.REQUEST_TIMEOUT,
    ) -> int:
        """Send a request (its id is set here) until it is answered; returns the id.

        Queued until there is a session. For a handle that is gone the failure comes at once.
        """
        association = self._context.associations.get(handle)
        if association is None:
            self._context.emit(RequestFailed(handle, 0, "closed"))
            return 0
        return self._channel.exchange.ask(association, request, path, timeout, now)

    def reply(self, received: MessageReceived, reply: Reply, now: float) -> None:
        """Answer a request where it came from; repetitions get the same answer by themselves."""
        association = self._context.associations.get(received.handle)
        if association is not None:
            self._channel.exchange.reply(association, received, reply)

    def close(self, handle: int, now: float, reason: int, copies: int = 3) -> None:
        """Tell the peer that all is over (rule N7), then forget it."""
        association = self._context.associations.get(handle)
        if association is not None:
            self._channel.close(association, int(reason), copies, now)

    def forget(self, handle: int, now: float) -> None:
        """End an association without telling the peer."""
        association = self._context.associations.get(handle)
        if association is not None:
            self._channel.forget(association, now)

    # -------------------------------------------------------------- paths

    def set_primary(self, handle: int, path: Path, move_seq: int | None = None) -> None:
        """The default path of messages; ``move_seq`` goes into every control frame (rule C6)."""
        association = self._context.associations.get(handle)
        if association is not None:
            association.primary = path
            if move_seq is not None:
                association.move_seq = move_seq

    def primary(self, handle: int) -> Path | None:
        """The path that messages leave on by default."""
        association = self._context.associations.get(handle)
        return None if association is None else association.primary

    # -------------------------------------------------------------- driving

    def receive(self, data: bytes, socket: int, source: Endpoint, now: float) -> None:
        """Take a datagram of any kind but data. Never raises for what a peer sent."""
        try:
            self._receive(data, socket, source, now)
        except ProtocolError as error:
            self.counters[error.kind] += 1

    def _receive(self, data: bytes, socket: int, source: Endpoint, now: float) -> None:
        if len(data) < HEADER_SIZE:
            raise ProtocolError("truncated")
        kind = data[0]
        if kind == Kind.CONTROL:
            if not self._channel.receive(data, socket, source, now):
                index = int.from_bytes(data[4:8], "big")
                self._resets.answer(socket, source, index, len(data), now)
        elif kind == Kind.INITIATION:
            self._answering.initiation(data, socket, source, now)
        elif kind == Kind.RESPONSE:
            self._calling.response(data, socket, source, now)
        elif kind == Kind.COOKIE:
            self._calling.cookie(data, socket, source, now)
        elif kind == Kind.RESET:
            self._reset(data, socket, source, now)
        else:
            raise ProtocolError("unknown_kind")

    def _reset(self, data: bytes, socket: int, source: Endpoint, now: float) -> None:
        association = self._resets.received(data, now)
        if association is None:
            return
        paths = [association.primary] if association.primary is not None else []
        paths.append(Path(socket, source))
        self._context.emit(ResetSeen(association.handle))
        psks = self._own_psks(association)
        self._calling.call(association.peer, paths, now, psks, anew=True)

    def unknown_index(self, event: plane.UnknownIndex, now: float) -> None:
        """A data frame came with an index nobody owns: answer with a reset, within limits."""
        self._resets.answer(event.socket, event.source, event.index, event.length, now)

    def tell_lost(self, index: int, path: Path) -> None:
        """Tell a peer that its session with this own index ended with an earlier life of ours."""
        self._resets.tell(index, path)

    def slot_seen(self, handle: int, session_number: int, now: float) -> None:
        """A data frame arrived under a session: that confirms it too (rule C10)."""
        association = self._context.associations.get(handle)
        if association is None:
            return
        for session in association.sessions.values():
            if session.info.number == session_number:
                path = session.path or association.primary
                if path is not None:
                    self._channel.heard(association, session, path, now)
                return

    def handle_deadline(self, now: float) -> None:
        """Run what is due."""
        self._context.run_timers(now)

    def deadline(self) -> float | None:
        """When to call :meth:`handle_deadline` next."""
        return self._context.deadline()

    def take_outputs(self) -> list[SendDatagram | Event]:
        """Datagrams and events since the last call, in order."""
        outputs, self._context.outputs = self._context.outputs, []
        return outputs
