"""A coordinator of the world: the production core, its table of nodes, the DNS."""

from __future__ import annotations

from typing import Any

from ntm_dc.core import DcCore
from ntm_dc.values import (
    DcSettings,
    DcState,
    Flush,
    Flushed,
    ForgetNode,
    LookupDomain,
    StoredNode,
    StoreNode,
)
from ntmd.proto.certs import Trust
from ntmd.proto.stream import ALPN
from ntmd.proto.types import Role
from tests.sim.dns import SimDns
from tests.sim.machine import Host
from tests.sim.platform import DcIdentity
from tests.sim.process import Birth
from tests.sim.servers import SimServer

DISK = 0.004  # seconds until what was stored is durable


class SimDc(SimServer):
    """``nodes`` is the database, which outlives a crash; what was not flushed is lost."""

    def __init__(
        self, host: Host, identity: DcIdentity, trust: Trust, settings: DcSettings, dns: SimDns
    ) -> None:
        ports = {number: (at.host, at.port) for number, at in settings.sockets().items()}
        super().__init__(
            host, identity.identity.name, ports, self._build, settings.tls, ALPN[Role.DC]
        )
        self.identity, self.trust, self.settings, self.dns = identity, trust, settings, dns
        self.nodes: dict[str, StoredNode] = {}
        self._unflushed: list[StoreNode | ForgetNode] = []

    def _build(self, birth: Birth) -> DcCore:
        return DcCore(
            self.settings,
            self.identity.identity,
            self.identity.sign_private,
            self.identity.sign_certificate,
            self.identity.prefix,
            self.trust,
            DcState(tuple(self.nodes.values()), birth.stored),
            random=birth.random,
            now=birth.now,
            wall_ms=birth.wall_ms,
        )

    def closed(self) -> None:
        """Sockets are closed; what the database had not written yet is gone."""
        super().closed()
        self._unflushed.clear()

    def execute_other(self, command: Any) -> None:
        """The database and the resolver."""
        match command:
            case StoreNode() | ForgetNode():
                self._unflushed.append(command)
                self.host.world.clock.after(DISK, self._write)
            case Flush(ticket=ticket):
                self.host.world.clock.after(DISK, lambda: self._flushed(ticket))
            case LookupDomain():
                answer = self.dns.answer(command)
                if answer is not None:
                    self.host.world.clock.after(self.dns.delay, lambda: self.post(answer))
            case _:
                super().execute_other(command)

    def _write(self) -> None:
        for command in self._unflushed:
            if isinstance(command, StoreNode):
                self.nodes[command.node.name] = command.node
            else:
                self.nodes.pop(command.name, None)
        self._unflushed.clear()

    def _flushed(self, ticket: int) -> None:
        self._write()
        self.post(Flushed(ticket))
