"""Directions: asked of the own coordinator, and taken from it (Route Direction of the paper).

A direction says who the other end is, where it may be, under which shared key to meet, at which
relays, and who starts. It is believed only as far as certificate, record and pin hold.
"""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.candidates import acceptable, merge
from ntmd.node.common import Common
from ntmd.node.grants import renewed
from ntmd.node.relays import Relays
from ntmd.node.requests import Requests
from ntmd.node.routes import verify
from ntmd.node.tunnels import Directed, Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.node.uplink import Link, Uplink
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import MessageReceived, Psk
from ntmd.proto.frame import Kind, pack_header
from ntmd.proto.io import SendDatagram
from ntmd.proto.messages import (
    CandidateField,
    DirectionRequest,
    Reply,
    RouteDirection,
    RouteDirectionResponse,
    RouteDirectionToCaller,
    RouteInfo,
    Status,
)
from ntmd.proto.timing import PSK_DIRECTION_LIFETIME
from ntmd.proto.types import PskKind

ASK_TIMEOUT = 4.0  # below what a held DNS question waits, seconds
OPENERS = (0.0, 0.05, 0.2)  # instants of the datagrams that open the own NAT, seconds


class Directions:
    """Asks for ways and takes the ways given."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        requests: Requests,
        relays: Relays,
        tunnels: Tunnels,
        uplink: Uplink,
        *,
        to_caller: Callable[[Tunnel, bool, float], None],
        to_called: Callable[[Tunnel, bool, float], None],
        refused: Callable[[str, bytes, Status, str, float], None],
    ) -> None:
        self._common, self._underlay = common, underlay
        self._requests, self._relays, self._tunnels = requests, relays, tunnels
        self._uplink = uplink
        self._to_caller, self._to_called, self._refused = to_caller, to_called, refused
        self._asking: dict[tuple[str, bytes], float] = {}

    # -------------------------------------------------------------- asking

    def ask(self, name: str, address: bytes, now: float) -> None:
        """Ask for a way to ``name``, or (name empty) to ``address``; once at a time."""
        target = (name, address if not name else b"")
        if target in self._asking:
            return
        handle = self._uplink.handle
        if handle is None or self._uplink.state is Link.SILENT:
            self._uplink.wanted(now)
            self._fail(target, Status.COORDINATOR_UNREACHABLE, "the coordinator is silent", now)
            return
        self._asking[target] = now
        request = DirectionRequest(0, target[0], target[1])
        self._requests.ask(
            handle,
            request,
            now,
            lambda reply, at: self._told(target, reply, at),
            timeout=ASK_TIMEOUT,
        )

    def wanted(self, now: float) -> None:
        """A call is under way: whatever server could help and is silent is called again."""
        self._uplink.wanted(now)
        self._relays.wanted(now)

    def _fail(self, target: tuple[str, bytes], status: Status, text: str, now: float) -> None:
        self._refused(target[0], target[1], status, text, now)

    def _told(self, target: tuple[str, bytes], reply: Reply | None, now: float) -> None:
        self._asking.pop(target, None)
        if reply is None:
            text = "the coordinator did not answer in time"
            self._fail(target, Status.COORDINATOR_UNREACHABLE, text, now)
            return
        if not isinstance(reply, RouteDirectionToCaller) or (
            reply.status == Status.OK and reply.route is None
        ):
            self._fail(target, Status.INTERNAL, "the coordinator answered something else", now)
            return
        if reply.status != Status.OK or reply.route is None:
            self._fail(target, _status(reply.status), reply.text, now)
            return
        try:
            tunnel = self._accept(reply.route, target[0], target[1], now)
        except ProtocolError as error:
            self._common.refuse(error)
            text = f"the direction does not verify ({error.kind})"
            self._fail(target, Status.REFUSED, text, now)
            return
        self._to_caller(tunnel, reply.route.start, now)

    # -------------------------------------------------------------- being directed

    def directed(self, event: MessageReceived, message: RouteDirection, now: float) -> None:
        """The coordinator directs this node as the called one: get ready, then say so."""
        status, text = Status.OK, ""
        route = message.route
        if message.to != self._common.identity.name:
            status, text = Status.BAD_REQUEST, "not my name"
        else:
            try:
                tunnel = self._accept(route, route.name, b"", now)
                self.open_nat(tunnel, now)
                self._to_called(tunnel, route.start, now)
            except ProtocolError as error:
                self._common.refuse(error)
                status, text = Status.REFUSED, error.kind
        reply = RouteDirectionResponse(message.id, status, 0, text)
        self._common.engine.reply(event, reply, now)

    def _accept(self, route: RouteInfo, name: str, address: bytes, now: float) -> Tunnel:
        """Check a route and keep it; raises ProtocolError."""
        found = verify(
            self._common, name or route.name, route.certificate, route.record, route.dc_sign, now
        )
        if address and found.record.address != address:
            raise ProtocolError("record_address")
        tunnel = self._tunnels.ensure(found.peer, now)
        tunnel.address = found.record.address
        tunnel.certificate, tunnel.record = route.certificate, route.record
        tunnel.dc_sign = route.dc_sign
        tunnel.capabilities = found.record.capabilities
        tunnel.home_relay = route.home_relay
        known = self._common.memory.by_key(found.peer.key)
        held = tunnel.grants or (known.grants if known is not None else ())
        tunnel.grants = renewed(held, route.grants, self._common.clock(now))
        tunnel.direction = Psk(PskKind.DIRECTION, route.psk_id, route.psk)
        tunnel.direction_until = now + PSK_DIRECTION_LIFETIME
        relays = tuple(grant.relay.name for grant in route.grants)
        tunnel.directed = Directed(now, route.start, route.nat, relays)
        tunnel.relay_only = route.relay_only and self._relays.may_answer(relays)
        tunnel.candidates = merge(tunnel.candidates, self.sift(route.candidates))
        self._relays.want(route.grants, found.peer, now)
        self._tunnels.remember(tunnel, None, now)
        return tunnel

    def sift(self, candidates: tuple[CandidateField, ...]) -> tuple[CandidateField, ...]:
        """Only the candidates that may be sent to (rule S7)."""
        own = tuple(s.network.address for s in self._underlay.usable())
        virtual = self._common.virtual_network()
        kept = tuple(c for c in candidates if acceptable(c.endpoint, own, virtual))
        self._common.counters["candidate_refused"] += len(candidates) - len(kept)
        return kept

    def open_nat(self, tunnel: Tunnel, now: float) -> None:
        """Send what nobody answers towards every candidate, so that the own NAT lets it in.

        32 bytes under an index that is never allotted: shorter than any reset could be (S4).
        """
        if tunnel.relay_only:
            return
        ways = self._underlay.ways(tuple(tunnel.candidates))
        for number, wait in enumerate(OPENERS):

            def send(_: float) -> None:
                for way in ways:
                    if self._underlay.is_open(way.socket):
                        header = pack_header(Kind.CONTROL, 0, 0, 0, 0, 0)
                        self._common.emit(SendDatagram(header + self._common.random(16), way))

            if wait == 0.0:
                send(now)
            else:
                self._common.timers.set(("opener", tunnel.number, number), now + wait, send)


def _status(number: int) -> Status:
    try:
        return Status(number)
    except ValueError:
        return Status.INTERNAL
