"""A process on a machine of the world: runs one core as the production driver does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ntmd.proto.io import Core, Store, Tell
from tests.sim.clock import Timer
from tests.sim.machine import Host

SPINS = 2_000  # a core that wants to be woken this often at one instant is in a loop


@dataclass(frozen=True, slots=True)
class Birth:
    """What a core is handed when it is built."""

    now: float
    wall_ms: int
    random: Callable[[int], bytes]
    stored: dict[str, bytes]


MakeCore = Callable[[Birth], Core]


class Process:
    """One core, its inputs in order, its timer, its durable store; may crash and start again."""

    def __init__(self, host: Host, label: str, make: MakeCore) -> None:
        self.host = host
        self.label = label
        self.store: dict[str, bytes] = {}
        self.told: list[Tell] = []
        self.incarnation = 0
        self._make = make
        self._core: Core | None = None
        self._inputs: deque[Any] = deque()
        self._busy = False
        self._timer: Timer | None = None
        self._armed: float | None = None
        self._spins = (0.0, 0)
        self._stopped = False
        self.turns = 0  # inputs and deadlines: how often the process was woken
        host.sleepers.append(self)

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._core is not None

    @property
    def core(self) -> Any:
        """The production core; there only while the process runs."""
        assert self._core is not None, f"{self.label} does not run"
        return self._core

    def start(self) -> None:
        """Build the core from what is stored and let it work."""
        assert self._core is None, f"{self.label} runs already"
        self.incarnation += 1
        dice = self.host.world.clock.stream(f"{self.label} {self.incarnation}")
        birth = Birth(self.host.now, self.host.wall_ms(), dice.randbytes, dict(self.store))
        self._core = self._make(birth)
        self.trace("start", self.incarnation)
        self.opened()
        self._work()

    def crash(self, *, keep_store: bool = True) -> None:
        """kill -9: nothing is said to anybody; the store stays unless the disk is lost too."""
        self.trace("crash", keep_store)
        self._core = None
        self._inputs.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._armed = None
        if not keep_store:
            self.store.clear()
        self.closed()

    def restart(self, *, keep_store: bool = True) -> None:
        """Crash and start at once."""
        self.crash(keep_store=keep_store)
        self.start()

    def post(self, event: Any) -> None:
        """Hand one input to the core, after those already waiting."""
        if self._core is None:
            return
        self._inputs.append(event)
        if not self._busy and not self._stopped and not self.host.asleep:
            self._work()

    def stand_still(self, seconds: float) -> None:
        """SIGSTOP, then SIGCONT: what arrives waits in the kernel's buffers, timers run late."""
        self._stopped = True

        def go_on() -> None:
            self._stopped = False
            if self._core is not None:
                self._work()

        self.host.world.clock.after(seconds, go_on)

    def woke(self, asleep: float) -> None:
        """The machine slept: what became due meanwhile is done now."""
        if self._core is not None:
            self._work()

    # -------------------------------------------------------------- for the kinds of process

    def opened(self) -> None:
        """The core exists; open what it needs."""

    def closed(self) -> None:
        """The process is gone; the kernel closes its sockets."""

    def execute(self, command: Any) -> None:
        """Carry out one command."""
        raise TypeError(f"{self.label} has no command {type(command).__name__}")

    def trace(self, what: str, value: Any) -> None:
        """Write into the world's trace."""
        if self.host.world.trace.keep:
            self.host.world.trace.add(self.host.world.clock.now, self.label, what, value)

    # -------------------------------------------------------------- the driver's loop

    def _work(self) -> None:
        self._busy = True
        try:
            self._drain()
            while self._inputs and self._core is not None:
                event = self._inputs.popleft()
                self.trace("input", event)
                self.turns += 1
                self._core.handle(event, self.host.now)
                self._drain()
        finally:
            self._busy = False
        self._arm()

    def _drain(self) -> None:
        while self._core is not None and (commands := self._core.take_commands()):
            for command in commands:
                self.trace("command", command)
                kind = type(command)
                if kind is Tell:
                    self.told.append(command)
                elif kind is not Store:
                    self.execute(command)
                elif command.value is None:
                    self.store.pop(command.key, None)
                else:
                    self.store[command.key] = command.value

    def _arm(self) -> None:
        deadline = self._core.deadline() if self._core is not None else None
        if deadline == self._armed and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed, self._timer = deadline, None
        if deadline is not None:
            when = deadline - self.host.boot
            self._timer = self.host.world.clock.at(when, self._tick)

    def _tick(self) -> None:
        self._timer, deadline = None, self._armed
        self._armed = None
        if self._core is None or deadline is None or self._stopped or self.host.asleep:
            return
        self.turns += 1
        now = max(self.host.now, deadline)
        at, count = self._spins
        self._spins = (now, count + 1 if at == now else 0)
        assert count < SPINS, f"{self.label} spins at its deadline {deadline}"
        self._busy = True
        try:
            self._core.handle_deadline(now)
        finally:
            self._busy = False
        self._work()
