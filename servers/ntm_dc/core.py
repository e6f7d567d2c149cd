"""The coordinator's core: routes inputs to the parts that know what they mean.

Reading order: :mod:`~ntm_dc.values` (inputs, commands, what is stored), :mod:`~ntm_dc.registry`
(names and addresses), :mod:`~ntm_dc.nodes` (registration), :mod:`~ntm_dc.directions`,
:mod:`~ntm_dc.decision`, :mod:`~ntm_dc.interdomain` and :mod:`~ntm_dc.foreign` (other coordinators),
:mod:`~ntm_dc.relays`, :mod:`~ntm_dc.recall` (after a restart).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ntm_dc.common import Common
from ntm_dc.directions import Directions
from ntm_dc.foreign import Abroad
from ntm_dc.interdomain import Interdomain
from ntm_dc.nodes import Nodes
from ntm_dc.recall import Recall
from ntm_dc.registry import Node, Registry
from ntm_dc.relays import Relays
from ntm_dc.values import (
    CertificatesRenewed,
    DcSettings,
    DcState,
    DirectoryUpdated,
    DomainResolved,
    Flushed,
)
from ntmd.proto import messages as m
from ntmd.proto import plane
from ntmd.proto.certs import Trust
from ntmd.proto.crypto import sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import (
    Admission,
    CallFailed,
    Established,
    Identity,
    MessageReceived,
    PeerClosed,
    Remote,
    Replied,
    RequestFailed,
)
from ntmd.proto.frame import HEADER_SIZE, Kind
from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed, Store, UserAnswered, UserAsked
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.stream import STREAM_SOCKET
from ntmd.proto.types import Arrival, Endpoint, Peer, Role

SEQUENCE_KEY = "dc/sequence"


class _Policy:
    """Who may shake hands: nodes and relays of our domain, coordinators of the platform."""

    def __init__(self, common: Common, registry: Registry, relays: Relays) -> None:
        self._common, self._registry, self._relays = common, registry, relays

    def admit(
        self,
        caller: Remote,
        offered: tuple[m.PskRef, ...],
        arrival: Arrival,
        now: float,
    ) -> Admission | None:
        """By role, domain and revocation; infrastructure sessions use no psk."""
        leaf = caller.leaf
        why = ""
        if sha256(leaf.key) in self._common.revoked:
            why = "certificate_revoked"
        elif leaf.role is Role.NODE:
            why = self._registry.acceptable(leaf)
        elif leaf.role is Role.RS:
            why = "" if self._relays.acceptable(leaf) else "other_domain"
        elif leaf.role is not Role.DC or leaf.domain == self._common.settings.domain:
            why = "certificate_role"
        if why:
            self._common.counters[why] += 1
            self._common.tell("debug", "caller refused", kind=why, name=leaf.name)
            return None
        return Admission()

    def accept_unauthorised(self, peer: Peer, now: float) -> bool:
        """No psk is ever offered."""
        return True


class DcCore:
    """A direction coordinator of one domain. ``prefix`` is its /64."""

    def __init__(
        self,
        settings: DcSettings,
        identity: Identity,
        dc_sign_private: bytes,
        dc_sign_certificate: bytes,
        prefix: ipaddress.IPv6Network,
        trust: Trust,
        stored: DcState,
        *,
        random: Callable[[int], bytes],
        now: float,
        wall_ms: int,
    ) -> None:
        common = self._common = Common(
            settings,
            identity,
            trust,
            dc_sign_private,
            dc_sign_certificate,
            prefix,
            random,
            now,
            wall_ms,
        )
        self.settings = settings
        self.registry = Registry(common, stored.nodes, now)
        self.relays = Relays(common, stored.values)
        mark = int.from_bytes(stored.values.get(SEQUENCE_KEY, b""), "big")
        common.engine = self.engine = SessionEngine(
            identity,
            trust,
            _Policy(common, self.registry, self.relays),
            random=random,
            platform_ms=common.platform_ms,
            sequencer=Sequencer(mark, self._persist_mark),
        )
        self.interdomain = Interdomain(common, stored.values)
        self.recall = Recall(common, self.registry)
        self.abroad = Abroad(common, self.registry, self.relays)
        self.directions = Directions(
            common, self.registry, self.relays, self.recall, self.interdomain, self.abroad
        )
        self.abroad.wire(
            self.directions.when_alive,
            self.directions.direct,
            self.directions.hold,
            self.directions.let_go,
        )
        self.nodes = Nodes(
            common,
            self.registry,
            self.relays,
            domains=self.interdomain.domains,
            online=self.directions.online,
        )
        self.recall.start(now)
        self.relays.call_all(now)
        self._work(now)

    # -------------------------------------------------------------- contract of a core

    def handle(self, event: Any, now: float) -> None:
        """Take one input; anything a coordinator has no use for is counted."""
        match event:
            case DatagramReceived(data=data, socket=socket, source=source):
                if len(data) >= HEADER_SIZE and data[0] == Kind.DATA:
                    index = int.from_bytes(data[4:8], "big")
                    unknown = plane.UnknownIndex(socket, source, index, len(data))
                    self.engine.unknown_index(unknown, now)
                else:
                    self.engine.receive(data, socket, source, now)
            case Flushed(ticket=ticket, error=error):
                self.nodes.flushed(ticket, error, now)
            case DomainResolved():
                self.interdomain.resolved(event, now)
            case DirectoryUpdated():
                self._directory(event, now)
            case CertificatesRenewed():
                self._renewed(event, now)
            case UserAsked():
                self._asked(event, now)
            case SendFailed():
                self._common.counters["send_failed"] += 1
            case _:
                self._common.counters["unknown_input"] += 1
        self._work(now)

    def handle_deadline(self, now: float) -> None:
        """Retransmissions, time-outs, the next nodes to recall."""
        self.engine.handle_deadline(now)
        self._common.run_timers(now)
        self._work(now)

    def take_commands(self) -> list[Any]:
        """All wishes since the last call, in order."""
        out, self._common.commands = self._common.commands, []
        return out

    def deadline(self) -> float | None:
        """The earliest of all that waits."""
        waits = (self.engine.deadline(), self._common.deadline())
        return min((wait for wait in waits if wait is not None), default=None)

    # -------------------------------------------------------------- for the shell

    def platform_ms(self, now: float) -> int:
        """Platform time at a boot-clock instant (rule S8)."""
        return self._common.platform_ms(now)

    def stream_sources(self) -> frozenset[Endpoint]:
        """The TLS connections from which a session is heard; others are not kept (rule S12)."""
        return frozenset(
            at
            for node in self.registry.nodes()
            if node.handle is not None
            for number, at in node.sources
            if number == STREAM_SOCKET
        )

    def status(self, now: float) -> dict[str, Any]:
        """Counters and gauges for ``ntm-server status`` and ``/metrics``."""
        nodes = self.registry.nodes()
        return {
            "domain": self.settings.domain,
            "nodes": len(nodes),
            "online": sum(self.registry.alive(node, now) for node in nodes),
            "relays": self.relays.status(now),
            "domains": list(self.interdomain.domains()),
            "recall_waiting": self.recall.waiting(),
            "directions_under_way": len(self.directions),
            "sessions": dict(sorted(self.engine.counters.items())),
            "events": dict(sorted(self._common.counters.items())),
        }

    # -------------------------------------------------------------- engine's events

    def _work(self, now: float) -> None:
        """Take what the engine wishes and reports until it is silent."""
        while outputs := self.engine.take_outputs():
            for output in outputs:
                if isinstance(output, SendDatagram):
                    self._common.commands.append(output)
                else:
                    self._event(output, now)

    def _event(self, event: Any, now: float) -> None:
        match event:
            case MessageReceived():
                self._message(event, now)
            case Established():
                self._established(event, now)
            case Replied(handle=handle, request_id=number, reply=reply):
                self._common.answered(handle, number, reply, now)
            case RequestFailed(handle=handle, request_id=number):
                self._common.answered(handle, number, None, now)
            case CallFailed():
                self.interdomain.failed(event, now)
            case PeerClosed(handle=handle):
                self.nodes.ended(handle, now)
                self.relays.ended(handle, now)
                self.interdomain.ended(handle)
            case _:
                pass  # data keys and slots: a coordinator has no plane

    def _established(self, event: Established, now: float) -> None:
        leaf = event.remote.leaf
        if leaf.role is Role.NODE:
            if self.registry.acceptable(leaf):  # a newer key came while this one shook hands
                self.engine.close(event.handle, now, m.CloseReason.REFUSED)
                return
            self.nodes.established(event, now)
        elif leaf.role is Role.DC:
            self.interdomain.established(event, now)
        else:
            self.engine.set_primary(event.handle, event.path)
            self.relays.shown_by(leaf)

    def _message(self, event: MessageReceived, now: float) -> None:
        node = self.registry.by_handle(event.handle)
        if node is not None:
            self.registry.seen(node, now)
            self._from_node(node, event, now)
            return
        message = event.message
        remote = self.engine.remote(event.handle)
        role = remote.leaf.role if remote is not None else None
        match message:
            case m.Probe():
                self.nodes.probe(event, message, now)
            case m.Answer() | m.Seen() | m.Move():
                pass
            case m.RelayRegister() if role is Role.RS and remote is not None:
                reply = self.relays.register(message, remote.leaf, event.handle, event.path, now)
                self.engine.reply(event, reply, now)
            case m.InformationRequest() if role is Role.DC and remote is not None:
                self.abroad.information(remote.leaf, event, message, now)
            case m.RouteDirection() if role is Role.DC and remote is not None:
                self.abroad.route_direction(remote.leaf, event, message, now)
            case _:
                self._refuse(event, now)

    def _from_node(self, node: Node, event: MessageReceived, now: float) -> None:
        message = event.message
        match message:
            case m.Probe():
                self.nodes.probe(event, message, now)
                self.registry.store(node, now, lazily=True)
            case m.Register():
                self.nodes.register(node, event, message, now)
            case m.Move():
                self.nodes.move(node, event, message, now)
            case m.CandidateUpdate():
                self.nodes.candidates(node, message)
            case m.Answer():
                self.nodes.answered(node, event, message)
            case m.DirectionRequest():
                self.directions.request(node, event, message, now)
            case m.Deregister():
                self.nodes.deregister(node, event, now)
            case m.RouteDirectionRequest():
                self.engine.reply(event, m.Done(message.id, m.Status.OK), now)
            case m.Seen():
                pass
            case _:
                self._refuse(event, now)

    def _refuse(self, event: MessageReceived, now: float) -> None:
        """A message that its sender's role does not entitle it to: requests are refused."""
        self._common.counters["unexpected_message"] += 1
        number = getattr(event.message, "id", None)
        if isinstance(event.message, m.Request) and number is not None:
            self.engine.reply(event, m.Done(number, m.Status.REFUSED), now)

    # -------------------------------------------------------------- the rest

    def _directory(self, event: DirectoryUpdated, now: float) -> None:
        self.interdomain.directory(event.entries, now)
        fresh = [key for key in event.revoked if key not in self._common.revoked]
        self._common.revoked = frozenset(event.revoked)
        for node in self.registry.nodes():
            if node.handle is not None and fresh and sha256(node.key) in fresh:
                self._common.counters["revoked"] += 1
                self.engine.close(node.handle, now, m.CloseReason.REVOKED)
                self.registry.ended(node.handle, now)

    def _renewed(self, event: CertificatesRenewed, now: float) -> None:
        """Present the new certificates from the next handshake on; sessions go on as they are."""
        common = self._common
        try:
            common.check_sign(event.dc_sign, common.sign_private)
            leaf = common.verified(event.certificates[0], Role.DC, common.identity.name, now)
            if leaf.key != common.own_key:
                raise ProtocolError("certificate_key")
        except (ValueError, IndexError, ProtocolError) as error:
            common.tell("warning", "renewed certificates do not fit", why=str(error))
            return
        common.sign_certificate = event.dc_sign
        common.identity = replace(common.identity, certificates=event.certificates)
        self.engine.set_identity(common.identity)
        common.counters["certificates_renewed"] += 1

    def _asked(self, event: UserAsked, now: float) -> None:
        answer: Any = None
        error: str | None = None
        name = str(event.arguments.get("name", ""))
        if event.what == "status":
            answer = self.status(now)
        elif event.what == "nodes":
            answer = [self._view(node, now) for node in self.registry.nodes()]
        elif event.what in ("node", "forget"):
            node = self.registry.by_name(name)
            if node is None:
                error = f"The coordinator of {self.settings.domain} knows no node {name!r}."
            else:
                answer = self._view(node, now)
                if event.what == "forget":
                    self._forget(node, now)
        else:
            error = f"A coordinator has no answer to {event.what!r}; it knows status, nodes, node."
        code = 0 if error is None else 1
        self._common.emit(UserAnswered(event.token, answer, error=error, exit_code=code))

    def _forget(self, node: Node, now: float) -> None:
        if node.handle is not None:
            self.engine.close(node.handle, now, m.CloseReason.REVOKED)
        self.registry.forget(node.name)

    def _view(self, node: Node, now: float) -> dict[str, Any]:
        alive = self.registry.alive(node, now)
        return {
            "name": node.name,
            "address": str(ipaddress.IPv6Address(node.address)),
            "online": alive,
            "endpoint": str(node.primary.remote) if node.primary else None,
            "home_relay": node.home_relay or None,
            "last_seen_s": round(now - node.last_seen, 3) if node.last_seen > -1e8 else None,
        }

    def _persist_mark(self, mark: int) -> None:
        self._common.emit(Store(SEQUENCE_KEY, mark.to_bytes(8, "big")))
