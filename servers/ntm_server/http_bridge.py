"""The account server's HTTP on a TLS connection that the shared listener accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ntmd.proto.types import Endpoint
from ntmd.runtime.stream_server import Handler, Link

LONGEST = 30.0  # seconds that a browser or a joining node may stay
HIGH = 65_536  # bytes waiting for the kernel at which the application is asked to pause


class HttpService:
    """Makes one of ``protocol()`` for each connection, as an ordinary HTTPS server would."""

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._protocol, self._loop = protocol, loop
        self._born: dict[Endpoint, float] = {}

    def adopt(self, link: Link) -> Handler:
        """A connection asks for the account server."""
        self._born[link.source] = self._loop.time()
        return _Bridge(link, self._protocol(), self._born)

    def keeps(self, age: float) -> Callable[[Endpoint], bool]:
        """Those that are not too old; the application has its own, shorter limits."""
        oldest = self._loop.time() - LONGEST
        return lambda source: self._born.get(source, 0.0) > oldest


class _Bridge(asyncio.Transport):
    """The transport of one HTTP connection."""

    def __init__(self, link: Link, protocol: asyncio.Protocol, born: dict[Endpoint, float]) -> None:
        super().__init__({"peername": tuple(link.source), "sslcontext": True})
        self._link, self._protocol, self._born = link, protocol, born
        self._waiting = b""
        self._paused = self._closing = False
        protocol.connection_made(self)

    # -------------------------------------------------------------- the connection's side

    def data(self, chunk: bytes) -> None:
        self._protocol.data_received(chunk)

    def room(self) -> None:
        waiting, self._waiting = self._waiting, b""
        if waiting:
            self._link.write(waiting)
        if self._paused and not self._link.busy:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._link.busy:
            self._link.close()

    def ended(self) -> None:
        self._closing = True
        self._born.pop(self._link.source, None)
        self._protocol.connection_lost(None)

    # -------------------------------------------------------------- the application's side

    def write(self, data: Any) -> None:
        """Send; what the kernel does not take yet waits."""
        if self._link.busy:
            self._waiting += bytes(data)
        else:
            self._link.write(bytes(data))
        if not self._paused and len(self._waiting) > HIGH:
            self._paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """End it when everything has been sent."""
        if not self._closing:
            self._closing = True
            if not self._link.busy:
                self._link.close()

    def abort(self) -> None:
        """End it now."""
        self._link.close()

    def is_closing(self) -> bool:
        """Whether it is ending."""
        return self._closing

    def pause_reading(self) -> None:
        """Leave what comes to the kernel."""
        self._link.pause(True)

    def resume_reading(self) -> None:
        """Read again."""
        self._link.pause(False)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Not used here, but part of a transport."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whoever is served."""
        return self._protocol
