"""Inputs and commands that all four cores share, and the contract of a core.

A core takes one input and the time (seconds as float, ``CLOCK_BOOTTIME``) and returns values. It
never blocks, never raises because of what a peer sent, and with the same inputs and the same
random bytes gives the same outputs. See ``docs/architecture.md``, The contract of a core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ntmd.proto.types import Endpoint, Path


class Core(Protocol):
    """What the driver, and the simulator, may do with a core."""

    def handle(self, event: Any, now: float) -> None:
        """Take one thing that happened."""

    def handle_deadline(self, now: float) -> None:
        """The instant returned by :meth:`deadline` has passed."""

    def take_commands(self) -> list[Any]:
        """All wishes since the last call, in order."""

    def deadline(self) -> float | None:
        """When to call :meth:`handle_deadline`; in the past while commands wait; None: never."""


def earliest(one: float | None, other: float | None) -> float | None:
    """The sooner of two instants at which something waits; None: nothing does."""
    if one is None:
        return other
    return one if other is None or one < other else other


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """Input: a datagram of any kind but data came in (for servers: of any kind)."""

    data: bytes
    socket: int
    source: Endpoint


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Command: send ``data`` as it stands (the index is already written) on ``path``."""

    data: bytes
    path: Path


@dataclass(frozen=True, slots=True)
class SendFailed:
    """Input: the kernel, or ICMP, refused a datagram on ``path`` with ``errno`` (a hint, rule N5).
    What ICMP says of a relay is without the leg."""

    path: Path
    errno: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Store:
    """Command: keep ``value`` under ``key`` durably; order is kept, the last value wins.

    ``value`` is bytes (None deletes). The shell writes it by write-fsync-rename (node) or in the
    database (servers); what was stored is handed to the core when it is built.
    """

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Command: something worth telling the operator or a trace; never needed for correctness.

    ``level`` is "debug", "info" or "warning"; ``what`` a constant, ``fields`` its values.
    """

    level: str
    what: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UserAsked:
    """Input: a request from the control or admin socket; answered by :class:`UserAnswered`."""

    token: int
    what: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UserAnswered:
    """Command: the answer, or one of several (``last`` False), to a :class:`UserAsked`.

    On failure ``error`` says what happened, what it means and what to do, and ``exit_code`` is
    the exit code of ``docs/operations.md``.
    """

    token: int
    result: Any
    last: bool = True
    error: str | None = None
    exit_code: int = 0
