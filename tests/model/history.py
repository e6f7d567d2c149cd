"""One history: steps on an arena, pings meanwhile, and what must hold after each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ntmd.node.tunnel import word
from ntmd.node.tunnels import Tunnel
from tests.model import checks
from tests.model.arena import AWAY, HOME, Arena, Member
from tests.model.oracle import Oracle
from tests.model.steps import Step
from tests.model.transitions import Transitions
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, UP_WITHIN

FIRST_CONTACT = 8.0  # seconds
BOUND = {"relay": 20.0, "direct": 20.0, "directed": 30.0}  # seconds beyond the time the way exists
PROMPT = 4.0  # one ladder (3.25 s) and its round trips
PROMPTLY = ("move", "attach", "detach", "both", "back", "traffic", "wall")
"""What must be over within PROMPT where nothing else was ill: a node knows of these by itself. What
nobody tells it, and worlds with dead servers, get BOUND: an end may be in the middle of a pause."""
RETURNED = 45.0  # a server that was away is called again after 30 s at the latest, plus jitter
ROUGH = 2.0  # a link that loses a fifth of what it carries needs more rungs
QUIET = ("silent", "stall", "stand", "idle", "sleep")
UNAWARE = (*QUIET, "rebind", "eat", "heal", "relay", "dc", "mtu")
"""After these a node that sends nothing cannot know that anything happened: both ends send."""
REBOUND = 60.0
"""So long after a rebinding both ends send: a direct path may carry on at once by the peer's
evidence while servers still know the old mapping; whoever sends nothing then finds out by its
keep-alive."""
LAPSES = ("sleep", "sleep move", "idle")  # NAT mappings may end meanwhile
RELOCATES = (*LAPSES, "move", "both", "back", "family", "rebind", "crash", "down up")
CALM = 200.0  # seconds for what is under way to end: old sessions are kept for 180 s
QUICK, SLOW = 0.1, 0.5  # seconds between pings
LOOKS = 4  # steps from one look of the users at what their nodes tell to the next: it takes time


@dataclass(frozen=True, slots=True)
class Violation:
    """What went wrong, after which step."""

    kind: str
    text: str
    at: int


@dataclass
class History:
    """Runs steps until one breaks a rule. ``recovered``: (kind, seconds) of each settled step."""

    seed: int
    first: tuple[str, ...]
    arena: Arena = field(init=False)
    steps: list[Step] = field(default_factory=list)
    recovered: list[tuple[str, float]] = field(default_factory=list)
    violation: Violation | None = None
    applied: int = 0

    def __post_init__(self) -> None:
        self.arena = Arena(self.seed, self.first)
        self.oracle = Oracle(self.arena)
        self._transitions = Transitions(self.arena)
        self._numbers = 0
        self._read: dict[str, int] = {}
        self._answered: dict[str, int] = {}
        self._unaware = False
        self._returned = self._rebound = -1e9
        self._begun = self.arena.clock.now
        if not self._settle("both", FIRST_CONTACT):
            self._fail("first contact", "no answer")

    # -------------------------------------------------------------- running

    def run(self, steps: Iterable[Step]) -> Violation | None:
        """Take steps (a list, or a generator that looks at this history) to the end."""
        for step in steps:
            if self.violation is not None:
                return self.violation
            self.steps.append(step)
            self.step(step)
        if self.violation is None:
            self._end()
        return self.violation

    def step(self, step: Step) -> None:
        """One step and what follows from it."""
        sound = self._sound()
        self.oracle.disturb()
        self._ping(step.who)
        if not self._transitions.apply(step):
            return
        self.applied += 1
        self._note(step)
        unaware = self._unaware or self.arena.clock.now < self._rebound + REBOUND
        who = "both" if unaware else step.who
        way = self.oracle.way()
        if way and step.settle:
            prompt = sound and way == "relay" and step.what in PROMPTLY and self._sound()
            limit = PROMPT if prompt else self._limit(way)
            if self._settle(who, limit):
                self.recovered.append((step.what, self.arena.clock.now - self.oracle.disturbed))
            else:
                self._fail("unreached", f"{way}, {limit:g} s: {self._states()}")
        else:
            self._ping(who)
        if len(self.steps) % LOOKS == 0:
            self._ask()
        self.arena.stage.run(step.after)

    def _ask(self) -> None:
        """Both users look at what their nodes tell."""
        one, two = self.arena.members
        for member, other in ((one, two), (two, one)):
            if member.node.running and member.stands_until <= self.arena.clock.now:
                for wrong in checks.answers(member.node, other.node):
                    self._fail("words", wrong)

    def applies(self, step: Step) -> bool:
        """Whether the step would change anything here and now."""
        return self._transitions.applies(step)

    def _note(self, step: Step) -> None:
        oracle, now = self.oracle, self.arena.clock.now
        if step.what not in ("traffic", "wall", "as dies", "as back"):
            oracle.disturbed = now
        if step.what in RELOCATES and (step.what != "idle" or step.value > 30):
            concerned = self.arena.members if step.what in ("both", "idle") else ()
            for member in concerned or (self.arena.members[step.node],):
                if step.what != "idle":
                    oracle.moved(member)
        if step.what.endswith(("back", "restart")) and step.what != "back":
            self._returned = now
        self._unaware = self._unaware or step.what.startswith(UNAWARE)
        if step.what == "rebind":
            self._rebound = now

    def _sound(self) -> bool:
        """Whether all carries, and nothing is ill or was until just now."""
        arena, oracle = self.arena, self.oracle
        wires = [wire for member in arena.members for wire in member.wires.values()]
        return (
            all(server.serves for server in (arena.dc, *arena.relays))
            and all(w.place.udp and w.shape == NODE_LINK for w in wires)
            and not any(wire.silent or wire.eats for wire in wires)
            and not any(wire.usable_at > arena.clock.now for wire in wires)
            and not any(m.stands_until > arena.clock.now for m in arena.members)
            and not self._unaware
            and arena.clock.now > self._returned + RETURNED
            and (oracle.carried >= oracle.disturbed or arena.clock.now == oracle.disturbed)
        )

    def _limit(self, way: str) -> float:
        limit = BOUND[way]
        rough = any(w.shape != NODE_LINK for m in self.arena.members for w in m.wires.values())
        if rough:
            limit *= ROUGH
        return limit + max(0.0, self._returned + RETURNED - self.arena.clock.now)

    # -------------------------------------------------------------- pings

    def _senders(self, who: str) -> list[tuple[SimNode, SimNode]]:
        one, two = (member.node for member in self.arena.members)
        node = self.steps[-1].node if self.steps else 0
        concerned, other = (one, two) if node == 0 else (two, one)
        pairs = [(concerned, other)] if who in ("both", "one") else []
        return pairs + ([(other, concerned)] if who in ("both", "other") else [])

    def _ping(self, who: str) -> int:
        self._numbers += 1
        for sender, to in self._senders(who):
            if sender.running and sender.address:
                sender.inner.ping(to.address, self._numbers)
        return self._numbers

    def _settle(self, who: str, limit: float) -> bool:
        """Ping until each sender was answered; False if that takes longer than ``limit``."""
        clock, senders = self.arena.clock, [sender for sender, _ in self._senders(who)]
        first, end = self._numbers + 1, clock.now + limit
        begun = clock.now
        while clock.now < end:
            self._ping(who)
            pause = QUICK if clock.now - begun < 2.0 else SLOW
            if clock.run(pause, lambda: all(self._heard(s) >= first for s in senders)):
                self.oracle.answered(clock.now)
                if who == "both":
                    self._unaware = False
                return True
        return False

    def _heard(self, node: SimNode) -> int:
        """The greatest echo that came back so far."""
        notes, name = node.inner.notes, node.name
        read = self._read.get(name, 0)
        if len(notes) > read:
            self._read[name] = len(notes)
            for note in notes[read:]:
                if note.kind == "echo":
                    self._answered[name] = max(self._answered.get(name, 0), note.number)
        return self._answered.get(name, 0)

    # -------------------------------------------------------------- the end

    def _end(self) -> None:
        """All is mended: everything must be reached, and nothing may be left over."""
        arena = self.arena
        for member in arena.members:
            for wire in member.wires.values():
                wire.silent = ""
                wire.eats.clear()
            arena.shape(member, NODE_LINK)
        for server in (arena.dc, *arena.relays):
            if not server.serves:
                arena.set_server(server, up=True)
                self._returned = arena.clock.now
        wires = [wire for member in arena.members for wire in member.wires.values()]
        ready = [*(w.usable_at for w in wires), *(m.stands_until for m in arena.members)]
        arena.stage.run(max(0.0, *(at - arena.clock.now for at in ready)))
        self.oracle.disturbed = arena.clock.now
        if not self._settle("both", self._limit("relay")):
            self._fail("unreached", f"in the end: {self._states()}")
            return
        if arena.third is not None and not self._third(arena.third):
            self._fail("unreached", "the third node, in the end")
            return
        arena.stage.run(CALM)
        idle = checks.Idle(arena)
        arena.stage.run(checks.IDLE)
        peers = 1 if arena.third is None else 2
        for found in (checks.deliveries(arena), checks.leaks(arena, peers), idle.excess()):
            if found:
                self._fail("leak" if found[0].count(":") > 1 else "delivery", "; ".join(found))
        if self.violation is None:
            self._stranger()

    def _stranger(self) -> None:
        """After all this the coordinator still knows where everybody is: a node that nobody has
        met, maybe of another domain, reaches both, which have not sent anything for a while."""
        arena = self.arena
        domain = AWAY if self.seed % 2 else HOME
        if domain not in arena.stage.domains:
            arena.stage.domain(domain, tls=arena.rich)
            arena.stage.directory()
        stranger = arena.stage.node("d", domain=domain)
        if not arena.clock.run(UP_WITHIN, lambda: stranger.state == "up"):
            self._fail("unreached", "the coordinator, by a stranger")
        for member in arena.members:
            begun = arena.clock.now
            if not self._reaches(stranger, member.node, FIRST_CONTACT):
                self._fail("unreached", f"{member.node.name}, by a stranger")
            self.recovered.append(("stranger", arena.clock.now - begun))

    def _third(self, third: SimNode) -> bool:
        """Whether both members reach the third node and hear from it; it has no traffic that would
        make it call servers which have only just returned."""
        limit = self._limit("relay")
        return all(self._reaches(member.node, third, limit) for member in self.arena.members)

    def _reaches(self, node: SimNode, to: SimNode, limit: float) -> bool:
        begun = self.arena.clock.now
        node.resolve(to.name)
        for _ in range(int(limit)):
            self._numbers += 1
            node.inner.ping(to.address, self._numbers)
            if self.arena.clock.run(1.0, lambda: self._heard_from(node, to, begun)):
                return True
        return False

    def _heard_from(self, node: SimNode, to: SimNode, since: float) -> bool:
        return any(at >= since for at in node.inner.times("echo", to.address).values())

    def _fail(self, kind: str, text: str) -> None:
        if self.violation is None:
            self.violation = Violation(kind, text, len(self.steps))

    # -------------------------------------------------------------- for coverage and words

    def situation(self) -> tuple[str, str]:
        """State of the tunnel at both ends and sort of path, as the nodes see it."""
        one, two = self.arena.members
        return (
            "/".join(sorted({_state(one, two), _state(two, one)})),
            "/".join(sorted({_path(one, two), _path(two, one)})),
        )

    def _states(self) -> str:
        one, two = self.arena.members
        return f"{_state(one, two)} {_path(one, two)}, {_state(two, one)} {_path(two, one)}"


def _tunnel(member: Member, peer: Member) -> Tunnel | None:
    if not member.node.running:
        return None
    found: Tunnel | None = member.node.core.tunnels.by_name(peer.node.name)
    return found


def _state(member: Member, peer: Member) -> str:
    tunnel = _tunnel(member, peer)
    return word(tunnel.state) if tunnel is not None else "none"


def _path(member: Member, peer: Member) -> str:
    tunnel = _tunnel(member, peer)
    if tunnel is None:
        return "none"
    sending = tunnel.paths.sending
    if len(sending) > 1:
        return "two"
    return "none" if not sending else "relay" if sending[0].relayed else "direct"


Choose = Callable[[History], Iterable[Step]]
