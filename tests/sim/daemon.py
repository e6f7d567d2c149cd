"""The production core of a node on a machine of the world: its sockets, and what a user asks it."""

from __future__ import annotations

from functools import partial
from typing import Any

from ntmd.node.commands import NameAnswered
from ntmd.node.core import NodeCore
from ntmd.node.inputs import NameAsked, NetworkChanged, Stopping
from ntmd.node.settings import Home, NodeSettings
from ntmd.proto.certs import Trust
from ntmd.proto.events import Identity
from ntmd.proto.io import DatagramReceived, UserAnswered, UserAsked
from ntmd.proto.plane import CloseSocket, OpenSocket, SocketFailed, SocketOpened
from ntmd.proto.types import Endpoint
from tests.sim.machine import Host, Socket
from tests.sim.process import Birth, Process


class Daemon(Process):
    """``ntmd`` without a data plane; the store outlives a crash."""

    def __init__(
        self, host: Host, identity: Identity, trust: Trust, home: Home, settings: NodeSettings
    ) -> None:
        super().__init__(host, host.name, self._build)
        self.identity, self.trust, self.home, self.settings = identity, trust, home, settings
        self.names: dict[int, NameAnswered] = {}
        self.answers: dict[int, list[UserAnswered]] = {}
        self._tokens = 0
        self._open: dict[int, Socket] = {}

    def _build(self, birth: Birth) -> NodeCore:
        return NodeCore(
            self.settings,
            self.identity,
            self.trust,
            self.home,
            birth.stored,
            random=birth.random,
            now=birth.now,
            wall_ms=birth.wall_ms,
            persist=self.store.__setitem__,
        )

    # -------------------------------------------------------------- what a user does

    @property
    def name(self) -> str:
        """The node's FQDN."""
        return self.identity.name

    def resolve(self, name: str) -> int:
        """Ask the stub resolver; the answer will be in ``names`` under the token returned."""
        self._tokens += 1
        self.post(NameAsked(self._tokens, name))
        return self._tokens

    def ask(self, what: str, **arguments: Any) -> list[UserAnswered]:
        """Ask over the control socket; returns the (growing) list of answers."""
        self._tokens += 1
        self.answers[self._tokens] = []
        self.post(UserAsked(self._tokens, what, arguments))
        return self.answers[self._tokens]

    def down(self) -> None:
        """``ntmd down``."""
        self.post(Stopping())

    # -------------------------------------------------------------- the process

    def opened(self) -> None:
        """Give the core the underlay, now and at each change."""
        self.host.on_change = self._underlay_changed
        self.host.world.clock.after(0.0, lambda: self.post(self.host.network_state()))

    def closed(self) -> None:
        """The sockets die with the process."""
        for socket in self._open.values():
            self.host.close(socket)
        self._open.clear()

    def _underlay_changed(self, event: NetworkChanged) -> None:
        self.post(event)

    def execute(self, command: Any) -> None:
        """Carry out one command."""
        match command:
            case OpenSocket():
                self._open_socket(command)
            case CloseSocket(socket=number):
                if number in self._open:
                    self.host.close(self._open.pop(number))
            case NameAnswered(token=token):
                self.names[token] = command
            case UserAnswered(token=token):
                self.answers.setdefault(token, []).append(command)
            case _:
                super().execute(command)

    def _open_socket(self, wish: OpenSocket) -> None:
        receive = partial(self._received, wish.socket)
        socket = Socket(wish.family, wish.port, receive, wish.interface, wish.address)
        try:
            self._open[wish.socket] = self.host.bind(socket)
        except OSError as error:
            self.post(SocketFailed(wish.socket, error.errno or 0, str(error)))
            return
        self.post(SocketOpened(wish.socket, self.host.local(socket)))

    def _received(self, number: int, data: bytes, source: Endpoint) -> None:
        self.post(DatagramReceived(data, number, source))
