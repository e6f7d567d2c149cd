"""A node of the world: the production core, the production plane's table, and a tiny inner host."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from ntmd.node.commands import (
    ConfigureDevice,
    EndScout,
    NameAnswered,
    RenewCertificate,
    ScoutNetwork,
    StateChanged,
)
from ntmd.node.inputs import DeviceReady, Nat64Found, PortMapped, Woke
from ntmd.node.settings import Home, NodeSettings
from ntmd.proto.certs import Trust
from ntmd.proto.events import Identity
from ntmd.proto.frame import Kind
from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed
from ntmd.proto.plane import (
    BlockInterface,
    CloseSocket,
    InstallTunnel,
    OpenSocket,
    OpenStream,
    ParkStreams,
    ReleaseParked,
    RemoveTunnel,
    Resend,
    SocketFailed,
    SocketOpened,
    SwitchPath,
)
from ntmd.proto.timing import SLEPT
from ntmd.proto.types import Endpoint
from tests.sim.daemon import Daemon
from tests.sim.inner import InnerHost
from tests.sim.machine import Host
from tests.sim.plane import SimPlane
from tests.sim.stream import StreamClient
from tests.sim.world import NAT64_PREFIX, Router

DATA = int(Kind.DATA)


class SimNode(Daemon):
    """``ntmd`` on a machine. The store outlives a crash; the plane and its keys never do."""

    def __init__(
        self,
        host: Host,
        identity: Identity,
        trust: Trust,
        home: Home,
        settings: NodeSettings = NodeSettings(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(host, identity, trust, home, settings)
        self.inner = InnerHost(self._into_tun, lambda: host.world.clock.now)
        self.name_times: dict[int, float] = {}
        self.states: list[tuple[float, str]] = []
        self.renewals: list[RenewCertificate] = []
        self.sealed: dict[tuple[bytes, bytes], set[bytes]] = {}  # (key, nonce) to ciphertexts
        self.sent_bytes = 0
        self.sent_to: Counter[Endpoint] = Counter()
        self.streams: dict[int, StreamClient] = {}
        self._links: dict[int, str] = {}  # own socket or stream to its interface
        self._blocked: dict[str, float] = {}  # interface to the end of its block
        self.plane = SimPlane(self)

    # -------------------------------------------------------------- what a user does

    @property
    def address(self) -> bytes:
        """The virtual address, empty before the first registration."""
        return self.inner.address

    @property
    def state(self) -> str:
        """The last state told."""
        return self.states[-1][1] if self.states else ""

    def resolve(self, name: str) -> int:
        """Ask the stub resolver; the answer will be in ``names`` under the token returned."""
        token = super().resolve(name)
        self.name_times[token] = self.host.world.clock.now
        return token

    # -------------------------------------------------------------- the process

    def opened(self) -> None:
        """Give the core the underlay."""
        self.plane = SimPlane(self)
        super().opened()

    def closed(self) -> None:
        """The plane dies with the daemon; the TUN keeps its address."""
        super().closed()
        for stream in self.streams.values():
            stream.connection.close()
        self.streams.clear()
        self._blocked.clear()
        self.plane.close()

    def woke(self, asleep: float) -> None:
        """The machine slept; the driver tells before anything else (:mod:`ntmd.runtime.clock`)."""
        if asleep > SLEPT:
            self.post(Woke(asleep))
        super().woke(asleep)
        if self.running:
            self.plane.woke()

    def execute(self, command: Any) -> None:
        """Carry out one command."""
        match command:
            case SendDatagram(data=data, path=path):
                code = self.send(path.socket, data, path.remote)
                if code:
                    self.post(SendFailed(path, code))
            case CloseSocket(socket=number):
                self.plane.command(command)
                super().execute(command)
                if number in self.streams:
                    self.streams.pop(number).connection.close()
            case OpenStream():
                self._open_stream(command)
            case InstallTunnel() | SwitchPath() | RemoveTunnel():
                self.plane.command(command)
            case Resend() | ParkStreams() | ReleaseParked():
                self.plane.command(command)
            case BlockInterface(interface=name, seconds=seconds):
                self._blocked[name] = self.host.world.clock.now + seconds
            case ConfigureDevice(address=address):
                self.inner.address = address
                self.plane.configured(command)
                self.post(DeviceReady(self.settings.interface))
            case NameAnswered(token=token):
                super().execute(command)
                self.name_times[-token] = self.host.world.clock.now
            case StateChanged(state=state):
                self.states.append((self.host.world.clock.now, state))
            case RenewCertificate():
                self.renewals.append(command)
            case ScoutNetwork():
                self._scout(command)
            case EndScout():
                pass
            case _:
                super().execute(command)

    def _scout(self, wish: ScoutNetwork) -> None:
        """What the router in front of a socket offers."""
        entry = self.host.interfaces.get(wish.interface)
        router = entry.network.gateway if entry is not None else None
        if router is not None:
            self.host.world.clock.after(router.answers_after, lambda: self._found(wish, router))

    def _found(self, wish: ScoutNetwork, router: Router) -> None:
        if not self.running:
            return
        if wish.local.family == 6 and router.nat64 is not None:
            self.post(Nat64Found(wish.socket, NAT64_PREFIX))
        elif wish.local.family == 4 and router.grants_ports and router.nat is not None:
            self.post(PortMapped(wish.socket, router.nat.grant(wish.local), "pcp"))

    def _open_socket(self, wish: OpenSocket) -> None:
        self._links[wish.socket] = wish.interface
        super()._open_socket(wish)

    def _open_stream(self, wish: OpenStream) -> None:
        number = wish.socket
        self._links[number] = wish.interface
        connection = self.host.tcp.connect(wish.interface, wish.address, wish.remote)
        if connection is None:
            self.post(SocketFailed(number, 19, "no such interface or address"))
            return

        def failed(why: str) -> None:
            if self.streams.pop(number, None) is not None:
                self.post(SocketFailed(number, 104, why))

        self.streams[number] = StreamClient(
            connection,
            wish.service,
            lambda: self.post(SocketOpened(number, connection.local)),
            partial(self._received, number),
            failed,
        )

    # -------------------------------------------------------------- datagrams

    def send(self, number: int, data: bytes, remote: Endpoint) -> int:
        """One datagram out of an own socket; returns 0 or an errno. Also used by the plane."""
        socket, stream = self._open.get(number), self.streams.get(number)
        if self._silent(number):
            return 0
        if stream is not None:
            self.sent_bytes += len(data)
            self.sent_to[remote] += len(data)
            stream.framed.send(data)
            return 0
        if socket is None:
            return 19  # ENODEV
        self.sent_bytes += len(data)
        self.sent_to[remote] += len(data)
        return self.host.send(socket, data, remote)

    def _received(self, number: int, data: bytes, source: Endpoint) -> None:
        if not self.running or self._silent(number):
            return
        if data and data[0] == DATA:
            self.plane.datagram(data, number, source)
        else:
            self.post(DatagramReceived(data, number, source))

    def _silent(self, number: int) -> bool:
        """Whether the plane blocks the link of a socket or stream."""
        if not self._blocked:
            return False
        until = self._blocked.get(self._links.get(number, ""), 0.0)
        return until > self.host.world.clock.now

    def _into_tun(self, packet: bytes) -> None:
        if self.running and not self.host.asleep:
            self.plane.packet(packet)
