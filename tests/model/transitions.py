"""What each step does to the arena. A step that does not apply does nothing and says so."""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.inputs import Stopping
from tests.model.arena import COORDINATOR, NAMES, PEERS, RELAYS, Arena, Member, Server
from tests.model.steps import Step
from tests.sim.link import Shape
from tests.sim.story import NODE_LINK

STOP = 0.2  # seconds that a daemon takes to end after `down`


class Transitions:
    """Applies steps. Each method returns whether it did anything."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._run = arena.stage.run
        self._table: dict[str, Callable[[Step, Member], bool]] = {
            "move": self._move,
            "attach": self._attach,
            "detach": self._detach,
            "both": self._both,
            "back": self._back,
            "sleep": self._sleep,
            "sleep move": self._sleep_move,
            "rebind": self._rebind,
            "silent": self._silent,
            "heal": self._heal,
            "eat": self._eat,
            "rough": self._rough,
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
        if step.what.startswith("relay "):
            return self._server(arena.relays[int(step.value) - 1], step.what[6:])
        if step.what.startswith("dc "):
            return self._server(arena.dc, step.what[3:])
        return self._table[step.what](step, arena.members[step.node])

    # -------------------------------------------------------------- links

    def _move(self, step: Step, member: Member) -> bool:
        for name in list(member.wires):
            self._arena.leave(member, name)
        self._run(step.value)
        self._arena.join(member, "eth0", step.place)
        return True

    def _attach(self, step: Step, member: Member) -> bool:
        free = next((name for name in NAMES if name not in member.wires), None)
        if free is None:
            return False
        self._arena.join(member, free, step.place, int(step.value))
        return True

    def _detach(self, step: Step, member: Member) -> bool:
        if len(member.wires) < 2:
            return False
        self._arena.leave(member, list(member.wires)[int(step.value)])
        return True

    def _both(self, step: Step, member: Member) -> bool:
        for each in self._arena.members:
            for name in list(each.wires):
                self._arena.leave(each, name)
        for each in (member, *(m for m in self._arena.members if m is not member)):
            self._arena.join(each, "eth0", step.place if each is member else "port restricted")
            self._run(step.value if each is member else 0.0)
        return True

    def _back(self, step: Step, member: Member) -> bool:
        if not member.past:
            return False
        again = member.past[-1]
        for name in list(member.wires):
            self._arena.leave(member, name)
        self._run(step.value)
        self._arena.join(member, "eth0", "", again=again)
        return True

    def _silent(self, step: Step, member: Member) -> bool:
        wire = next(iter(member.wires.values()), None)
        if wire is None or wire.silent:
            return False
        wire.silent = True
        return True

    def _heal(self, step: Step, member: Member) -> bool:
        ill = [wire for wire in member.wires.values() if wire.silent or wire.eats]
        for wire in ill:
            wire.silent = False
            wire.eats.clear()
        return bool(ill)

    def _eat(self, step: Step, member: Member) -> bool:
        wire = next(iter(member.wires.values()), None)
        what = (PEERS, RELAYS, COORDINATOR)[int(step.value)]
        if wire is None or what in wire.eats:
            return False
        wire.eats.add(what)
        return True

    def _rough(self, step: Step, member: Member) -> bool:
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
        return True

    def _smooth(self, step: Step, member: Member) -> bool:
        rough = any(wire.shape != NODE_LINK for wire in member.wires.values())
        if rough:
            self._arena.shape(member, NODE_LINK)
        return rough

    def _mtu(self, step: Step, member: Member) -> bool:
        self._arena.shape(member, Shape(delay=NODE_LINK.delay, mtu=int(step.value)))
        return True

    def _rebind(self, step: Step, member: Member) -> bool:
        wire = next(iter(member.wires.values()), None)
        gateway = wire.network.gateway if wire is not None else None
        if gateway is None:
            return False
        gateway.rebind(new_address=bool(step.value))
        return True

    # -------------------------------------------------------------- nodes

    def _sleep(self, step: Step, member: Member) -> bool:
        host = member.node.host
        host.suspend()
        self._run(step.value)
        host.resume()
        return True

    def _sleep_move(self, step: Step, member: Member) -> bool:
        host = member.node.host
        host.suspend()
        for name in list(member.wires):
            self._arena.leave(member, name)
        self._run(step.value)
        host.resume()
        self._run(0.3)  # the link comes up after the machine
        self._arena.join(member, "eth0", step.place)
        return True

    def _wall(self, step: Step, member: Member) -> bool:
        self._arena.wall(member, step.value)
        return True

    def _crash(self, step: Step, member: Member) -> bool:
        member.node.crash()
        member.renewed = len(member.node.renewals)
        self._run(step.value)
        member.node.start()
        return True

    def _down_up(self, step: Step, member: Member) -> bool:
        member.node.post(Stopping())
        self._run(STOP)
        return self._crash(step, member)

    def _idle(self, step: Step, member: Member) -> bool:
        self._run(step.value)
        return True

    def _traffic(self, step: Step, member: Member) -> bool:
        one, two = self._arena.members
        stage, count = self._arena.stage, int(step.value)
        if step.who in ("both", "one"):
            stage.stream(one.node, two.node, count)
        if step.who in ("both", "other"):
            stage.stream(two.node, one.node, count)
        return True

    # -------------------------------------------------------------- servers

    def _server(self, server: Server, what: str) -> bool:
        arena = self._arena
        match what:
            case "restart" if server.up:
                server.process.restart()
                server.since = arena.clock.now
            case "dies" if server.up:
                arena.set_server(server, up=False, hole=server.hole)
            case "back" if not server.serves:
                arena.set_server(server, up=True)
            case "black hole" if not server.hole:
                arena.set_server(server, hole=True)
            case _:
                return False
        return True

    def _account(self, serves: bool) -> bool:
        changed = self._arena.account_serves != serves
        self._arena.account_serves = serves
        return changed
