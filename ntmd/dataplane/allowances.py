"""Bytes that may still go to sources that are not proven (rule C6), whichever tunnel sends them."""

from __future__ import annotations

from ntmd.proto import timing

Source = tuple[int, str, int]  # own socket, host, port


class Allowances:
    """One account for each source; it lives while a tunnel has a limited path there."""

    __slots__ = ("_accounts",)

    def __init__(self) -> None:
        self._accounts: dict[Source, list[int]] = {}  # bytes left, tunnels

    def __contains__(self, source: Source) -> bool:
        return source in self._accounts

    def hold(self, source: Source, amount: int) -> None:
        """A tunnel has a limited path there; an account that is open keeps what is left."""
        self._accounts.setdefault(source, [amount, 0])[1] += 1

    def release(self, source: Source) -> None:
        """A tunnel has a limited path there no more."""
        account = self._accounts[source]
        account[1] -= 1
        if not account[1]:
            del self._accounts[source]

    def left(self, source: Source) -> int:
        """Bytes that may still be sent."""
        return self._accounts[source][0]

    def add(self, source: Source, amount: int) -> None:
        """Sent (negative)."""
        self._accounts[source][0] += amount

    def received(self, source: Source, size: int) -> None:
        """``size`` bytes came from there."""
        self._accounts[source][0] += timing.AMPLIFICATION * size
