"""A server of the world: a production core on the sockets of a machine."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed, UserAnswered
from ntmd.proto.types import Endpoint
from tests.sim.machine import Host, Socket
from tests.sim.process import MakeCore, Process


class SimServer(Process):
    """Runs a server core. ``ports`` are (address, port) by own socket number."""

    def __init__(
        self, host: Host, label: str, ports: dict[int, tuple[str, int]], make: MakeCore
    ) -> None:
        super().__init__(host, label, make)
        self.ports = {number: Endpoint(*at) for number, at in ports.items()}
        self.answers: list[UserAnswered] = []
        self.sent: Counter[Endpoint] = Counter()
        self._open: dict[int, Socket] = {}

    def opened(self) -> None:
        """Bind all sockets."""
        for number, at in self.ports.items():
            receive = partial(self._received, number)
            self._open[number] = self.host.bind(Socket(at.family, at.port, receive, "", at.host))

    def closed(self) -> None:
        """The kernel closes them."""
        for socket in self._open.values():
            self.host.close(socket)
        self._open.clear()

    def _received(self, number: int, data: bytes, source: Endpoint) -> None:
        self.post(DatagramReceived(data, number, source))

    def execute(self, command: Any) -> None:
        """Datagrams leave; answers to the operator are kept."""
        match command:
            case SendDatagram(data=data, path=path):
                self.sent[path.remote] += len(data)
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
