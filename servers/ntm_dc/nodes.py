"""The domain's nodes in session: registration, keep-alive, mapping test, moves (rules C7, S6).

Probes and registrations never move anything: where directions go changes only by a sealed Move
with a greater sequence. The first session of an association sets it.
"""

from __future__ import annotations

from collections.abc import Callable

from ntm_dc import decision
from ntm_dc.common import Common
from ntm_dc.registry import Node, Registry
from ntm_dc.relays import Relays
from ntm_dc.values import LISTEN_MAX, PROBE_SOCKETS, Flush
from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.events import Established, MessageReceived
from ntmd.proto.stream import STREAM_SOCKET
from ntmd.proto.types import CandidateKind, Path

DOMAINS_TOLD = 16
RETRY_MS = 5_000


class Nodes:
    """Serves nodes. ``domains`` gives the platform's other domains, ``online`` hears who came."""

    def __init__(
        self,
        common: Common,
        registry: Registry,
        relays: Relays,
        *,
        domains: Callable[[], tuple[str, ...]],
        online: Callable[[Node, float], None],
    ) -> None:
        self._common, self._registry, self._relays = common, registry, relays
        self._domains, self._online = domains, online
        self._tickets = 0
        self._unwritten: dict[int, list[tuple[Node, MessageReceived, m.Register]]] = {}
        own = common.settings
        main = tuple(enumerate(own.listen, 1))[:LISTEN_MAX]
        twins = tuple((PROBE_SOCKETS + n, at) for n, at in enumerate(own.probe, 1))[:LISTEN_MAX]
        self._tested = main + twins if twins or len(main) > 1 else ()
        self._test_endpoints = tuple(at for _, at in self._tested)

    # -------------------------------------------------------------- sessions

    def established(self, event: Established, now: float) -> None:
        """A node's session is confirmed; a new association begins where it was heard."""
        common, leaf = self._common, event.remote.leaf
        node, replaced = self._registry.established(leaf, event.handle, now)
        if replaced is not None:
            common.counters["key_replaced"] += 1
            common.engine.close(replaced, now, m.CloseReason.REPLACED)
        if event.first or node.primary is None or replaced is not None:
            node.seq = 0
            node.sources = {(event.path.socket, event.path.remote): 0}
            node.primary = event.path
        common.engine.set_primary(event.handle, node.primary)
        self._registry.store(node, now, lazily=True)
        self._online(node, now)

    def ended(self, handle: int, now: float) -> None:
        """A session is over: the node took leave, or its keys ran out."""
        self._registry.ended(handle, now)

    # -------------------------------------------------------------- messages

    def register(self, node: Node, event: MessageReceived, request: m.Register, now: float) -> None:
        """Registration Request: take what the node says; answer once its address is durable."""
        common = self._common
        if node.seq == 0 and event.path != node.primary:
            # It moved while the handshake was under way, which ended where it began for us: a node
            # that knows of no other place of its own announces none.
            node.primary = event.path
            common.engine.set_primary(event.handle, event.path)
            self._know_source(node, event, now)
        reported = (*_observed(event.path), *request.candidates)
        node.candidates = decision.sift(_merge(reported), common.virtual)
        node.nat = request.nat
        node.relay_rtts = dict(request.relay_rtts)
        home = self._relays.home(request.home_relay or node.home_relay, now)
        node.home_relay = home.leaf.name if home else request.home_relay or node.home_relay
        self._registry.record(node, request.capabilities, now)
        wrote = self._registry.store(node, now, lazily=True)
        if self._registry.durable(node):
            self._answer(node, event, request, now)
            return
        if not wrote:
            self._registry.store(node, now)
        self._tickets += 1
        self._unwritten[self._tickets] = [(node, event, request)]
        common.emit(Flush(self._tickets))

    def flushed(self, ticket: int, error: str, now: float) -> None:
        """The shell has written everything up to this ticket, or could not."""
        for node, event, request in self._unwritten.pop(ticket, ()):
            if error:
                self._common.counters["store_failed"] += 1
                self._refuse(event, request, m.Status.TRY_AGAIN, "storage failed", now)
            else:
                self._registry.now_durable((node.name,))
                self._answer(node, event, request, now)

    def deregister(self, node: Node, event: MessageReceived, now: float) -> None:
        """The node goes down: nobody is directed to it any more."""
        assert isinstance(event.message, m.Deregister)
        node.online = False
        self._registry.store(node, now)
        self._common.engine.reply(event, m.Done(event.message.id, m.Status.OK), now)

    def probe(self, event: MessageReceived, probe: m.Probe, now: float) -> None:
        """Answer where it came from, or from the endpoint asked for (filtering test)."""
        path = event.path
        if probe.answer_from:
            if probe.answer_from > len(self._tested):
                self._common.counters["bad_probe"] += 1
                return
            number, endpoint = self._tested[probe.answer_from - 1]
            if endpoint.family != path.remote.family:
                self._common.counters["bad_probe"] += 1
                return
            path = Path(number, path.remote)
        answer = m.Answer(probe.nonce, event.path.remote, self._common.platform_ms(now))
        self._common.engine.tell(event.handle, answer, now, path)

    def move(self, node: Node, event: MessageReceived, move: m.Move, now: float) -> None:
        """A sealed Move: the greatest sequence says where directions go from now on."""
        common = self._common
        answer = m.Answer(move.nonce, event.path.remote, common.platform_ms(now))
        common.engine.tell(event.handle, answer, now, event.path)
        if move.seq <= node.seq:
            common.counters["old_move"] += move.seq < node.seq
            return
        node.seq = move.seq
        node.primary = event.path
        common.engine.set_primary(event.handle, event.path)
        node.candidates = decision.sift(
            _merge((*_observed(event.path), *move.candidates)), common.virtual
        )
        common.counters["moves"] += 1
        self._know_source(node, event, now)
        self._registry.store(node, now, lazily=True)

    def candidates(self, node: Node, update: m.CandidateUpdate) -> None:
        """Further candidates under the sequence of the last Move."""
        if update.seq == node.seq:
            merged = _merge((*node.candidates, *update.candidates))
            node.candidates = decision.sift(merged, self._common.virtual)

    def answered(self, node: Node, event: MessageReceived, answer: m.Answer) -> None:
        """An answer from a source that was challenged validates it."""
        place = (event.path.socket, event.path.remote)
        if answer.nonce and node.sources.get(place) == answer.nonce:
            node.sources[place] = 0

    # -------------------------------------------------------------- parts

    def _know_source(self, node: Node, event: MessageReceived, now: float) -> None:
        """Keep the newest sources of the session; challenge one not heard from before."""
        place = (event.path.socket, event.path.remote)
        if place in node.sources:
            node.sources[place] = node.sources.pop(place)
            return
        nonce = int.from_bytes(self._common.random(8), "big") or 1
        node.sources[place] = nonce
        while len(node.sources) > timing.SESSION_SOURCES:
            del node.sources[next(iter(node.sources))]
        self._common.engine.tell(event.handle, m.Probe(nonce), now, event.path)

    def _answer(self, node: Node, event: MessageReceived, request: m.Register, now: float) -> None:
        common = self._common
        domains = (common.settings.domain, *self._domains())[:DOMAINS_TOLD]
        reply = m.Registered(
            request.id,
            m.Status.OK,
            0,
            common.platform_ms(now),
            node.address,
            node.record,
            common.sign_certificate,
            event.path.remote,
            self._test_endpoints,
            self._relays.shown(node.home_relay, now),
            common.settings.keepalive_s,
            domains,
            tls=common.settings.tls[:8],
        )
        common.engine.reply(event, reply, now)

    def _refuse(
        self, event: MessageReceived, request: m.Register, status: m.Status, why: str, now: float
    ) -> None:
        reply = m.Registered(
            request.id,
            status,
            RETRY_MS,
            self._common.platform_ms(now),
            b"",
            b"",
            b"",
            event.path.remote,
            (),
            (),
            self._common.settings.keepalive_s,
            (),
            why,
        )
        self._common.engine.reply(event, reply, now)


def _observed(path: Path) -> tuple[m.CandidateField, ...]:
    """Where the node was heard, as a candidate; the far end of a TLS connection is none."""
    if path.socket == STREAM_SOCKET:
        return ()
    return (m.CandidateField(int(CandidateKind.REFLEXIVE), path.remote),)


def _merge(candidates: tuple[m.CandidateField, ...]) -> tuple[m.CandidateField, ...]:
    """One entry for each endpoint and kind; what we saw ourselves comes first."""
    return tuple(dict.fromkeys(candidates))
