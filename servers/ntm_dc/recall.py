"""After a restart: the coordinator shakes hands with its nodes by itself.

Their NATs' mappings towards this address still stand, so a node is reached where it was last heard.
Spread at :data:`ntmd.proto.timing.DC_RECALL_RATE` a second, the most recently heard first.
"""

from __future__ import annotations

from collections import deque

from ntm_dc.common import Common
from ntm_dc.registry import Node, Registry
from ntmd.proto.types import Peer, Role

HORIZON = 3600.0  # nodes silent for longer than this come back by themselves
TICK = 0.01
GIVE_UP = 5.0


class Recall:
    """The queue of nodes still to be called."""

    def __init__(self, common: Common, registry: Registry) -> None:
        self._common, self._registry = common, registry
        self._queue: deque[Node] = deque()
        self._credit = 0.0
        self._last = 0.0

    def start(self, now: float) -> None:
        """Queue every node that was there when we last wrote it down."""
        wanted = [
            node
            for node in self._registry.nodes()
            if node.stored is not None
            and node.stored.online
            and node.primary is not None
            and node.leaf is not None
            and now - node.last_seen < HORIZON
        ]
        wanted.sort(key=lambda node: -node.last_seen)
        self._queue.extend(wanted)
        if wanted:
            self._common.tell("info", "calling known nodes", nodes=len(wanted))
            self._last = now
            self._common.at(now, self._tick)

    def one(self, node: Node, now: float) -> bool:
        """Call a node now, because somebody asks for it; whether there is a way to."""
        if node.handle is not None or node.primary is None or node.leaf is None:
            return False
        if now - node.last_seen >= HORIZON or node.stored is None or not node.stored.online:
            return False
        self._call(node, now)
        return True

    def waiting(self) -> int:
        """Nodes still to be called."""
        return len(self._queue)

    def _tick(self, now: float) -> None:
        rate = self._common.settings.recall_rate
        self._credit = min(max(rate * TICK * 2, 1.0), self._credit + (now - self._last) * rate)
        self._last = now
        while self._queue and self._credit >= 1.0:
            node = self._queue.popleft()
            if node.handle is None:
                self._credit -= 1.0
                self._call(node, now)
        if self._queue:
            self._common.at(now + TICK, self._tick)

    def _call(self, node: Node, now: float) -> None:
        assert node.primary is not None
        assert node.leaf is not None
        peer = Peer(Role.NODE, node.name, node.leaf.key)
        handle = self._common.engine.call(peer, [node.primary], now, read=node.leaf)
        self._common.counters["recalled"] += 1

        def over(_: float, node: Node = node, handle: int = handle) -> None:
            if node.handle is None and not self._common.engine.established(handle):
                self._common.counters["recall_unanswered"] += 1

        self._common.at(now + GIVE_UP, over)
