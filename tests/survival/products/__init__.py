"""What is compared. Each product is set up as its own users would for a laptop that moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tests.survival.ground import Ground, Place


@dataclass(frozen=True)
class Version:
    """What ran: the version that the product tells, and what else decides its behaviour."""

    name: str
    version: str
    setup: str


class Product(Protocol):
    """One product on one ground."""

    device: str  # the tunnel's interface at both ends

    def version(self) -> Version:
        """What runs."""

    def start(self, ground: Ground) -> None:
        """Start server and both ends; returns once both ends reach each other the final way."""

    def address(self, place: Place) -> str:
        """Name or address by which the other end is called."""

    def processes(self, place: Place) -> list[int]:
        """All processes of a node."""

    def restart(self, place: Place) -> None:
        """kill -9 of a node's processes, and what its service manager would start."""

    def kill_coordinators(self) -> None:
        """kill -9 of everything that is not a relay."""

    def notes(self) -> dict[str, object]:
        """What the product itself says of the move, for the record."""


@dataclass
class Unfit(Exception):
    """The scenario has no meaning for the product."""

    why: str = field(default="")
