"""Two nodes, a coordinator and a relay on the simulator's Internet, with a plane that only notes.

The plane here seals nothing: it remembers what it was told, so that a test can ask on which paths
a tunnel would send. Packets through real planes are the stories of ``tests/sim``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ntm_rs.core import RsCore, RsSettings
from ntm_rs.home import HomeDc
from ntmd.node.commands import ConfigureDevice, NameAnswered, StateChanged
from ntmd.node.inputs import DeviceReady
from ntmd.node.settings import Home, NodeSettings
from ntmd.proto import crypto
from ntmd.proto.events import Identity
from ntmd.proto.io import SendDatagram, SendFailed, UserAnswered
from ntmd.proto.messages import RelayInfo
from ntmd.proto.plane import (
    CloseSocket,
    InstallTunnel,
    OpenSocket,
    PlanePath,
    ReleaseParked,
    RemoveTunnel,
    SwitchPath,
    TunnelActivity,
    TunnelEntry,
)
from ntmd.proto.types import Endpoint
from tests.sim.daemon import Daemon
from tests.sim.machine import Host
from tests.sim.nat import NatKind
from tests.sim.platform import Platform
from tests.sim.process import Birth
from tests.sim.servers import SimServer
from tests.sim.world import Network, World
from tests.unit.node.fake_dc import FakeDc

DC_PORT, RS_PORT, PROBE_PORT = 4330, 4331, 4332


class LabNode(Daemon):
    """The production core on a machine of the world."""

    def __init__(self, host: Host, identity: Identity, platform: Platform, home: Home) -> None:
        super().__init__(host, identity, platform.trust, home, NodeSettings())
        self.entries: dict[int, TunnelEntry] = {}
        self.paths: dict[int, tuple[PlanePath, ...]] = {}
        self.switches: list[tuple[float, SwitchPath]] = []
        self.states: list[str] = []
        self.device: list[ConfigureDevice] = []
        self.released: list[bytes] = []
        self.other: list[Any] = []
        self.sent: list[tuple[float, SendDatagram]] = []

    def closed(self) -> None:
        super().closed()
        self.entries.clear()

    def execute(self, command: Any) -> None:
        match command:
            case SendDatagram(data=data, path=path):
                self.sent.append((self.host.world.clock.now, command))
                socket = self._open.get(path.socket)
                code = 19 if socket is None else self.host.send(socket, data, path.remote)
                if code:
                    self.post(SendFailed(path, code))
            case InstallTunnel(entry=entry):
                self.entries[entry.tunnel] = entry
                self.paths[entry.tunnel] = entry.paths
            case SwitchPath():
                self.switches.append((self.host.world.clock.now, command))
                self.paths[command.tunnel] = command.paths
            case RemoveTunnel(tunnel=number):
                self.entries.pop(number, None)
                self.paths.pop(number, None)
            case _:
                self._rest(command)

    def _rest(self, command: Any) -> None:
        match command:
            case ConfigureDevice():
                self.device.append(command)
                self.post(DeviceReady("ntm0"))
            case StateChanged(state=state):
                self.states.append(state)
            case ReleaseParked(address=address):
                self.released.append(address)
            case OpenSocket() | CloseSocket() | NameAnswered() | UserAnswered():
                super().execute(command)
            case _:
                self.other.append(command)

    def tunnel(self, name: str) -> Any:
        return self.core.tunnels.by_name(name)

    def way(self, name: str) -> str:
        """direct, relay or none: on what the plane sends to ``name`` first."""
        tunnel = self.tunnel(name)
        paths = self.paths.get(tunnel.number, ()) if tunnel is not None else ()
        if not paths:
            return "none"
        return "relay" if paths[0].path.leg else "direct"

    def active(self, name: str, *, sent: int, received: int, silent_for: float = 0.0) -> None:
        """The plane reports traffic of a tunnel, as if it flowed now."""
        tunnel = self.tunnel(name)
        entry = self.entries[tunnel.number]
        session = entry.receive[-1].session if entry.receive else 0
        now = self.host.now
        self.post(
            TunnelActivity(
                tunnel.number,
                sent,
                sent * 100,
                received,
                received * 100,
                session,
                received,
                0,
                (),
                now if sent else 0.0,
                now - silent_for if received else 0.0,
                0.0,
                0.0,
                0,
                0,
                sent,
            )
        )


class Lab:
    """``with_relay`` adds a relay; ``homes`` are where laptop and desk are."""

    def __init__(self, seed: int = 1, *, with_relay: bool = True) -> None:
        self.world = World(seed)
        self.platform = Platform(self.world.clock)
        self.dc_identity = self.platform.dc("dc.home.test", "home.test")
        self.servers = self.world.host("server")
        self.servers.attach("eth0", self.world.internet, families=(4,))
        self.address = self.servers.interfaces["eth0"].addresses[4]
        self.rs: SimServer | None = None
        relays: tuple[RelayInfo, ...] = ()
        keys: tuple[bytes, ...] = ()
        if with_relay:
            identity = self.platform.rs("rs1.home.test", "home.test")
            keys = (crypto.public_key(identity.private_key),)
            at = Endpoint(self.address, RS_PORT)
            relays = (RelayInfo(identity.name, identity.certificates[0], (at,)),)
            self.rs = SimServer(
                self.servers, "rs1", {1: (at.host, at.port)}, partial(self._relay, identity, at)
            )
        sockets = {
            1: Endpoint(self.address, DC_PORT),
            2: Endpoint(self.address, PROBE_PORT),
        }
        self.tamper = lambda route: route
        self.dc = SimServer(
            self.servers,
            "dc",
            {n: (e.host, e.port) for n, e in sockets.items()},
            lambda birth: FakeDc(
                birth,
                self.platform,
                self.dc_identity,
                sockets,
                relays,
                keys,
                tamper=lambda route: self.tamper(route),
            ),
        )
        self.dc.start()
        if self.rs is not None:
            self.rs.start()

    def _relay(self, identity: Identity, at: Endpoint, birth: Birth) -> RsCore:
        dc = HomeDc(
            self.dc_identity.peer,
            (Endpoint(self.address, DC_PORT),),
            self.dc_identity.sign_certificate,
        )
        settings = RsSettings(self.platform.id)
        return RsCore(
            settings,
            identity,
            self.platform.trust,
            dc,
            {1: at},
            random=birth.random,
            now=birth.now,
            wall_ms=birth.wall_ms,
            stored=birth.stored,
        )

    def node(
        self,
        name: str,
        network: Network | None = None,
        domains: tuple[str, ...] = ("home.test",),
    ) -> LabNode:
        """A node named ``name``.home.test, started, in ``network`` (else the Internet).

        ``domains`` are those that the account server named at enrolment.
        """
        host = self.world.host(name)
        host.attach("eth0", network or self.world.internet, families=None if network else (4,))
        identity = self.platform.node(f"{name}.home.test", "home.test")
        home = Home(
            "home.test",
            self.dc_identity.peer,
            (Endpoint(self.address, DC_PORT),),
            self.dc_identity.sign_certificate,
            domains,
        )
        node = LabNode(host, identity, self.platform, home)
        node.start()
        return node

    def behind(self, kind: NatKind) -> Network:
        """A home behind a NAT."""
        return self.world.home(kind)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(seconds)
