"""How the NAT in front of a socket maps and filters (RFC 5780 over sealed probes).

Filtering first, while nothing was sent to the other endpoints yet: the coordinator is asked to
answer a probe from another of its endpoints. Then mapping: the same socket probes those endpoints
and compares the sources that they observed. A NAT that lost its mapping between the two would look
like one that maps by destination, so the first endpoint is asked once more with the others.

An earlier life of this node, or an earlier stay on this link, may have sent to them from the same
port: what they send gets in until the filter forgets. So if any got in, they are asked once more
when that is long ago.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ntmd.node.common import Common
from ntmd.node.places import FILTERINGS, MAPPINGS
from ntmd.node.probing import Prober, Proof
from ntmd.node.underlay import OwnSocket, Underlay
from ntmd.node.uplink import Uplink
from ntmd.proto.messages import NatView, Probe
from ntmd.proto.types import Endpoint, NatFiltering, NatMapping, Path

TEST_LADDER = (0.05, 0.1, 0.2, 0.4)
WAIT = sum(TEST_LADDER) + 0.3  # for answers
RUNS = 3  # of the tests in a row, at most: answers may be lost
TEST_AFTER = 0.2  # the tests wait for calls that are under way, seconds
FORGOTTEN = 310.0  # what was sent opens no filter for longer than this (RFC 6092 REC-14), seconds


@dataclass(slots=True)
class NatFacts:
    """What is known of the NAT in front of one socket."""

    mapping: NatMapping = NatMapping.UNKNOWN
    filtering: NatFiltering = NatFiltering.UNKNOWN
    observed: dict[Endpoint, Endpoint] = field(default_factory=dict)
    runs: int = 0  # of the tests, until one told something
    reached: list[Endpoint] = field(default_factory=list)
    sure: bool = False  # whoever got in did so long after anything was sent to them

    @property
    def surely_open(self) -> bool:
        """Whether it is certain that nothing filters."""
        return self.sure and self.filtering is NatFiltering.NONE

    def open_if_reached(self) -> None:
        """Where nothing maps and somebody got in, nothing filters."""
        if self.mapping is NatMapping.NONE and self.reached:
            self.filtering = NatFiltering.NONE


def classify_mapping(local: Endpoint, observed: dict[Endpoint, Endpoint]) -> NatMapping:
    """RFC 5780 section 4.3 from (destination, observed source) pairs of one socket."""
    if not observed:
        return NatMapping.UNKNOWN
    if all(source == local for source in observed.values()):
        return NatMapping.NONE
    if len(observed) < 2:
        return NatMapping.UNKNOWN
    if len(set(observed.values())) == 1:
        return NatMapping.ENDPOINT_INDEPENDENT
    by_host: dict[str, list[Endpoint]] = {}
    for destination, source in observed.items():
        by_host.setdefault(destination.host, []).append(source)
    if any(len(set(sources)) > 1 for sources in by_host.values()):
        return NatMapping.ADDRESS_AND_PORT_DEPENDENT
    if all(len(sources) > 1 for sources in by_host.values()):
        return NatMapping.ADDRESS_DEPENDENT
    return NatMapping.ADDRESS_AND_PORT_DEPENDENT


def classify_filtering(main: Endpoint, asked: list[Endpoint], came: list[Endpoint]) -> NatFiltering:
    """RFC 5780 section 4.4: which of the endpoints that were never sent to got through."""
    if any(e.host != main.host for e in came):
        return NatFiltering.ENDPOINT_INDEPENDENT
    other_host = any(e.host != main.host for e in asked)
    if any(e.host == main.host for e in came):
        return NatFiltering.ADDRESS_DEPENDENT if other_host else NatFiltering.UNKNOWN
    same_host = any(e.host == main.host for e in asked)
    return NatFiltering.ADDRESS_AND_PORT_DEPENDENT if same_host else NatFiltering.UNKNOWN


class NatTests:
    """Runs both tests for every open socket, once per socket and set of probe endpoints."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        uplink: Uplink,
        done: Callable[[float], None],
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._uplink, self._done = uplink, done
        self._started: dict[int, None] = {}
        self.facts: dict[int, NatFacts] = {}
        self.endpoints: tuple[Endpoint, ...] = ()

    def run(self, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """Test every open socket that was not tested yet."""
        if endpoints != self.endpoints:
            self.endpoints = endpoints
            self._started.clear()
        for number in (*self._started, *self.facts):
            if not self._underlay.is_open(number):
                self._started.pop(number, None)
                self.facts.pop(number, None)
        for socket in self._underlay.usable():
            if socket.number not in self._started:
                self._started[socket.number] = None
                self._common.timers.set(
                    ("nat", socket.number),
                    now + TEST_AFTER,
                    lambda at, s=socket: self._filtering(s, at),  # type: ignore[misc]
                )

    def _facts(self, number: int) -> NatFacts:
        """What is known of a socket's NAT: to begin with, what it was when this node was last in
        this network. The tests that follow correct it."""
        if number not in self.facts:
            place = self._underlay.places.at(number)
            self.facts[number] = NatFacts(MAPPINGS[place.mapping], FILTERINGS[place.filtering])
        return self.facts[number]

    def again(self, number: int, now: float) -> None:
        """UDP passes on this socket where it did not before: test it (again)."""
        self._started.pop(number, None)
        self.run(self.endpoints, now)

    def _main(self, socket: OwnSocket) -> Path | None:
        """The way to the coordinator on this very socket."""
        current = self._uplink.path
        if current is not None and current.socket == socket.number:
            return current
        ways = self._underlay.ways(self._uplink.endpoints)
        return next((w for w in ways if w.socket == socket.number), None)

    def _filtering(self, socket: OwnSocket, now: float) -> None:
        handle, main = self._uplink.handle, self._main(socket)
        if handle is None or main is None or not self._underlay.is_open(socket.number):
            return
        facts = self._facts(socket.number)
        again = facts.runs > 0  # only mapping: the other endpoints were sent to by now
        facts.runs += 1
        self._ask(socket, handle, main, now)
        if not again:
            self._ask_others(socket, handle, main, now)
        self._common.timers.set(
            ("nat", socket.number), now + WAIT, lambda at: self._mapping(socket, main, at)
        )

    def _others(self, socket: OwnSocket) -> dict[int, Endpoint]:
        """The coordinator's endpoints that are asked to answer, by their place in its list."""
        return {
            place: endpoint
            for place, endpoint in enumerate(self.endpoints, 1)
            if endpoint.family == socket.network.family and endpoint not in self._uplink.endpoints
        }

    def _ask(self, socket: OwnSocket, handle: int, main: Path, now: float) -> None:
        """The coordinator itself: what it sees, and whether answers come at all."""
        self.facts[socket.number].observed = {}
        self._prober.start(
            handle, main, now, self._mapped(socket), ladder=TEST_LADDER, purpose="nat"
        )

    def _ask_others(self, socket: OwnSocket, handle: int, main: Path, now: float) -> None:
        facts = self.facts[socket.number]
        facts.reached, facts.sure = [], False
        for place in self._others(socket):
            self._ask_from(handle, main, place, facts, now)

    def _ask_from(self, handle: int, main: Path, place: int, facts: NatFacts, now: float) -> None:
        self._prober.start(
            handle,
            main,
            now,
            lambda proof, _: facts.reached.append(proof.back.remote),
            make=lambda nonce: Probe(nonce, place),
            ladder=TEST_LADDER,
            purpose="nat",
        )

    def _mapping(self, socket: OwnSocket, main: Path, now: float) -> None:
        handle, facts = self._uplink.handle, self.facts.get(socket.number)
        if handle is None or facts is None:
            return
        asked = list(self._others(socket).values())
        facts.filtering = classify_filtering(main.remote, asked, facts.reached)
        for endpoint in self.endpoints:
            if endpoint.family == socket.network.family:  # the main one once more
                self._prober.start(
                    handle,
                    Path(socket.number, endpoint),
                    now,
                    self._mapped(socket),
                    ladder=TEST_LADDER,
                    purpose="nat",
                )
        self._common.timers.set(
            ("nat", socket.number), now + WAIT, lambda at: self._judge(socket, main, at)
        )

    def _mapped(self, socket: OwnSocket) -> Callable[[Proof, float], None]:
        def won(proof: Proof, now: float) -> None:
            facts = self.facts.get(socket.number)
            if facts is None or proof.answer.observed is None:
                return
            facts.observed[proof.path.remote] = proof.answer.observed
            current = self._uplink.path
            elsewhere = current is not None and current.socket == socket.number
            if proof.path == current or (
                not elsewhere and proof.path.remote in self._uplink.endpoints
            ):
                self._uplink.saw(socket.number, proof.answer.observed, now)

        return won

    def _judge(self, socket: OwnSocket, main: Path, now: float) -> None:
        facts = self.facts.get(socket.number)
        if facts is None or socket.local is None:
            return
        local = Endpoint(socket.network.address, socket.local.port)
        found = classify_mapping(local, facts.observed)
        asked = any(e.family == socket.network.family for e in self.endpoints)
        if found is NatMapping.UNKNOWN and asked and facts.runs < RUNS:
            self._filtering(socket, now)
            return
        facts.runs, facts.mapping = 0, found
        facts.open_if_reached()
        self._found(socket, facts, now)
        if facts.reached:
            self._ask_again_later(socket, main, now)

    def _found(self, socket: OwnSocket, facts: NatFacts, now: float) -> None:
        mapping, filtering = MAPPINGS.index(facts.mapping), FILTERINGS.index(facts.filtering)
        self._underlay.places.learn(socket.number, mapping=mapping, filtering=filtering)
        self._done(now)

    # -------------------------------------------------------------- what got in, once more

    def _ask_again_later(self, socket: OwnSocket, main: Path, now: float) -> None:
        later = now + FORGOTTEN * (1 + self._common.number(2) / 0x4_0000)  # nodes start together
        self._common.timers.set(
            ("nat", socket.number), later, lambda at: self._ask_again(socket, main, at)
        )

    def _ask_again(self, socket: OwnSocket, main: Path, now: float) -> None:
        handle, known = self._uplink.handle, socket.number in self.facts
        if handle is None or not known or not self._underlay.is_open(socket.number):
            return
        if not self._uplink.up:
            self._ask_again_later(socket, main, now)
            return
        self._ask(socket, handle, main, now)
        self._ask_others(socket, handle, main, now)
        self._common.timers.set(
            ("nat", socket.number), now + WAIT, lambda at: self._answered_again(socket, main, at)
        )

    def _answered_again(self, socket: OwnSocket, main: Path, now: float) -> None:
        facts = self.facts.get(socket.number)
        if facts is None:
            return
        if not facts.observed:
            self._ask_again_later(socket, main, now)
            return
        before, facts.sure = facts.filtering, True
        asked = list(self._others(socket).values())
        facts.filtering = classify_filtering(main.remote, asked, facts.reached)
        facts.open_if_reached()
        if facts.filtering is not before:
            self._found(socket, facts, now)

    def view(self) -> NatView:
        """What the coordinator is told: the NAT of the best socket."""
        for socket in self._underlay.usable():
            facts = self._facts(socket.number)
            if facts.mapping is not NatMapping.UNKNOWN:
                return NatView(
                    list(NatMapping).index(facts.mapping), list(NatFiltering).index(facts.filtering)
                )
        return NatView()
