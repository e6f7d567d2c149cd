"""A coordinator for the node's own tests: enough to register, to direct, and to be silent.

Only the node is under test here; the production coordinator meets it in the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ntmd.proto import messages as m
from ntmd.proto import records
from ntmd.proto.crypto import sha256
from ntmd.proto.events import (
    Established,
    MessageReceived,
    OpenPolicy,
    Replied,
)
from ntmd.proto.io import DatagramReceived, SendDatagram
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Endpoint, Path, Role
from tests.sim.platform import DcIdentity, Platform
from tests.sim.process import Birth

WEEK_MS = 7 * 86_400_000


@dataclass
class Client:
    """A registered node."""

    handle: int
    name: str
    key: bytes
    certificate: bytes
    record: bytes
    address: bytes
    candidates: tuple[m.CandidateField, ...] = ()
    home_relay: str = ""
    registrations: int = 0


class FakeDc:
    """``relays`` are handed out at registration; ``grants`` made for each pair when there are."""

    def __init__(
        self,
        birth: Birth,
        platform: Platform,
        dc: DcIdentity,
        sockets: dict[int, Endpoint],
        relays: tuple[m.RelayInfo, ...] = (),
        relay_keys: tuple[bytes, ...] = (),
        *,
        tamper: Callable[[m.RouteInfo], m.RouteInfo] = lambda route: route,
    ) -> None:
        self._birth, self._platform, self._dc, self._sockets = birth, platform, dc, sockets
        self._relays, self._relay_keys = relays, relay_keys
        self.tamper = tamper
        self.clients: dict[str, Client] = {}
        self.relay_only = False
        self.log: list[tuple[str, str]] = []
        self._waiting: dict[tuple[int, int], Callable[[Any, float], None]] = {}
        self._commands: list[Any] = []
        self.engine = SessionEngine(
            dc.identity,
            platform.trust,
            OpenPolicy((Role.NODE, Role.RS, Role.DC)),
            random=birth.random,
            platform_ms=self._ms,
            sequencer=Sequencer(0, lambda mark: None),
        )

    def _ms(self, now: float) -> int:
        return self._birth.wall_ms + int((now - self._birth.now) * 1000)

    # -------------------------------------------------------------- the contract of a core

    def handle(self, event: Any, now: float) -> None:
        if isinstance(event, DatagramReceived):
            self.engine.receive(event.data, event.socket, event.source, now)
        self._work(now)

    def handle_deadline(self, now: float) -> None:
        self.engine.handle_deadline(now)
        self._work(now)

    def deadline(self) -> float | None:
        return self.engine.deadline()

    def take_commands(self) -> list[Any]:
        taken, self._commands = self._commands, []
        return taken

    # -------------------------------------------------------------- what it does

    def _work(self, now: float) -> None:
        while outputs := self.engine.take_outputs():
            for output in outputs:
                if isinstance(output, SendDatagram):
                    self._commands.append(output)
                elif isinstance(output, Established):
                    self._established(output, now)
                elif isinstance(output, MessageReceived):
                    self._message(output, now)
                elif isinstance(output, Replied):
                    done = self._waiting.pop((output.handle, output.request_id), None)
                    if done is not None:
                        done(output.reply, now)

    def _established(self, event: Established, now: float) -> None:
        self.engine.set_primary(event.handle, event.path)
        leaf = event.remote.leaf
        if leaf.role is not Role.NODE:
            return
        known = self.clients.get(leaf.name)
        if known is not None:
            known.handle = event.handle
            return
        number = len(self.clients) + 1
        address = (int(self._dc.prefix.network_address) + number).to_bytes(16, "big")
        record = records.sign_record(
            self._dc.sign_private,
            self._platform.id,
            leaf.name,
            address=address,
            node_key=leaf.key,
            capabilities=event.remote.capabilities,
            issued_ms=self._ms(now),
            expires_ms=self._ms(now) + WEEK_MS,
        )
        self.clients[leaf.name] = Client(
            event.handle, leaf.name, leaf.key, leaf.der, record, address
        )

    def _message(self, event: MessageReceived, now: float) -> None:
        message = event.message
        if isinstance(message, m.Probe | m.Move):
            if isinstance(message, m.Move):
                self.engine.set_primary(event.handle, event.path)
            path = event.path
            if isinstance(message, m.Probe) and message.answer_from:
                probe = self._probes()[message.answer_from - 1]
                number = next(n for n, e in self._sockets.items() if e == probe)
                path = Path(number, path.remote)
            answer = m.Answer(message.nonce, event.path.remote, self._ms(now))
            self.engine.tell(event.handle, answer, now, path=path)
        elif isinstance(message, m.Register):
            self._register(event, message, now)
        elif isinstance(message, m.RelayRegister):
            reply = m.RelayRegistered(message.id, 0, 0, self._ms(now), self._dc.sign_certificate)
            self.engine.reply(event, reply, now)
        elif isinstance(message, m.DirectionRequest):
            self._direct(event, message, now)
        elif isinstance(message, m.Deregister):
            self.log.append(("deregister", ""))
            self.engine.reply(event, m.Done(message.id, 0), now)

    def _probes(self) -> tuple[Endpoint, ...]:
        return tuple(self._sockets.values())

    def _register(self, event: MessageReceived, message: m.Register, now: float) -> None:
        client = next(c for c in self.clients.values() if c.handle == event.handle)
        client.candidates, client.home_relay = message.candidates, message.home_relay
        client.registrations += 1
        if event.path_id == event.primary_id:
            self.engine.set_primary(event.handle, event.path)
        reply = m.Registered(
            message.id,
            m.Status.OK,
            0,
            self._ms(now),
            client.address,
            client.record,
            self._dc.sign_certificate,
            event.path.remote,
            self._probes(),
            self._relays,
            20,
            (self._dc.domain,),
        )
        self.engine.reply(event, reply, now)

    def _direct(self, event: MessageReceived, message: m.DirectionRequest, now: float) -> None:
        caller = next(c for c in self.clients.values() if c.handle == event.handle)
        called = self.clients.get(message.name) or next(
            (c for c in self.clients.values() if c.address == message.address), None
        )
        self.log.append(("ask", message.name))
        if called is None:
            text = "nobody has this name"
            reply = m.RouteDirectionToCaller(message.id, m.Status.NO_SUCH_NAME, 0, text, None)
            self.engine.reply(event, reply, now)
            return
        psk_id, psk = self._birth.random(16), self._birth.random(32)
        grants = tuple(
            self._grant(relay, key, caller, called, now)
            for relay, key in zip(self._relays, self._relay_keys, strict=True)
        )

        def route(about: Client, start: bool) -> m.RouteInfo:
            return self.tamper(
                m.RouteInfo(
                    about.name,
                    about.certificate,
                    about.record,
                    self._dc.sign_certificate,
                    about.candidates,
                    m.NatView(),
                    psk_id,
                    psk,
                    grants,
                    start,
                    self.relay_only,
                    about.home_relay,
                )
            )

        def ready(reply: Any, at: float) -> None:
            self.log.append(("ready", called.name))
            answer = m.RouteDirectionToCaller(message.id, reply.status, 0, "", route(called, True))
            self.engine.reply(event, answer, at)

        request = m.RouteDirection(0, called.name, route(caller, False))
        number = self.engine.ask(called.handle, request, now)
        self._waiting[called.handle, number] = ready

    def _grant(
        self, relay: m.RelayInfo, key: bytes, a: Client, b: Client, now: float
    ) -> m.RelayGrant:
        grant = records.sign_grant(
            self._dc.sign_private,
            self._platform.id,
            rs_key_hash=sha256(key),
            grant_id=self._birth.random(16),
            node_a_hash=sha256(a.key),
            node_b_hash=sha256(b.key),
            issued_ms=self._ms(now),
            expires_ms=self._ms(now) + WEEK_MS,
            kbit_s=100_000,
        )
        return m.RelayGrant(relay, grant)
