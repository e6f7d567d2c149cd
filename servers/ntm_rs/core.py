"""The relay's core: who may open a leg, where a node is, and what leaves for whom.

Datagrams that carry a leg id in their index never reach a session: :class:`ntm_rs.legs.LegTable`
says where they go. The shell may ask the table itself for whole batches (that is the fast road,
:mod:`ntm_rs.plane`); a core that is handed such a datagram does the same one by one, so that the
simulator and the fall-back need no shell.

The relay keeps no session over a restart. Its reset token is derived from its static key, so that a
node that still sends to a leg of before hears a reset (rule S4), shakes hands anew and opens its
grants again, without any coordinator. Nodes that are idle are told too: :mod:`ntm_rs.recall`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ntm_rs.clients import Clients
from ntm_rs.home import CertificatesRenewed, Home, HomeDc
from ntm_rs.legs import LegTable
from ntm_rs.recall import Ending, Recall
from ntmd.proto import crypto, plane, timing
from ntmd.proto import messages as m
from ntmd.proto.certs import Leaf, Trust, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import (
    CallFailed,
    Established,
    Identity,
    MessageReceived,
    OpenPolicy,
    PeerClosed,
    Replied,
    RequestFailed,
)
from ntmd.proto.frame import HEADER_SIZE, Kind, with_index
from ntmd.proto.io import (
    DatagramReceived,
    SendDatagram,
    SendFailed,
    Store,
    Tell,
    UserAnswered,
    UserAsked,
    earliest,
)
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.stream import STREAM_SOCKET
from ntmd.proto.types import Endpoint, Path, Role

SWEEP = 1.0  # seconds between looks at what ran out
SEQUENCE_KEY = "rs/sequence"


@dataclass(frozen=True, slots=True)
class RsSettings:
    """A relay's settings. ``legs_per_node`` is a count; ``draining`` asks the coordinator for no
    new pairs; ``announced`` are the endpoints to tell it, if others than those listened on; ``tls``
    is where it listens for TLS (rule S12)."""

    platform_id: bytes
    legs_per_node: int = timing.LEGS_PER_NODE
    draining: bool = False
    announced: tuple[Endpoint, ...] = ()
    tls: tuple[Endpoint, ...] = ()


class RsCore:
    """A relay server. ``sockets`` are its own listening endpoints by number."""

    def __init__(
        self,
        settings: RsSettings,
        identity: Identity,
        trust: Trust,
        dc: HomeDc,
        sockets: Mapping[int, Endpoint],
        *,
        random: Callable[[int], bytes],
        now: float,
        wall_ms: int,
        stored: Mapping[str, bytes] | None = None,
    ) -> None:
        self.settings = settings
        self.table = LegTable()
        self._identity = identity
        self._commands: list[Any] = []
        self._sockets = dict(sockets)
        self._offset_ms = wall_ms - now * 1000
        self._bytes_reported = (now, 0)
        self._sweep_at = now + SWEEP
        self._size = 0  # of the datagram being taken
        kept = stored or {}
        mark = int.from_bytes(kept.get(SEQUENCE_KEY, b""), "big")
        self.engine = SessionEngine(
            identity,
            trust,
            OpenPolicy((Role.NODE, Role.DC)),
            random=random,
            platform_ms=self.platform_ms,
            sequencer=Sequencer(mark, self._persist_mark),
        )
        self.home = Home(
            dc,
            self.engine,
            trust,
            self._sockets,
            self.platform_ms,
            self._commands.append,
            self._heard_time,
        )
        self.recall = Recall(self.engine, self._sockets, self.platform_ms, self._commands.append)
        self.clients = Clients(
            self.engine,
            self.table,
            self.recall,
            crypto.sha256(crypto.public_key(identity.private_key)),
            settings.platform_id,
            self.home.signers,
            random=random,
            platform_ms=self.platform_ms,
            emit=self._commands.append,
            legs_per_node=settings.legs_per_node,
        )
        self.home.start(now, kept)
        self.recall.start(kept, now)
        self._work(now)

    # -------------------------------------------------------------- contract of a core

    def handle(self, event: Any, now: float) -> None:
        """Take one input; anything a relay has no use for is ignored."""
        match event:
            case DatagramReceived(data=data, socket=socket, source=source):
                self._datagram(data, socket, source, now)
            case CertificatesRenewed():
                self._renewed(event, now)
            case UserAsked():
                self._asked(event, now)
            case Ending():
                self.recall.write(now)
            case SendFailed():
                self.clients.counters["send_failed"] += 1
            case _:
                self.clients.counters["unknown_input"] += 1
        self._work(now)

    def handle_deadline(self, now: float) -> None:
        """Retransmissions, sweeps, and the next word to the coordinator."""
        self.engine.handle_deadline(now)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            self.clients.sweep(now)
        self.home.tick(now, self._report)
        self.recall.tick(now)
        self._work(now)

    def take_commands(self) -> list[Any]:
        """All wishes since the last call, in order."""
        out, self._commands[:] = list(self._commands), []
        return out

    def deadline(self) -> float | None:
        """The earliest of all that waits."""
        sweep = self._sweep_at if len(self.clients) or len(self.table) else None
        own = earliest(self.home.deadline(), self.recall.deadline())
        return earliest(earliest(self.engine.deadline(), own), sweep)

    # -------------------------------------------------------------- for the shell

    def platform_ms(self, now: float) -> int:
        """Platform time at a boot-clock instant (rule S8)."""
        return int(self._offset_ms + now * 1000)

    def stream_sources(self) -> frozenset[Endpoint]:
        """The TLS connections from which a session is heard; others are not kept (rule S12)."""
        return self.clients.sources(STREAM_SOCKET)

    def status(self) -> dict[str, Any]:
        """Counters and gauges for ``ntm-server status`` and ``/metrics``."""
        return {
            "registered": self.home.registered,
            "draining": self.settings.draining,
            "busy_legs": self.table.busy,
            "recalled": self.recall.sent,
            "recall_waiting": self.recall.waiting(),
            "nodes": len(self.clients),
            "legs": len(self.table),
            "packets": self.table.packets,
            "bytes": self.table.bytes,
            "drops": dict(sorted(self.table.drops.items())),
            "sessions": dict(sorted(self.engine.counters.items())),
            "events": dict(sorted(self.clients.counters.items())),
        }

    # -------------------------------------------------------------- parts

    def _datagram(self, data: bytes, socket: int, source: Endpoint, now: float) -> None:
        index = int.from_bytes(data[4:8], "big")
        if len(data) >= HEADER_SIZE and index and self.table.knows(index):
            for way in self.table.forward(data, len(data), socket, source, now):
                path = Path(way.socket, way.remote)
                self._commands.append(SendDatagram(with_index(data, way.delivery), path))
        elif len(data) >= HEADER_SIZE and data[0] == Kind.DATA:
            self.table.drops["unknown_leg"] += 1
            event = plane.UnknownIndex(socket, source, index, len(data))
            self.engine.unknown_index(event, now)
        else:
            self._size = len(data)
            self.engine.receive(data, socket, source, now)

    def _work(self, now: float) -> None:
        """Take what the engine wishes and reports until it is silent."""
        while outputs := self.engine.take_outputs():
            for output in outputs:
                self._output(output, now)

    def _output(self, output: Any, now: float) -> None:
        match output:
            case SendDatagram():
                self._commands.append(output)
            case Established():
                self._established(output, now)
            case MessageReceived():
                self._message(output, now)
            case Replied(handle=handle) if handle == self.home.handle:
                self.home.replied(output, now)
            case RequestFailed(handle=handle) if handle == self.home.handle:
                self.home.failed(output, now)
            case CallFailed(handle=handle) if handle == self.home.handle:
                self.home.failed(output, now)
            case PeerClosed(handle=handle):
                self.clients.ended(handle, now)
            case _:
                pass  # slots and keys of data: a relay carries none of its own

    def _established(self, event: Established, now: float) -> None:
        leaf: Leaf = event.remote.leaf
        if leaf.role == Role.NODE:
            self.clients.established(event, leaf.key, now)
            if self.settings.draining:
                self.clients.tell_draining(event.handle, True, now)
        elif leaf.key == self.home.dc.peer.key:
            self.home.established(now)

    def _message(self, event: MessageReceived, now: float) -> None:
        self.clients.heard(event, self._size, now)
        message = event.message
        match message:
            case m.Probe(nonce=nonce):
                if message.answer_from == 0:
                    answer = m.Answer(nonce, event.path.remote, self.platform_ms(now))
                    self.engine.tell(event.handle, answer, now, event.path)
            case m.Answer():
                self.clients.answered(event, message, now)
            case m.LegOpen():
                self.engine.reply(event, self.clients.open(event, message, now), now)
            case m.LegMove():
                self.engine.reply(event, self.clients.move(event, message, now), now)
            case m.LegClose():
                self.engine.reply(event, self.clients.close(event, message, now), now)
            case _:
                self._other(event, now)

    def _other(self, event: MessageReceived, now: float) -> None:
        """A message that a relay does not serve: requests are refused, the rest counted."""
        self.clients.counters["unexpected_message"] += 1
        request_id = getattr(event.message, "id", None)
        if isinstance(event.message, m.Request) and request_id is not None:
            self.engine.reply(event, m.Done(request_id, m.Status.REFUSED), now)

    def _renewed(self, event: CertificatesRenewed, now: float) -> None:
        """Present the new certificates from the next handshake on; sessions go on as they are."""
        try:
            leaf = parse_leaf(event.certificates[0])
            if leaf.key != crypto.public_key(self._identity.private_key):
                raise ProtocolError("certificate_key")
        except (IndexError, ProtocolError) as error:
            why = {"why": str(error)}
            self._commands.append(Tell("warning", "renewed certificates do not fit", why))
            return
        self._identity = replace(self._identity, certificates=event.certificates)
        self.engine.set_identity(self._identity)
        self.home.renewed(event.dc, now)
        self.clients.counters["certificates_renewed"] += 1

    def _report(self, now: float) -> m.RelayRegister:
        since, before = self._bytes_reported
        rate = (self.table.bytes - before) * 8 / 1000 / max(now - since, 1e-3)
        self._bytes_reported = (now, self.table.bytes)
        return m.RelayRegister(
            0,
            (self.settings.announced or tuple(self._sockets[n] for n in sorted(self._sockets)))[:8],
            len(self.table),
            int(rate),
            self.settings.draining,
            self.settings.tls[:8],
        )

    def _asked(self, event: UserAsked, now: float) -> None:
        answer: Any = None
        error = None
        if event.what == "drain":
            self._drain(event.arguments.get("on") is not False, now)
        elif event.what != "status":
            error = f"A relay has no answer to {event.what!r}; it knows status and drain."
        if error is None:
            answer = self.status()
        code = 0 if error is None else 2
        self._commands.append(UserAnswered(event.token, answer, error=error, exit_code=code))

    def _drain(self, on: bool, now: float) -> None:
        """Tell coordinator and nodes that the relay is about to leave, or stays; it forwards on."""
        if on != self.settings.draining:
            self.settings = replace(self.settings, draining=on)
            self.clients.drain(on, now)
            self.home.report_now(now)

    def _persist_mark(self, mark: int) -> None:
        self._commands.append(Store(SEQUENCE_KEY, mark.to_bytes(8, "big")))

    def _heard_time(self, platform_ms: int, now: float) -> None:
        self._offset_ms = platform_ms - now * 1000
