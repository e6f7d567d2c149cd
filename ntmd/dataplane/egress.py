"""The last step out: sealed datagrams onto the paths of their tunnel, within what each may carry.

A source that is not proven gets no more than three times what came from it (rule C6). A second path
carries copies, out of one budget for the whole node (rule N8): doubling what a link cannot carry
would make the doubt permanent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ntmd.dataplane.table import Table, Tunnel, source_of
from ntmd.proto import timing
from ntmd.proto.plane import PlanePath

Send = Callable[[memoryview, int, PlanePath], None]  # datagrams side by side, size of each, path


class Copies:
    """What a node may send a second time: seconds and bytes that flow back slowly."""

    def __init__(self) -> None:
        self._seconds = self._bytes = 0.0  # spent
        self._at = -1e9
        self._doubling = False  # whether the last wish was granted

    def take(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes may leave a second time now."""
        passed, self._at = max(0.0, now - self._at), now
        if self._doubling and passed < timing.DOUBT_PAUSE:
            self._seconds += passed
        else:
            share = min(1.0, passed / timing.DOUBT_RECOVERY)
            self._seconds = max(0.0, self._seconds - share * timing.DOUBT_SECONDS)
            self._bytes = max(0.0, self._bytes - share * timing.DOUBT_BYTES)
        within = self._seconds <= timing.DOUBT_SECONDS
        self._doubling = within and self._bytes + size <= timing.DOUBT_BYTES
        if self._doubling:
            self._bytes += size
        return self._doubling

    def stop(self) -> None:
        """A link is full: no copies for as long as the budget takes to flow back."""
        self._seconds = 2 * timing.DOUBT_SECONDS
        self._doubling = False


class Egress:
    """Sends on all paths of a tunnel what the path and the node's budget allow."""

    def __init__(self, table: Table, drops: Counter[str], send: Send) -> None:
        self._table, self._drops, self._send = table, drops, send
        self.copies = Copies()

    def spread(self, tunnel: Tunnel, run: memoryview, size: int, now: float) -> None:
        """``run``: datagrams of ``size`` bytes side by side; its indices are overwritten."""
        sent = 0
        for path in tunnel.paths:
            part = run
            if path.allowance is not None:
                part = self._allowed(path, run, size)
            if not part:
                continue
            if sent and not self.copies.take(min(sent, len(part)), now):
                self._drops["out_copy_limited"] += -(-len(part) // size)
                continue
            readdress(part, size, path.path.leg or tunnel.peer_index)
            self._send(part, size, path)
            sent += len(part)

    def _allowed(self, path: PlanePath, run: memoryview, size: int) -> memoryview:
        """The beginning of the run that the path's allowance covers."""
        source = source_of(path.path)
        left = self._table.allowances.left(source)
        if left < len(run):
            fit = left // size * size
            self._drops["out_allowance"] += -(-(len(run) - fit) // size)
            run = run[:fit]
        self._table.allowances.add(source, -len(run))
        return run


def readdress(run: memoryview, size: int, index: int) -> None:
    """Overwrite the index of all datagrams of a run, byte by byte with strided slices."""
    count = -(-len(run) // size)
    for i, byte in enumerate(index.to_bytes(4, "big")):
        run[4 + i :: size] = bytes((byte,)) * count
