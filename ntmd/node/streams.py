"""TLS connections as own sockets, for networks that let no UDP pass (rule S12).

A connection starts on the network of one UDP socket and has one remote only, its server. It has a
number, hence a path id, like every own socket; it is no candidate and is asked for no mapping.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ntmd.node.common import Common
from ntmd.proto.plane import CloseSocket, OpenStream, SocketFailed, SocketOpened
from ntmd.proto.timing import DATAGRAM_MAX
from ntmd.proto.types import Endpoint, Path

if TYPE_CHECKING:
    from ntmd.node.underlay import OwnSocket


class Owner(Protocol):
    """Whoever wanted a connection."""

    def stream_opened(self, number: int, now: float) -> None:
        """It can carry."""

    def stream_failed(self, number: int, text: str, now: float) -> None:
        """It could not be had, or has ended."""

    def stream_gone(self, number: int) -> None:
        """Its network is gone, and it with it."""

    def udp_may_pass(self, now: float) -> None:
        """Somebody else was heard over UDP again."""


@dataclass(slots=True)
class Stream:
    """A connection: as an own socket, the UDP socket whose network it uses, its remote."""

    socket: OwnSocket
    base: int
    remote: Endpoint
    owner: Owner


class Streams:
    """All TLS connections of this node, open or being opened, by number."""

    def __init__(self, common: Common, numbers: Iterator[int]) -> None:
        self._common, self._numbers = common, numbers
        self._by_number: dict[int, Stream] = {}

    def open(
        self, base: OwnSocket, remote: Endpoint, service: str, owner: Owner, now: float
    ) -> int:
        """Connect to ``remote`` from the network of ``base``; returns the new own socket."""
        number, network = next(self._numbers), base.network
        socket = replace(base, number=number, mtu=min(base.mtu, DATAGRAM_MAX), local=None)
        self._by_number[number] = Stream(socket, base.number, remote, owner)
        clock = self._common.clock
        wish = OpenStream(
            number,
            network.interface,
            network.family,
            network.address,
            remote,
            service,
            clock(now),
            clock.slack_ms(),
        )
        self._common.emit(wish)
        return number

    def close(self, number: int) -> None:
        """End a connection; unknown numbers are ignored."""
        if self._by_number.pop(number, None) is not None:
            self._common.emit(CloseSocket(number))

    def opened(self, event: SocketOpened, now: float) -> bool:
        """The plane opened a socket; False if it is no connection of ours."""
        stream = self._by_number.get(event.socket)
        if stream is None:
            return False
        stream.socket = replace(stream.socket, local=event.local)
        stream.owner.stream_opened(event.socket, now)
        return True

    def failed(self, event: SocketFailed) -> Stream | None:
        """A socket of the plane's is gone: the connection that it was, or None."""
        return self._by_number.pop(event.socket, None)

    def without(self, bases: dict[int, OwnSocket]) -> list[OwnSocket]:
        """End the connections whose network is gone; returns them."""
        gone = [s for s in self._by_number.values() if s.base not in bases]
        for stream in gone:
            self.close(stream.socket.number)
            stream.owner.stream_gone(stream.socket.number)
        return [stream.socket for stream in gone]

    def udp_passes(self, now: float) -> None:
        """A server was heard over UDP again: others that have a connection may be, too."""
        for owner in dict.fromkeys(stream.owner for stream in self._by_number.values()):
            owner.udp_may_pass(now)

    def socket(self, number: int) -> OwnSocket | None:
        """The connection as an own socket."""
        stream = self._by_number.get(number)
        return stream.socket if stream is not None else None

    def has(self, number: int) -> bool:
        """Whether this own socket is a connection."""
        return number in self._by_number

    def base(self, number: int) -> int:
        """The UDP socket whose network a connection uses; 0 for unknown ones."""
        stream = self._by_number.get(number)
        return stream.base if stream is not None else 0

    def way(self, number: int) -> Path | None:
        """The only way of an open connection."""
        stream = self._by_number.get(number)
        if stream is None or stream.socket.local is None:
            return None
        return Path(number, stream.remote)
