"""The relay's session with its direction coordinator: register, refresh, learn who may grant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.certs import Leaf, Trust, check_leaf, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import CallFailed, Replied, RequestFailed
from ntmd.proto.io import Store, Tell
from ntmd.proto.records import signer_id
from ntmd.proto.session import SessionEngine
from ntmd.proto.types import Endpoint, Path, Peer, Role

RETRY = (1.0, 2.0, 4.0, 8.0)  # seconds between attempts to reach a silent coordinator
REFRESH = 0.5  # of the lease
SIGNERS_KEY = "rs/signers"


@dataclass(frozen=True, slots=True)
class HomeDc:
    """Where the relay's coordinator is, and the certificate that checks its grants (DER)."""

    peer: Peer
    endpoints: tuple[Endpoint, ...]
    dc_sign: bytes


@dataclass(frozen=True, slots=True)
class CertificatesRenewed:
    """The account server renewed the relay's certificates (DER), and said what its coordinator is
    by now."""

    certificates: tuple[bytes, ...]
    dc: HomeDc


class Home:
    """Keeps the registration alive. ``paths`` are rebuilt from ``sockets`` at each call."""

    def __init__(
        self,
        dc: HomeDc,
        engine: SessionEngine,
        trust: Trust,
        sockets: dict[int, Endpoint],
        platform_ms: Callable[[float], int],
        emit: Callable[[Store | Tell], None],
        heard_time: Callable[[int, float], None],
    ) -> None:
        self.dc = dc
        self.registered = False
        self.handle: int | None = None
        self.signers: dict[bytes, Leaf] = {}
        self._engine = engine
        self._trust = trust
        self._sockets = sockets
        self._platform_ms = platform_ms
        self._emit = emit
        self._heard_time = heard_time
        self._asked: int | None = None
        self._next: float | None = None
        self._failures = 0
        self._again = False  # register once more as soon as the answer under way is there

    def start(self, now: float, stored: Mapping[str, bytes]) -> None:
        """Take the signers known from enrolment and from before, and call the coordinator."""
        self._learn(self.dc.dc_sign, now, store=False)
        if SIGNERS_KEY in stored:
            self._learn(stored[SIGNERS_KEY], now, store=False)
        self._next = now

    def renewed(self, dc: HomeDc, now: float) -> None:
        """Show the coordinator the relay's new certificate, which it hands to nodes."""
        self._learn(dc.dc_sign, now, store=True)
        moved = dc.peer != self.dc.peer
        self.dc = dc
        if moved or self.handle is None or not self._engine.established(self.handle):
            self.handle, self._asked, self._next = None, None, now
        else:
            self._engine.rekey(self.handle, now)

    def deadline(self) -> float | None:
        """When the next attempt or refresh is due."""
        return self._next

    def tick(self, now: float, report: Callable[[float], m.RelayRegister]) -> None:
        """Register (again) if it is time."""
        if self._next is None or now < self._next:
            return
        self._next = None
        if self.handle is None or not self._engine.established(self.handle):
            self.handle = self._engine.call(self.dc.peer, self._paths(), now)
        self._asked = self._engine.ask(self.handle, report(now), now)

    def report_now(self, now: float) -> None:
        """Something that the coordinator must know has changed."""
        if self._asked is None:
            self._next = now
        else:
            self._again = True

    def established(self, now: float) -> None:
        """The coordinator began a new session with us, or we with it: register at once."""
        if self._asked is None:
            self._next = now

    def replied(self, event: Replied, now: float) -> None:
        """RelayRegistered came."""
        if event.request_id != self._asked or not isinstance(event.reply, m.RelayRegistered):
            return
        self._asked = None
        reply = event.reply
        self._heard_time(reply.platform_ms, now)
        if reply.status != m.Status.OK:
            self._emit(Tell("warning", "coordinator refused", {"status": reply.status}))
            self._retry(now, reply.retry_after_ms / 1000)
            return
        if not self.registered:
            self._emit(Tell("info", "registered at the coordinator", {"dc": self.dc.peer.name}))
        self.registered = True
        self._failures = 0
        again, self._again = self._again, False
        if reply.dc_sign:
            self._learn(reply.dc_sign, now, store=True)
        self._next = now if again else now + max(1.0, reply.lease_s * REFRESH)

    def failed(self, event: RequestFailed | CallFailed, now: float) -> None:
        """Nobody answered; the relay goes on forwarding and tries again."""
        if isinstance(event, RequestFailed) and event.request_id != self._asked:
            return
        if self._asked is None and self._next is not None:
            return
        self._asked = None
        if self.registered:
            self._emit(Tell("warning", "coordinator silent", {"dc": self.dc.peer.name}))
        self.registered = False
        self._retry(now, 0.0)

    def _retry(self, now: float, at_least: float) -> None:
        wait = RETRY[min(self._failures, len(RETRY) - 1)]
        self._failures += 1
        self._next = now + max(wait, at_least)

    def _paths(self) -> list[Path]:
        """One path for each endpoint of the coordinator, from our first socket of its family."""
        paths = []
        for endpoint in self.dc.endpoints:
            for number, local in sorted(self._sockets.items()):
                if local.family == endpoint.family:
                    paths.append(Path(number, endpoint))
                    break
        return paths

    def _learn(self, der: bytes, now: float, *, store: bool) -> None:
        """Take a dc-sign certificate of our own coordinator as a signer of grants."""
        try:
            leaf = parse_leaf(der)
            check_leaf(
                leaf,
                self._trust,
                role=Role.DC_SIGN,
                name=None,
                now_ms=self._platform_ms(now),
                slack_ms=0 if store else int(timing.CLOCK_SLACK * 1000),
            )
        except ProtocolError as error:
            self._emit(Tell("warning", "signer refused", {"kind": error.kind}))
            return
        if self.dc.peer.name != leaf.name and not self.dc.peer.name.endswith("." + leaf.domain):
            self._emit(Tell("warning", "signer of another domain", {"domain": leaf.domain}))
            return
        signer = signer_id(leaf)
        if signer not in self.signers:
            self.signers[signer] = leaf
            if store:
                self._emit(Store(SIGNERS_KEY, der))
