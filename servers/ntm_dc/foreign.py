"""Talking with other coordinators: NTM Information both ways, and their Route Directions.

A foreign coordinator is believed about its own domain only. It shows the caller's certificate and
record; both are checked, and how often it may ask is limited, per caller and in all (rule S7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from ntm_dc.common import Buckets, Common
from ntm_dc.contact import ContactBudgets
from ntm_dc.decision import sift, strangers
from ntm_dc.registry import Node, Registry
from ntm_dc.relays import Relays
from ntm_dc.vouch import Foreigner, Vouching
from ntmd.proto import messages as m
from ntmd.proto.certs import Leaf, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import MessageReceived

INFORMATION_TIMEOUT = 2.5
RETRY_MS = 1_000


class SharedKey(Protocol):
    """The shared key of a pair; it may change while two coordinators direct the same pair."""

    id: bytes
    secret: bytes


Answer = Callable[[int, str, float], None]
WhenAlive = Callable[[Node, Callable[[bool, float], None], float], None]
Direct = Callable[[Node, m.RouteInfo, Answer, float], None]
Hold = Callable[[bytes, bytes, str, tuple[bytes, bytes]], SharedKey]
LetGo = Callable[[bytes, bytes], None]
Informed = Callable[[m.InformationResponse | tuple[m.Status, str], float], None]


class Abroad:
    """Both sides of the exchange with other coordinators."""

    def __init__(self, common: Common, registry: Registry, relays: Relays) -> None:
        self._common, self._registry, self._relays = common, registry, relays
        self._vouching = Vouching(common)
        self._per_caller = Buckets(common.settings.information_per_caller)
        self._per_dc = Buckets(common.settings.information_per_dc)
        self._directed_caller = Buckets(common.settings.information_per_caller)
        self._directed_dc = Buckets(common.settings.information_per_dc)
        self._contacts = ContactBudgets()
        self._when_alive: WhenAlive
        self._direct: Direct
        self._hold: Hold
        self._let_go: LetGo

    def wire(self, when_alive: WhenAlive, direct: Direct, hold: Hold, let_go: LetGo) -> None:
        """How to wait for a node of ours, to direct it, and to agree on a shared key."""
        self._when_alive, self._direct = when_alive, direct
        self._hold, self._let_go = hold, let_go

    # -------------------------------------------------------------- asking

    def ask(
        self, handle: int, caller: Node, target: tuple[str, bytes], done: Informed, now: float
    ) -> None:
        """Information Request about a name or an address; the answer is checked."""
        assert caller.leaf is not None
        request = m.InformationRequest(
            0, target[0], target[1], caller.leaf.der, caller.record, self._common.sign_certificate
        )

        def over(reply: m.Message | None, at: float) -> None:
            done(self._answered(handle, target, reply, at), at)

        self._common.ask(handle, request, now, over, INFORMATION_TIMEOUT)

    def key_of(self, info: m.InformationResponse) -> bytes:
        """The X25519 key in a checked answer."""
        return parse_leaf(info.certificate).key

    def sift(self, candidates: tuple[m.CandidateField, ...]) -> tuple[m.CandidateField, ...]:
        """What of a foreign node's candidates may be handed on."""
        return sift(candidates, self._common.virtual)

    def _answered(
        self, handle: int, target: tuple[str, bytes], reply: m.Message | None, now: float
    ) -> m.InformationResponse | tuple[m.Status, str]:
        if not isinstance(reply, m.InformationResponse):
            return (
                m.Status.COORDINATOR_UNREACHABLE,
                "the other domain's coordinator does not answer",
            )
        if reply.status != m.Status.OK:
            return status_of(reply.status), reply.text
        remote = self._common.engine.remote(handle)
        try:
            if remote is None:
                raise ProtocolError("session_gone")
            found = self._vouching.check(
                reply.certificate, reply.record, reply.dc_sign, remote.leaf.domain, now
            )
            if found.leaf.name != reply.name or target[0] not in ("", found.leaf.name):
                raise ProtocolError("certificate_name")
            if target[1] and not target[0] and found.record.address != target[1]:
                raise ProtocolError("record_address")
        except ProtocolError as error:
            self._common.refuse(error, by="information response")
            return (
                m.Status.REFUSED,
                f"what the other coordinator says does not verify ({error.kind})",
            )
        return reply

    # -------------------------------------------------------------- being asked

    def information(
        self, dc: Leaf, event: MessageReceived, request: m.InformationRequest, now: float
    ) -> None:
        """NTM Information Request of another coordinator."""
        try:
            caller = self._check_caller(
                dc, request.caller_certificate, request.caller_record, request.caller_dc_sign, now
            )
        except ProtocolError as error:
            self._common.refuse(error, by="information request")
            self._refuse(event, request, m.Status.REFUSED, error.kind, now)
            return
        if not self._per_dc.take(dc.key, now) or not self._per_caller.take(
            (dc.key, caller.leaf.name), now
        ):
            self._common.counters["information_limited"] += 1
            self._refuse(event, request, m.Status.TOO_MANY, "too many requests", now)
            return
        node = (
            self._registry.by_name(request.name)
            if request.name
            else self._registry.by_address(request.address)
        )
        if node is None:
            who = request.name or "that address"
            self._refuse(event, request, m.Status.NO_SUCH_NAME, f"no node {who}", now)
            return

        def known(up: bool, at: float) -> None:
            if up:
                self._inform(node, caller, event, request, at)
            else:
                text = f"{node.name} is not online"
                self._refuse(event, request, m.Status.PEER_OFFLINE, text, at)

        self._when_alive(node, known, now)

    def route_direction(
        self, dc: Leaf, event: MessageReceived, request: m.RouteDirection, now: float
    ) -> None:
        """Route Direction of another coordinator: for a node of ours, about a node of its own."""
        route = request.route
        node = self._registry.by_name(request.to)
        try:
            caller = self._check_caller(dc, route.certificate, route.record, route.dc_sign, now)
            if caller.leaf.name != route.name:
                raise ProtocolError("certificate_name")
        except ProtocolError as error:
            self._common.refuse(error, by="route direction")
            self._respond(event, request, m.Status.REFUSED, error.kind, now)
            return
        if not self._directed_dc.take(dc.key, now) or not self._directed_caller.take(
            (dc.key, caller.leaf.name), now
        ):
            self._common.counters["directions_limited"] += 1
            self._respond(event, request, m.Status.TOO_MANY, "too many requests", now)
            return
        if node is None:
            self._respond(event, request, m.Status.NO_SUCH_NAME, f"no node {request.to}", now)
            return
        checked = self._within_budget(dc, route, now)

        def known(up: bool, at: float) -> None:
            if not up:
                text = f"{node.name} is not online"
                self._respond(event, request, m.Status.PEER_OFFLINE, text, at)
                return
            pair = (node.key, caller.leaf.key)
            shared = self._hold(*pair, dc.domain, (checked.psk_id, checked.psk))

            def over(status: int, text: str, then: float) -> None:
                self._let_go(*pair)
                self._respond(event, request, status_of(status), text, then)

            settled = replace(checked, psk_id=shared.id, psk=shared.secret)
            self._direct(node, settled, over, at)

        self._when_alive(node, known, now)

    # -------------------------------------------------------------- parts

    def _within_budget(self, dc: Leaf, route: m.RouteInfo, now: float) -> m.RouteInfo:
        """The route with the candidates that our node may send to; the relay stays in any case."""
        given = replace(route, candidates=strangers(self.sift(route.candidates)))
        kept = self._contacts.allowed(dc.key, given, now)
        self._common.counters["contact_budget"] += len(given.candidates) - len(kept)
        return replace(given, candidates=kept)

    def _check_caller(
        self, dc: Leaf, certificate: bytes, record: bytes, dc_sign: bytes, now: float
    ) -> Foreigner:
        if dc.domain == self._common.settings.domain:
            raise ProtocolError("own_domain")
        return self._vouching.check(certificate, record, dc_sign, dc.domain, now)

    def _inform(
        self,
        node: Node,
        caller: Foreigner,
        event: MessageReceived,
        request: m.InformationRequest,
        now: float,
    ) -> None:
        assert node.leaf is not None
        grants = tuple(
            self._relays.grant(relay, node.key, caller.leaf.key, now)
            for relay in self._relays.for_one(node, now)
        )
        self._common.counters["information_given"] += 1
        reply = m.InformationResponse(
            request.id,
            int(m.Status.OK),
            0,
            node.name,
            node.leaf.der,
            node.record,
            self._common.sign_certificate,
            strangers(node.candidates),
            node.nat,
            True,
            grants,
            node.home_relay,
        )
        self._common.engine.reply(event, reply, now)

    def _refuse(
        self,
        event: MessageReceived,
        request: m.InformationRequest,
        status: m.Status,
        text: str,
        now: float,
    ) -> None:
        retry = RETRY_MS if status is m.Status.TOO_MANY else 0
        reply = m.InformationResponse(
            request.id,
            int(status),
            retry,
            request.name,
            b"",
            b"",
            b"",
            (),
            m.NatView(),
            False,
            (),
            "",
            text[:400],
        )
        self._common.engine.reply(event, reply, now)

    def _respond(
        self,
        event: MessageReceived,
        request: m.RouteDirection,
        status: m.Status,
        text: str,
        now: float,
    ) -> None:
        reply = m.RouteDirectionResponse(request.id, int(status), 0, text[:400])
        self._common.engine.reply(event, reply, now)


def status_of(number: int) -> m.Status:
    """The status with this number; an unknown one counts as an internal error."""
    try:
        return m.Status(number)
    except ValueError:
        return m.Status.INTERNAL
