"""Directions: a node asks for a way to a name, and both ends are told, the called one first.

Direction Request, (Information Request and Response,) decision, Route Direction to the called end,
its response, Route Direction to the caller. The caller hears nothing before the called end is
ready, whatever is lost on the way. Questions of one pair that are under way at the same time share
one shared key, so that two nodes that call each other agree on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ntm_dc.common import Buckets, Common
from ntm_dc.decision import Decision, Side, decide
from ntm_dc.foreign import Abroad, Answer, status_of
from ntm_dc.interdomain import Interdomain
from ntm_dc.recall import Recall
from ntm_dc.registry import Node, Registry
from ntm_dc.relays import Relay, Relays
from ntmd.proto import messages as m
from ntmd.proto.certs import in_domain, is_name
from ntmd.proto.events import MessageReceived

CALLED_TIMEOUT = 3.0  # for the called end to say that it is ready, seconds
RECALL_WAIT = 2.0  # for a node that is being called back after a restart
RETRY_MS = 1_000

Refusal = tuple[m.Status, str]


@dataclass(slots=True, eq=False)
class Direction:
    """One Direction Request under way, with those who repeat it meanwhile."""

    caller: Node
    target: tuple[str, bytes]
    waiting: list[MessageReceived]
    pair: tuple[bytes, bytes] = (b"", b"")


@dataclass(slots=True)
class Shared:
    """The shared key of a pair and how many directions under way use it."""

    id: bytes
    secret: bytes
    users: int = 0


@dataclass(slots=True, eq=False)
class Waiting:
    """Somebody waits for a node that is being called back."""

    done: Callable[[bool, float], None]
    over: bool = field(default=False)


class Directions:
    """Everything about Direction Requests of our own nodes."""

    def __init__(
        self,
        common: Common,
        registry: Registry,
        relays: Relays,
        recall: Recall,
        interdomain: Interdomain,
        abroad: Abroad,
    ) -> None:
        self._common, self._registry, self._relays = common, registry, relays
        self._recall, self._interdomain, self._abroad = recall, interdomain, abroad
        self._under_way: dict[tuple[str, str, bytes], Direction] = {}
        self._shared: dict[frozenset[bytes], Shared] = {}
        self._buckets = Buckets(common.settings.directions_per_node)
        self._awaited: dict[str, list[Waiting]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def request(
        self, caller: Node, event: MessageReceived, request: m.DirectionRequest, now: float
    ) -> None:
        """Direction Request: begin, or join the same question that is under way."""
        place = (caller.name, request.name, request.address)
        known = self._under_way.get(place)
        if known is not None:
            known.waiting.append(event)
            return
        direction = Direction(caller, (request.name, request.address), [event])
        self._under_way[place] = direction
        if not self._buckets.take(caller.name, now):
            self._fail(direction, m.Status.TOO_MANY, "too many requests", now, RETRY_MS)
            return
        if not caller.record or not self._registry.durable(caller):
            self._fail(direction, m.Status.TRY_AGAIN, "register first", now, RETRY_MS)
            return
        self._common.counters["direction_requests"] += 1
        called = self._local(request)
        if called is caller:
            self._fail(direction, m.Status.BAD_REQUEST, "that is the asking node itself", now)
        elif called is not None:
            self.when_alive(called, lambda up, at: self._called_is(direction, called, up, at), now)
        else:
            self._elsewhere(direction, request, now)

    def online(self, node: Node, now: float) -> None:
        """A node has a session again."""
        for waiting in self._awaited.pop(node.name, ()):
            if not waiting.over:
                waiting.over = True
                waiting.done(True, now)

    def when_alive(self, node: Node, done: Callable[[bool, float], None], now: float) -> None:
        """Call ``done(True)`` when the node can be directed, calling it back if need be."""
        if self._registry.alive(node, now):
            done(True, now)
            return
        if node.name not in self._awaited and not self._recall.one(node, now):
            done(False, now)
            return
        waiting = Waiting(done)
        self._awaited.setdefault(node.name, []).append(waiting)

        def late(at: float) -> None:
            if not waiting.over:
                waiting.over = True
                self._awaited.get(node.name, [waiting]).remove(waiting)
                if not self._awaited.get(node.name):
                    self._awaited.pop(node.name, None)
                done(False, at)

        self._common.at(now + RECALL_WAIT, late)

    def direct(self, node: Node, route: m.RouteInfo, done: Answer, now: float) -> None:
        """Route Direction to one of our nodes as the called end; ``done`` hears its response."""
        assert node.handle is not None
        request = m.RouteDirection(0, node.name, route)
        self._common.counters["route_directions"] += 1

        def over(reply: m.Message | None, at: float) -> None:
            if isinstance(reply, m.RouteDirectionResponse):
                done(reply.status, reply.text, at)
            elif isinstance(reply, m.Done):
                done(reply.status or int(m.Status.INTERNAL), reply.text, at)
            else:
                done(int(m.Status.PEER_OFFLINE), f"{node.name} does not answer", at)

        self._common.ask(node.handle, request, now, over, CALLED_TIMEOUT)

    # -------------------------------------------------------------- within the domain

    def _local(self, request: m.DirectionRequest) -> Node | None:
        if request.name:
            return self._registry.by_name(request.name)
        return self._registry.by_address(request.address)

    def _called_is(self, direction: Direction, called: Node, up: bool, now: float) -> None:
        if not up:
            self._fail(direction, m.Status.PEER_OFFLINE, f"{called.name} is not online", now)
            return
        caller = direction.caller
        chosen = self._relays.for_pair(caller, called, now)
        grants = self._grants(chosen, caller.key, called.key, now)
        serves = any(relay.until > now for relay in chosen)  # others are only worth a try
        decision = decide(_side(caller), _side(called), relay=serves)
        shared = self._share(direction, caller.key, called.key)
        to_called = self.route(
            caller, decision.caller_candidates, shared, grants, decision, decision.called_starts
        )
        to_caller = self.route(called, decision.called_candidates, shared, grants, decision, True)
        to_called = replace(to_called, home_relay=self._relays.best_at(caller, chosen))
        to_caller = replace(to_caller, home_relay=self._relays.best_at(called, chosen))
        self._say(direction, called.name, decision)

        def ready(status: int, text: str, at: float) -> None:
            if status == m.Status.OK:
                self._succeed(direction, to_caller, at)
            else:
                self._fail(direction, status_of(status), text, at)

        self.direct(called, to_called, ready, now)

    def route(
        self,
        node: Node,
        candidates: tuple[m.CandidateField, ...],
        shared: Shared,
        grants: tuple[m.RelayGrant, ...],
        decision: Decision,
        start: bool,
    ) -> m.RouteInfo:
        """What the other end is told of one of our nodes."""
        assert node.leaf is not None
        return m.RouteInfo(
            node.name,
            node.leaf.der,
            node.record,
            self._common.sign_certificate,
            candidates,
            node.nat,
            shared.id,
            shared.secret,
            grants,
            start,
            decision.relay_alone,
            node.home_relay,
        )

    def _grants(
        self, relays: list[Relay], one: bytes, two: bytes, now: float
    ) -> tuple[m.RelayGrant, ...]:
        return tuple(self._relays.grant(relay, one, two, now) for relay in relays)

    # -------------------------------------------------------------- to another domain

    def _elsewhere(self, direction: Direction, request: m.DirectionRequest, now: float) -> None:
        domain = self._common.settings.domain
        name = request.name
        if not name:
            found = self._interdomain.domain_of_address(request.address)
            if len(request.address) != 16 or found is None:
                self._fail(direction, m.Status.NO_SUCH_NAME, "nobody has that address", now)
                return
            name = f"any.{found}"
        if not is_name(name):
            self._fail(direction, m.Status.BAD_REQUEST, "not a name", now)
            return
        if in_domain(name, domain) and not self._delegated(name):
            self._fail(direction, m.Status.NO_SUCH_NAME, f"no node {name}", now)
            return

        def reached(handle: int | None, why: str, at: float) -> None:
            if handle is None:
                unknown = why == "no such domain"
                status = m.Status.NO_SUCH_NAME if unknown else m.Status.COORDINATOR_UNREACHABLE
                self._fail(direction, status, f"{name.partition('.')[2]}: {why}", at)
            else:
                self._abroad_asked(direction, handle, at)

        self._interdomain.reach(name, reached, now)

    def _delegated(self, name: str) -> bool:
        """Whether a name in our domain may belong to another coordinator below us."""
        own = self._common.settings.domain
        return name.count(".") > own.count(".") + 1

    def _abroad_asked(self, direction: Direction, handle: int, now: float) -> None:
        def informed(found: m.InformationResponse | Refusal, at: float) -> None:
            if isinstance(found, tuple):
                self._fail(direction, found[0], found[1], at)
            else:
                self._informed(direction, handle, found, at)

        self._abroad.ask(handle, direction.caller, direction.target, informed, now)

    def _informed(
        self, direction: Direction, handle: int, info: m.InformationResponse, now: float
    ) -> None:
        caller, theirs = direction.caller, self._abroad.key_of(info)
        own = self._grants(self._relays.for_one(caller, now), caller.key, theirs, now)
        grants = (*info.grants[:2], *own)
        decision = decide(
            _side(caller), Side(self._abroad.sift(info.candidates), info.nat), relay=bool(grants)
        )
        shared = self._share(direction, caller.key, theirs)
        to_called = self.route(
            caller, decision.caller_candidates, shared, grants, decision, decision.called_starts
        )
        to_caller = _route_abroad(info, decision, shared, grants)
        self._say(direction, info.name, decision)

        def over(reply: m.Message | None, at: float) -> None:
            if isinstance(reply, m.RouteDirectionResponse) and reply.status == m.Status.OK:
                route = replace(to_caller, psk_id=shared.id, psk=shared.secret)
                self._succeed(direction, route, at)
            elif isinstance(reply, m.RouteDirectionResponse):
                self._fail(direction, status_of(reply.status), reply.text, at)
            else:
                text = "the other domain's coordinator stopped answering"
                self._fail(direction, m.Status.COORDINATOR_UNREACHABLE, text, at)

        request = m.RouteDirection(0, info.name, to_called)
        self._common.ask(handle, request, now, over, CALLED_TIMEOUT + 0.5)

    # -------------------------------------------------------------- the end

    def _share(self, direction: Direction, one: bytes, two: bytes) -> Shared:
        direction.pair = (one, two)
        shared = self._shared.get(frozenset(direction.pair))
        if shared is None:
            random = self._common.random
            shared = self._shared[frozenset(direction.pair)] = Shared(random(16), random(32))
        shared.users += 1
        return shared

    def hold(self, one: bytes, two: bytes, domain: str, theirs: tuple[bytes, bytes]) -> Shared:
        """Another coordinator directs this pair. If we are directing it too, the shared key of the
        coordinator whose domain comes first counts. The caller lets go with :meth:`let_go`."""
        pair = frozenset((one, two))
        shared = self._shared.setdefault(pair, Shared(*theirs))
        if shared.users:
            self._common.counters["crossed_directions"] += 1
            if domain < self._common.settings.domain:
                shared.id, shared.secret = theirs
        shared.users += 1
        return shared

    def let_go(self, one: bytes, two: bytes) -> None:
        """A direction of this pair is over."""
        pair = frozenset((one, two))
        shared = self._shared.get(pair)
        if shared is not None:
            shared.users -= 1
            if shared.users <= 0:
                del self._shared[pair]

    def _over(self, direction: Direction) -> list[MessageReceived]:
        self._under_way.pop((direction.caller.name, *direction.target), None)
        self.let_go(*direction.pair)
        return direction.waiting

    def _succeed(self, direction: Direction, route: m.RouteInfo, now: float) -> None:
        self._common.counters["directions_given"] += 1
        for event in self._over(direction):
            self._reply(event, m.Status.OK, 0, "", route, now)

    def _fail(
        self,
        direction: Direction,
        status: m.Status,
        text: str,
        now: float,
        retry_after_ms: int = 0,
    ) -> None:
        self._common.counters[f"direction_{status.name.lower()}"] += 1
        for event in self._over(direction):
            self._reply(event, status, retry_after_ms, text[:400], None, now)

    def _reply(
        self,
        event: MessageReceived,
        status: m.Status,
        retry_after_ms: int,
        text: str,
        route: m.RouteInfo | None,
        now: float,
    ) -> None:
        number = getattr(event.message, "id", 0)
        reply = m.RouteDirectionToCaller(number, int(status), retry_after_ms, text, route)
        self._common.engine.reply(event, reply, now)

    def _say(self, direction: Direction, called: str, decision: Decision) -> None:
        self._common.tell(
            "debug",
            "direction decided",
            caller=direction.caller.name,
            called=called,
            way=decision.way.name.lower(),
            why=decision.why,
        )


def _route_abroad(
    info: m.InformationResponse,
    decision: Decision,
    shared: Shared,
    grants: tuple[m.RelayGrant, ...],
) -> m.RouteInfo:
    return m.RouteInfo(
        info.name,
        info.certificate,
        info.record,
        info.dc_sign,
        decision.called_candidates,
        info.nat,
        shared.id,
        shared.secret,
        grants,
        True,
        decision.relay_alone,
        info.home_relay,
    )


def _side(node: Node) -> Side:
    return Side(node.candidates, node.nat)
