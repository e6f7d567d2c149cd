"""Names asked by programs: held until the way is known, answered honestly in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ntmd.node.commands import NameAnswered
from ntmd.node.common import Common
from ntmd.node.inputs import NameAsked
from ntmd.node.tunnel import Asleep, Open
from ntmd.node.tunnels import Tunnels
from ntmd.proto.messages import Status
from ntmd.proto.timing import NAME_ANSWER_WITHIN

WAITING_NAMES = 512
REFUSALS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there was no way to a name when it was last asked for."""

    status: Status
    text: str
    at: float


@dataclass(slots=True)
class Wait:
    """One that waits for a name: ``known(address)``, or ``unknown(status, text)``."""

    known: Callable[[bytes, float], None]
    unknown: Callable[[Status, str, float], None]


class Names:
    """Whoever waits for a name: held DNS questions, ``ntmd resolve``, ``ntmd ping``."""

    def __init__(
        self, common: Common, tunnels: Tunnels, want: Callable[[str, float], None]
    ) -> None:
        self._common, self._tunnels, self._want = common, tunnels, want
        self._waiting: dict[str, list[Wait]] = {}
        self.refusals: dict[str, Refusal] = {}

    def asked(self, event: NameAsked, now: float) -> None:
        """A program asked the stub resolver."""
        name = event.name.rstrip(".").lower()
        token = event.token

        def answer(address: bytes, at: float) -> None:
            self._common.timers.cancel(("name", token))
            self._common.emit(NameAnswered(token, address))

        def refuse(status: Status, _: str, at: float) -> None:
            self._common.timers.cancel(("name", token))
            exists = status is not Status.NO_SUCH_NAME
            self._common.emit(NameAnswered(token, None, exists, 5))

        wait = Wait(answer, refuse)

        def late(at: float) -> None:
            waiting = self._waiting.get(name, [])
            if wait in waiting:
                waiting.remove(wait)
                refuse(Status.TRY_AGAIN, "", at)

        self._common.timers.set(("name", token), now + NAME_ANSWER_WITHIN, late)
        self.wait(name, wait, now)

    def wait(self, name: str, wait: Wait, now: float) -> None:
        """Tell ``wait`` once the way to ``name`` is known, or that there is none."""
        address = self.address_of(name)
        if address is not None:
            wait.known(address, now)
            return
        if not self.ours(name):
            wait.unknown(Status.NO_SUCH_NAME, f"{name} is in none of the platform's domains", now)
            return
        if sum(len(w) for w in self._waiting.values()) >= WAITING_NAMES:
            wait.unknown(Status.TOO_MANY, "too many questions wait already", now)
            return
        self._waiting.setdefault(name, []).append(wait)
        self._want(name, now)

    def address_of(self, name: str) -> bytes | None:
        """The address of a name whose way is known: the own one, or one with an association."""
        if name == self._common.identity.name:
            return self._common.memory.address or None
        tunnel = self._tunnels.by_name(name)
        if tunnel is not None and isinstance(tunnel.state, Open | Asleep) and tunnel.address:
            return tunnel.address
        return None

    def ours(self, name: str) -> bool:
        """Whether the name lies under one of the platform's domains."""
        domains = self._common.domains()
        return any(name.endswith("." + domain) for domain in domains)

    def known(self, name: str, address: bytes, now: float) -> None:
        """The way to ``name`` is known."""
        self.refusals.pop(name, None)
        for wait in self._waiting.pop(name, []):
            wait.known(address, now)

    def unknown(self, name: str, status: Status, text: str, now: float) -> None:
        """There is no way to ``name``."""
        self.refusals.pop(name, None)
        self.refusals[name] = Refusal(status, text, now)
        if len(self.refusals) > REFUSALS_KEPT:
            del self.refusals[next(iter(self.refusals))]
        for wait in self._waiting.pop(name, []):
            wait.unknown(status, text, now)

    def waiting(self, name: str) -> bool:
        """Whether anybody waits for ``name``."""
        return bool(self._waiting.get(name))
