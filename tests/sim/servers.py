"""A server of the world: a production core on the sockets of a machine."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed, UserAnswered
from ntmd.proto.stream import STREAM_SOCKET
from ntmd.proto.types import Endpoint
from tests.sim.machine import Host, Socket
from tests.sim.process import MakeCore, Process
from tests.sim.stream import StreamServer


class SimServer(Process):
    """Runs a server core. ``ports`` are (address, port) by own socket number."""

    def __init__(
        self,
        host: Host,
        label: str,
        ports: dict[int, tuple[str, int]],
        make: MakeCore,
        tls: tuple[Endpoint, ...] = (),
        service: str = "",
    ) -> None:
        super().__init__(host, label, make)
        self.tls, self.service = tls, service
        self.streams: StreamServer | None = None
        self.ports = {number: Endpoint(*at) for number, at in ports.items()}
        self.answers: list[UserAnswered] = []
        self.sent: Counter[Endpoint] = Counter()
        self._open: dict[int, Socket] = {}

    def opened(self) -> None:
        """Bind all sockets."""
        for number, at in self.ports.items():
            receive = partial(self._received, number)
            self._open[number] = self.host.bind(Socket(at.family, at.port, receive, "", at.host))
        if self.tls:
            receive = partial(self._received, STREAM_SOCKET)
            self.streams = StreamServer(
                self.host.tcp, self.tls, self.service, receive, lambda: self.core.stream_sources()
            )

    def closed(self) -> None:
        """The kernel closes them."""
        for socket in self._open.values():
            self.host.close(socket)
        self._open.clear()
        if self.streams is not None:
            self.streams.close()

    def _received(self, number: int, data: bytes, source: Endpoint) -> None:
        self.post(DatagramReceived(data, number, source))

    def execute(self, command: Any) -> None:
        """Datagrams leave; answers to the operator are kept."""
        match command:
            case SendDatagram(data=data, path=path):
                self.sent[path.remote] += len(data)
                if path.socket == STREAM_SOCKET:
                    code = self.streams.send(data, path.remote) if self.streams else 19
                else:
                    code = self.host.send(self._open[path.socket], data, path.remote)
                if code:
                    self.post(SendFailed(path, code))
            case UserAnswered():
                self.answers.append(command)
            case _:
                self.execute_other(command)

    def execute_other(self, command: Any) -> None:
        """Commands that only one kind of server has."""
        super().execute(command)
