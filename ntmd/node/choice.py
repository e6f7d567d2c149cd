"""Which of several paths to a peer is best, the round trip aside.

In this order: not towards a link that the peer does not use; the own link that the system prefers,
for its order is the user's word on cost, but before a metered one rather a link that loses, or a
path that does (:mod:`ntmd.node.fading`); direct before relay; the link that the peer calls its
primary. Two paths equal in all that are compared by their round trips, with hysteresis
(:meth:`ntmd.node.path.PathBook.better`).
"""

from __future__ import annotations

from ntmd.node.path import Key, PathBook
from ntmd.node.underlay import LOSSY, Underlay
from ntmd.proto.types import Path


def key_of(book: PathBook, underlay: Underlay) -> Key:
    """The sorting key for the paths of one peer."""

    def key(path: Path) -> tuple[int, ...]:
        rank = underlay.rank(path.socket) + (LOSSY if book.loses(path) else 0)
        if path.relayed:
            return (False, rank, True, False)
        peer = book.ids.get(path, 0)
        other = book.named not in (0, peer)
        return (peer in book.left, rank, False, other)

    return key


def best_way(book: PathBook, relay: Path | None, key: Key) -> Path | None:
    """The best of the proven direct paths and the relay leg, if there is any."""
    direct = book.best_direct(key)
    ways = [way for way in (direct, relay) if way is not None]
    return min(ways, key=key, default=None)
