"""ICMPv6 errors for local senders, limited in rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ntmd.dataplane import packets
from ntmd.dataplane.packets import MINIMUM_MTU, VNET_SIZE
from ntmd.dataplane.table import Sender, Tunnel
from ntmd.proto.frame import HEADER_SIZE, OVERHEAD

ANSWERS_PER_SECOND = 100

Reply = Callable[[bytes], None]  # a packet for the own TUN


class Errors:
    """Answers the packet that lies in ``view`` behind its virtio header."""

    def __init__(self, view: memoryview, drops: Counter[str], reply: Reply) -> None:
        self._view, self._drops, self._reply = view, drops, reply
        self._second, self._answers = 0.0, 0

    def answer(self, length: int, kind: int, code: int, value: int, now: float) -> None:
        """An error about the packet that ends at ``length``."""
        if now - self._second >= 1.0:
            self._second, self._answers = now, 0
        self._answers += 1
        if self._answers > ANSWERS_PER_SECOND:
            self._drops["icmp_limited"] += 1
            return
        answer = packets.error_answer(bytes(self._view[VNET_SIZE:length]), kind, code, value)
        if answer is not None:
            self._reply(answer)

    def too_big(self, tunnel: Tunnel, length: int, now: float) -> None:
        """Packet Too Big, once the path's size is settled; nobody need go below 1,280 (S5)."""
        if tunnel.settled and length - VNET_SIZE > MINIMUM_MTU:
            self.answer(length, packets.TOO_BIG, 0, max(tunnel.room, MINIMUM_MTU), now)

    def too_big_after_all(
        self, tunnel: Tunnel, sender: Sender, datagrams: list[bytes], now: float
    ) -> None:
        """Packet Too Big for those of our own sealed datagrams that the path does not carry."""
        for datagram in datagrams:
            length = VNET_SIZE + len(datagram) - OVERHEAD
            if length - VNET_SIZE > max(tunnel.room, MINIMUM_MTU):
                nonce = datagram[:4] + datagram[8:HEADER_SIZE]
                sender.open(nonce, datagram[HEADER_SIZE:], None, self._view[VNET_SIZE:length])
                self.too_big(tunnel, length, now)
