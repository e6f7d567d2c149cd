"""What each step does to the arena. A step that does not apply does nothing and says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ntmd.node.inputs import Stopping
from ntmd.proto.io import UserAsked
from ntmd.proto.types import Endpoint
from tests.model.arena import COORDINATOR, NAMES, PEERS, RELAYS, Arena, Member, Server
from tests.model.steps import Step
from tests.sim.link import Shape
from tests.sim.machine import Interface
from tests.sim.story import NODE_LINK

SILENT = ("both", "up", "down")
EATEN = (PEERS, RELAYS, COORDINATOR)
STEADY = 100  # packets of a traffic step in which the third node takes part, if there is one
REPLAYED = 30  # datagrams of a link at most, the oldest of the last ones, and some in between
ELSEWHERE = {4: Endpoint("198.18.99.99", 4242), 6: Endpoint("2001:db8:99::99", 4242)}
STALL = 0.5  # seconds
STOP = 0.2  # seconds that a daemon takes to end after `down`


class Transitions:
    """Applies steps."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._run = arena.stage.run
        self._table: dict[str, Callable[[Step, Member], None]] = {
            "move": self._move,
            "attach": self._attach,
            "detach": self._detach,
            "both": self._both,
            "back": self._back,
            "sleep": self._sleep,
            "sleep move": self._sleep_move,
            "rebind": self._rebind,
            "silent": self._silent,
            "stall": self._stall,
            "stand": self._stand,
            "prefer": self._prefer,
            "deprecate": self._deprecate,
            "family": self._family,
            "replay": self._replay,
            "heal": self._heal,
            "eat": self._eat,
            "rough": self._rough,
            "slow": self._slow,
            "smooth": self._smooth,
            "mtu": self._mtu,
            "wall": self._wall,
            "crash": self._crash,
            "down up": self._down_up,
            "idle": self._idle,
            "traffic": self._traffic,
            "as dies": lambda s, m: self._account(False),
            "as back": lambda s, m: self._account(True),
        }

    def apply(self, step: Step) -> bool:
        """Do it; False if it does not apply here and now."""
        arena = self._arena
        arena.account()
        if not self.applies(step):
            return False
        if step.what.startswith("relay "):
            self._server(arena.relays[int(step.value) - 1], step.what[6:])
        elif step.what.startswith("dc "):
            self._server(arena.dc, step.what[3:])
        else:
            self._table[step.what](step, arena.members[step.node])
        return True

    def applies(self, step: Step) -> bool:
        """Whether the step would change anything."""
        arena, member = self._arena, self._arena.members[step.node]
        wires = list(member.wires.values())
        match step.what.split():
            case ["attach"]:
                return len(wires) < len(NAMES)
            case ["detach"]:
                return len(wires) > 1
            case ["back"]:
                return bool(member.past)
            case ["rebind"]:
                return bool(wires) and wires[0].network.gateway is not None
            case ["silent"]:
                return bool(wires) and not wires[0].silent
            case ["stall"] | ["deprecate"] | ["replay"]:
                return bool(wires)
            case ["prefer"]:
                return bool(wires) and self._link(member).metric != int(step.value)
            case ["family"]:
                found = self._link(member).addresses if wires else {}
                return len(found) == 2 and int(step.value) in found
            case ["eat"]:
                return bool(wires) and EATEN[int(step.value)] not in wires[0].eats
            case ["heal"]:
                return any(wire.silent or wire.eats for wire in wires)
            case ["smooth"]:
                return any(wire.shape != NODE_LINK for wire in wires)
            case ["as", what]:
                return arena.account_serves == (what == "dies")
            case ["relay", *what]:
                return _changes(arena.relays[int(step.value) - 1], " ".join(what))
            case ["dc", *what]:
                return _changes(arena.dc, " ".join(what))
        return True

    # -------------------------------------------------------------- links

    def _move(self, step: Step, member: Member) -> None:
        for name in list(member.wires):
            self._arena.leave(member, name)
        self._run(step.value)
        self._join(step, member, "eth0", step.place)

    def _attach(self, step: Step, member: Member) -> None:
        free = next(name for name in NAMES if name not in member.wires)
        self._join(step, member, free, step.place, int(step.value))

    def _join(
        self,
        step: Step,
        member: Member,
        name: str,
        where: str = "",
        metric: int = 100,
        again: Any = None,
    ) -> None:
        """A link comes; who waits for the tunnel begins to count at its default route."""
        self._arena.join(member, name, where, metric, again, late=step.late)
        self._run(step.late if step.settle else 0.0)

    def _detach(self, step: Step, member: Member) -> None:
        self._arena.leave(member, list(member.wires)[int(step.value)])

    def _both(self, step: Step, member: Member) -> None:
        for each in self._arena.members:
            for name in list(each.wires):
                self._arena.leave(each, name)
        for each in (member, *(m for m in self._arena.members if m is not member)):
            place = step.place if each is member else "port restricted"
            self._arena.join(each, "eth0", place, late=step.late)
            self._run(step.value if each is member else 0.0)
        self._run(step.late if step.settle else 0.0)

    def _back(self, step: Step, member: Member) -> None:
        again = member.past[-1]
        for name in list(member.wires):
            self._arena.leave(member, name)
        self._run(step.value)
        self._join(step, member, "eth0", again=again)

    def _silent(self, step: Step, member: Member) -> None:
        next(iter(member.wires.values())).silent = SILENT[int(step.value)]

    def _link(self, member: Member) -> Interface:
        return member.node.host.interfaces[next(iter(member.wires))]

    def _stall(self, step: Step, member: Member) -> None:
        """What is sent in half a second arrives so much later, and nothing overtakes it."""
        links = [member.node.host.interfaces[name] for name in member.wires]
        for link in links:
            link.up.shape = link.down.shape = replace(link.up.shape, delay=step.value)
        self._run(STALL)
        for wire, link in zip(member.wires.values(), links, strict=True):
            link.up.shape = link.down.shape = wire.shape
            wire.usable_at = max(wire.usable_at, self._arena.clock.now + step.value)
        self._run(step.value if step.settle else 0.0)

    def _stand(self, step: Step, member: Member) -> None:
        member.node.stand_still(step.value)
        member.stands_until = max(member.stands_until, self._arena.clock.now + step.value)
        self._run(step.value if step.settle else 0.0)

    def _prefer(self, step: Step, member: Member) -> None:
        member.node.host.prefer(next(iter(member.wires)), int(step.value))
        self._arena.sort(member)

    def _deprecate(self, step: Step, member: Member) -> None:
        member.node.host.deprecate(next(iter(member.wires)), bool(step.value))

    def _family(self, step: Step, member: Member) -> None:
        wire = next(iter(member.wires.values()))
        member.node.host.drop_family(wire.name, int(step.value))
        left = tuple(self._link(member).addresses)
        wire.place = replace(wire.place, families=left)

    def _replay(self, step: Step, member: Member) -> None:
        """Someone on the own link, or elsewhere with no NAT between, sends again what it saw."""
        host = member.node.host
        for wire in member.wires.values():
            for packet in [*wire.came][:: max(1, -(-len(wire.came) // REPLAYED))]:
                elsewhere = ELSEWHERE[packet.source.family]
                source = elsewhere if step.value else packet.source
                host.deliver(packet._replace(source=source))

    def _heal(self, step: Step, member: Member) -> None:
        for wire in member.wires.values():
            wire.silent = ""
            wire.eats.clear()

    def _eat(self, step: Step, member: Member) -> None:
        next(iter(member.wires.values())).eats.add(EATEN[int(step.value)])

    def _rough(self, step: Step, member: Member) -> None:
        chance = step.value
        self._arena.shape(
            member,
            Shape(
                delay=0.02,
                jitter=0.01,
                loss=chance,
                duplicate=chance / 2,
                reorder=chance / 2,
            ),
        )

    def _slow(self, step: Step, member: Member) -> None:
        self._arena.shape(member, Shape(delay=step.value, jitter=step.value / 4))

    def _smooth(self, step: Step, member: Member) -> None:
        self._arena.shape(member, NODE_LINK)

    def _mtu(self, step: Step, member: Member) -> None:
        self._arena.shape(member, Shape(delay=NODE_LINK.delay, mtu=int(step.value)))

    def _rebind(self, step: Step, member: Member) -> None:
        gateway = next(iter(member.wires.values())).network.gateway
        assert gateway is not None
        gateway.rebind(new_address=bool(step.value))

    # -------------------------------------------------------------- nodes

    def _sleep(self, step: Step, member: Member) -> None:
        host = member.node.host
        host.suspend()
        self._run(step.value)
        host.resume()

    def _sleep_move(self, step: Step, member: Member) -> None:
        host = member.node.host
        host.suspend()
        for name in list(member.wires):
            self._arena.leave(member, name)
        self._run(step.value)
        host.resume()
        self._run(0.3)  # the link comes up after the machine
        self._join(step, member, "eth0", step.place)

    def _wall(self, step: Step, member: Member) -> None:
        self._arena.wall(member, step.value)

    def _crash(self, step: Step, member: Member) -> None:
        member.node.crash()
        member.renewed = len(member.node.renewals)
        self._run(step.value)
        member.node.start()

    def _down_up(self, step: Step, member: Member) -> None:
        member.node.post(Stopping())
        self._run(STOP)
        self._crash(step, member)

    def _idle(self, step: Step, member: Member) -> None:
        self._run(step.value)

    def _traffic(self, step: Step, member: Member) -> None:
        one, two = self._arena.members
        stage, count = self._arena.stage, int(step.value)
        if step.who in ("both", "one"):
            stage.stream(one.node, two.node, count)
        if step.who in ("both", "other"):
            stage.stream(two.node, one.node, count)
        if self._arena.third is not None and count == STEADY:
            stage.stream(member.node, self._arena.third, count)
            stage.stream(self._arena.third, member.node, count)

    # -------------------------------------------------------------- servers

    def _server(self, server: Server, what: str) -> None:
        arena = self._arena
        match what:
            case "restart":
                server.process.restart()
                server.since = arena.clock.now
            case "dies":
                arena.set_server(server, up=False, hole=server.hole)
            case "back":
                arena.set_server(server, up=True)
            case "black hole":
                arena.set_server(server, hole=True)
            case "drains" | "stays":
                server.process.post(UserAsked(1, "drain", {"on": what == "drains"}))

    def _account(self, serves: bool) -> None:
        self._arena.account_serves = serves


def _changes(server: Server, what: str) -> bool:
    match what:
        case "back":
            return not server.serves
        case "black hole":
            return not server.hole
    return server.up
