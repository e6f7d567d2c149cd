"""What the session engine reports: whose it is, and what each control message means."""

from __future__ import annotations

from typing import cast

from ntmd.node.calls import Calls
from ntmd.node.common import Common
from ntmd.node.direction import Directions
from ntmd.node.drain import Drain
from ntmd.node.follow import Follow
from ntmd.node.journal import Journal
from ntmd.node.links import Links
from ntmd.node.probing import Prober
from ntmd.node.registration import Registration
from ntmd.node.relays import Relays
from ntmd.node.requests import Requests
from ntmd.node.steering import Steering
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.uplink import Uplink
from ntmd.proto.events import (
    CallFailed,
    Established,
    Event,
    MessageReceived,
    PeerClosed,
    Replied,
    RequestFailed,
    ResetSeen,
    SessionInUse,
    SessionReady,
    SessionsGone,
)
from ntmd.proto.messages import (
    Answer,
    CandidateUpdate,
    Done,
    Draining,
    Move,
    MoveReport,
    Probe,
    Reply,
    RouteDirection,
    Seen,
    Status,
)
from ntmd.proto.types import Role


class Receive:
    """Routes engine events to coordinator, relays and tunnels."""

    def __init__(
        self,
        common: Common,
        prober: Prober,
        requests: Requests,
        registration: Registration,
        relays: Relays,
        tunnels: Tunnels,
        calls: Calls,
        steering: Steering,
        follow: Follow,
        links: Links,
        directions: Directions,
        journal: Journal,
        drain: Drain,
    ) -> None:
        self._common, self._prober, self._requests = common, prober, requests
        self._registration, self._relays, self._tunnels = registration, relays, tunnels
        self._calls, self._steering, self._follow = calls, steering, follow
        self._directions, self._journal, self._drain = directions, journal, drain
        self._links = links

    def event(self, event: Event, now: float) -> None:
        """One event of the engine."""
        match event:
            case MessageReceived():
                self._message(event, now)
            case Replied():
                reply = cast(Reply, event.reply)  # the engine hands over replies only
                self._requests.replied(event.handle, event.request_id, reply, now)
            case RequestFailed():
                self._requests.replied(event.handle, event.request_id, None, now)
            case SessionReady():
                if event.remote.leaf.role is Role.NODE:
                    self._calls.session_ready(event, now)
            case Established():
                self._established(event, now)
            case SessionInUse():
                self._calls.in_use(event.handle, event.number, now)
            case SessionsGone():
                self._calls.sessions_gone(event.handle, event.numbers, now)
            case CallFailed() | PeerClosed():
                self._ended(event, now)
            case ResetSeen():
                self._common.counters["reset_seen"] += 1
                if uplink := self._uplink(event.handle):
                    uplink.call(now)  # on every way: the one in use may be dead besides

    def _uplink(self, handle: int) -> Uplink | None:
        """The coordinator's or a relay's association of this handle."""
        if self._registration.uplink.handle == handle:
            return self._registration.uplink
        relay = self._relays.owner(handle)
        return relay.uplink if relay is not None else None

    def _established(self, event: Established, now: float) -> None:
        leaf = event.remote.leaf
        if leaf.role is Role.NODE:
            self._calls.established(event, now)
        elif leaf.role is Role.DC and leaf.key == self._common.home.dc.key:
            self._registration.uplink.established(event, now)
        else:
            for relay in self._relays.by_name.values():
                if relay.uplink.peer.key == leaf.key:
                    relay.uplink.established(event, now)

    def _ended(self, event: CallFailed | PeerClosed, now: float) -> None:
        uplink = self._uplink(event.handle)
        if uplink is not None:
            if isinstance(event, CallFailed):
                uplink.failed(event, now)
            else:
                uplink.silent(now)
        elif isinstance(event, CallFailed):
            self._calls.failed(event, now)
        else:
            self._calls.peer_closed(event, now)

    # -------------------------------------------------------------- messages

    def _message(self, event: MessageReceived, now: float) -> None:
        message = event.message
        self._links.heard(event.path.socket, now)
        if isinstance(message, Answer):
            self._learn_clock(event, message, now)
        uplink = self._uplink(event.handle)
        if uplink is not None:
            uplink.heard(event.path, now)
            self._from_server(event, uplink, now)
            return
        tunnel = self._tunnels.by_handle(event.handle)
        if tunnel is not None:
            tunnel.heard_at = now
            asks = isinstance(message, Probe)
            self._steering.doubts.heard(tunnel, event.path, now, asks=asks)
            self._journal.heard(tunnel, now)
            self._from_peer(tunnel, event, now)

    def _learn_clock(self, event: MessageReceived, message: Answer, now: float) -> None:
        """Platform time comes from the coordinator alone."""
        if event.handle == self._registration.uplink.handle:
            self._common.clock.learn(message.platform_ms, now)

    def _answer(
        self, event: MessageReceived, nonce: int, tunnel: Tunnel | None, now: float
    ) -> None:
        observed = None if event.path.relayed else event.path.remote
        seen = tunnel.seen() if tunnel is not None else None
        answer = Answer(nonce, observed, self._common.clock(now), seen)
        self._common.engine.tell(event.handle, answer, now, path=event.path)

    def _from_server(self, event: MessageReceived, uplink: Uplink, now: float) -> None:
        message = event.message
        match message:
            case Probe():
                self._answer(event, message.nonce, None, now)
            case Answer():
                self._prober.answered(event.handle, message, event.path, now)
            case RouteDirection() if uplink is self._registration.uplink:
                self._directions.directed(event, message, now)
            case Draining() if uplink is not self._registration.uplink:
                done = Done(message.id, int(Status.OK))
                self._common.engine.reply(event, done, now)
                self._drain.told(uplink.peer.name, message, now)
            case _:
                self._unexpected(event, now)

    def _from_peer(self, tunnel: Tunnel, event: MessageReceived, now: float) -> None:
        message = event.message
        self._follow.named_primary(tunnel, event, now)
        match message:
            case Probe():
                self._answer(event, message.nonce, tunnel, now)
                self._follow.probed(tunnel, event, message)
                self._steering.noticed(tunnel, event.path, now)
            case Answer():
                self._prober.answered(event.handle, message, event.path, now)
            case Seen():
                self._steering.doubts.seen(tunnel, message.counters)
            case Move():
                self._follow.moved(tunnel, event, message, now)
            case MoveReport():
                self._journal.reported(tunnel, message, now)
            case CandidateUpdate():
                if message.seq >= tunnel.peer_seq:
                    listed = self._directions.sift(message.candidates)
                    self._steering.candidates_came(tunnel, listed, now)
            case _:
                self._unexpected(event, now)

    def _unexpected(self, event: MessageReceived, now: float) -> None:
        """A request that this kind of peer has no business to make is refused, the rest dropped."""
        self._common.counters["unexpected_message"] += 1
        number = getattr(event.message, "id", None)
        if number is not None:
            reply = Done(number, Status.REFUSED, 0, "not for a node to answer")
            self._common.engine.reply(event, reply, now)
