"""A session engine on a real UDP socket, for the tests of the servers' shells."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ntmd.proto.certs import Trust
from ntmd.proto.events import Identity, OpenPolicy, Replied
from ntmd.proto.frame import Kind
from ntmd.proto.io import SendDatagram
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Endpoint, Role
from ntmd.runtime.clock import boot_clock
from ntmd.runtime.udp import open_udp


class EngineStation:
    """Talks to servers of one role. :meth:`work` does what is due; polled from the loop."""

    def __init__(
        self, identity: Identity, trust: Trust, role: Role, platform_ms: Callable[[float], int]
    ) -> None:
        self.identity = identity
        self.socket = open_udp("127.0.0.1", 0)
        self.at = Endpoint(*self.socket.getsockname())
        self.replies: dict[int, Any] = {}
        self.data: list[bytes] = []
        self.handle = -1
        self.engine = SessionEngine(
            identity,
            trust,
            OpenPolicy((role,)),
            random=os.urandom,
            platform_ms=platform_ms,
            sequencer=Sequencer(0, lambda mark: None),
        )

    def work(self) -> None:
        """Take what came, do what is due, send what the engine wants sent."""
        now = boot_clock()
        while True:
            try:
                data, source = self.socket.recvfrom(65_536)
            except BlockingIOError:
                break
            if data[0] == Kind.DATA:
                self.data.append(data)
            else:
                self.engine.receive(data, 1, Endpoint(*source), now)
        if (due := self.engine.deadline()) is not None and due <= now:
            self.engine.handle_deadline(now)
        for output in self.engine.take_outputs():
            match output:
                case SendDatagram(data=data, path=path):
                    self.socket.sendto(data, path.remote)
                case Replied(request_id=number, reply=reply):
                    self.replies[number] = reply
            self.take(output, now)

    def take(self, output: Any, now: float) -> None:
        """Something that the engine says, datagrams and replies included."""
