"""What every part of the node shares: engine, timers, clock, memory and the list of wishes."""

from __future__ import annotations

import ipaddress
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ntmd.node.clock import PlatformClock
from ntmd.node.memory import Memory
from ntmd.node.settings import Home, NodeSettings
from ntmd.node.timers import Timers
from ntmd.proto.certs import Leaf, Trust, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Identity
from ntmd.proto.io import SendDatagram, Tell
from ntmd.proto.plane import InstallTunnel, Resend, SwitchPath
from ntmd.proto.session import SessionEngine

LETS_DATA_GO = (InstallTunnel, Resend, SwitchPath)


@dataclass
class Common:
    """Handed to every part when it is built. ``commands`` are the wishes since the last call."""

    settings: NodeSettings
    home: Home
    identity: Identity
    trust: Trust
    random: Callable[[int], bytes]
    engine: SessionEngine
    timers: Timers
    clock: PlatformClock
    memory: Memory
    born: float
    commands: list[Any] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    stopping: bool = False
    now: float = 0.0  # instant of the present input, boot-clock seconds
    may_leave: Callable[[SendDatagram, float], bool] = lambda _, __: True
    events: deque[Any] = field(default_factory=deque)  # of the engine, not looked at yet

    def emit(self, command: Any) -> None:
        """Wish for something. What was said before data may go on a way leaves before the data: a
        relay forwards nothing from a source that it was not told of."""
        if isinstance(command, LETS_DATA_GO):
            self.pull()
        self.commands.append(command)

    def pull(self) -> None:
        """Take what the engine wants sent, and its events."""
        for output in self.engine.take_outputs():
            if not isinstance(output, SendDatagram):
                self.events.append(output)
            elif self.may_leave(output, self.now):
                self.commands.append(output)

    def tell(self, level: str, what: str, **fields: Any) -> None:
        """Say something to the operator or the trace."""
        self.commands.append(Tell(level, what, fields))

    def number(self, size: int = 8) -> int:
        """A random unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.random(size), "big")

    def own_leaf(self) -> Leaf:
        """The node's own certificate, parsed."""
        return parse_leaf(self.identity.certificates[0])

    def virtual_network(self) -> ipaddress.IPv6Network:
        """The platform's /48, which never carries a tunnel (rule S9)."""
        return next(iter(self.trust.anchors.values())).network

    def domains(self) -> tuple[str, ...]:
        """The platform's domains that are known here, the own one first.

        Both the account server and the coordinator name them; either may know one later.
        """
        home = self.home
        return tuple(dict.fromkeys((home.domain, *home.domains, *self.memory.domains)))

    def refuse(self, error: ProtocolError) -> None:
        """A peer broke a rule somewhere outside the engine: count it."""
        self.counters[error.kind] += 1
        self.tell("debug", "refused", kind=error.kind, detail=error.detail)
