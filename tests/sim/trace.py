"""Everything that happened in a world, in order, and its SHA-256.

Lines are built from values with a defined order only (no sets, no ids of objects), so that the same
seed gives the same digest in another process with another hash seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One happening: virtual time, where, what, and its value."""

    at: float
    where: str
    what: str
    value: Any


class Trace:
    """Collects lines; ``digest`` covers all of them. With ``keep=False`` nothing is collected."""

    def __init__(self, *, keep: bool = True) -> None:
        self.lines: list[Line] = []
        self.count = 0
        self.keep = keep
        self._hash = hashlib.sha256()

    def add(self, at: float, where: str, what: str, value: Any) -> None:
        """Record one happening; bytes and dataclasses are written by ``repr``."""
        if not self.keep:
            return
        self.count += 1
        self._hash.update(f"{at!r} {where} {what} {value!r}\n".encode())
        self.lines.append(Line(at, where, what, value))

    def digest(self) -> str:
        """SHA-256 of all lines so far, in hex."""
        assert self.keep, "nothing was collected"
        return self._hash.hexdigest()

    def find(self, what: str, where: str | None = None, kind: type | None = None) -> list[Line]:
        """Lines of one sort, of one place, whose value is of one type."""
        return [
            line
            for line in self.lines
            if line.what == what
            and (where is None or line.where == where)
            and (kind is None or isinstance(line.value, kind))
        ]
