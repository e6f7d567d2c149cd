"""The node's core: builds the parts, hands each input to the part it concerns, has one deadline.

Read :mod:`ntmd.node` first (the life of a node and of a tunnel). Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ntmd.node.candidates import ContactBudget
from ntmd.node.clock import PlatformClock
from ntmd.node.commands import RenewCertificate
from ntmd.node.common import Common
from ntmd.node.inputs import (
    CertificateRenewed,
    ClockRead,
    CommandFailed,
    DeviceReady,
    NameAsked,
    Nat64Found,
    NetworkChanged,
    PortMapped,
    Stopping,
    Woke,
)
from ntmd.node.memory import SEQUENCE, Memory
from ntmd.node.parts import Parts
from ntmd.node.policy import NodePolicy
from ntmd.node.settings import Home, NodeSettings
from ntmd.node.timers import Timers
from ntmd.node.tunnel import Open
from ntmd.proto.certs import Trust
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Identity
from ntmd.proto.frame import Kind
from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed, Store, UserAsked, earliest
from ntmd.proto.plane import (
    CloseSocket,
    CounterNearLimit,
    DeviceFailed,
    NoTunnelFor,
    PeerMoved,
    PlaneStats,
    SlotSeen,
    SocketFailed,
    SocketOpened,
    TunnelActivity,
    UnknownIndex,
)
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.timing import RENEW_FROM, ROUTE_WAIT
from ntmd.proto.types import Peer, Role

RECENT_START = 3600_000  # peers active this recently are called at start (rule S4), ms
RENEW_RETRY = 3600.0
"""A renewal that failed is tried again after this, up to half more or less by chance, seconds:
nodes that failed together, for want of the account server, do not come back together each hour."""
RENEW_SPREAD = 0.01  # of the life that is left; nodes that start together overdue take so long
ERROR_DOUBT = 5.0  # refused datagrams raise doubt about a path at most this often, seconds


class NodeCore(Parts):
    """Decides for one node. See :class:`ntmd.proto.io.Core` for the contract.

    ``stored`` is what earlier ``Store`` commands wrote. ``persist(key, value)``, if given, writes
    durably before it returns; it is used for the sequence mark, which must be on disk before use
    (rule C10). Without it the mark goes out as an ordinary ``Store``.
    """

    def __init__(
        self,
        settings: NodeSettings,
        identity: Identity,
        trust: Trust,
        home: Home,
        stored: Mapping[str, bytes],
        *,
        random: Callable[[int], bytes],
        now: float,
        wall_ms: int,
        persist: Callable[[str, bytes], None] | None = None,
    ) -> None:
        commands: list[Any] = []
        memory = Memory({k: v for k, v in stored.items() if k != SEQUENCE}, commands.append)
        if memory.record and not identity.record:
            identity = replace(identity, record=memory.record)
        clock = PlatformClock(wall_ms, now, memory.clock_ms)
        write = persist or (lambda key, value: commands.append(Store(key, value)))
        mark = int.from_bytes(stored.get(SEQUENCE, b"")[:8], "big")
        sequencer = Sequencer(mark, lambda value: write(SEQUENCE, value.to_bytes(8, "big")))
        policy = NodePolicy(lambda: self.common, lambda: self.tunnels)
        engine = SessionEngine(
            identity, trust, policy, random=random, platform_ms=clock, sequencer=sequencer
        )
        engine.set_slack(clock.slack_ms())
        common = Common(
            settings, home, identity, trust, random, engine, Timers(), clock, memory, now, commands
        )
        self._error_doubt: dict[int, float] = {}
        self._greeted = False
        self._contacts = ContactBudget()
        super().__init__(common)
        common.may_leave = self._within_budget
        for key in memory.unreadable:
            self.common.tell("warning", "stored entry unreadable", key=key)
        self.registration.configure()
        self._plan_renewal(now)

    # -------------------------------------------------------------- the contract

    def handle(self, event: Any, now: float) -> None:
        """Take one thing that happened."""
        self.common.now = now
        match event:
            case DatagramReceived():
                self._datagram(event, now)
            case TunnelActivity():
                self._activity(event, now)
            case SendFailed():
                self._send_failed(event, now)
            case NetworkChanged():
                for _ in self.moves.network_changed(event, now):
                    self._socket_ready(now)
                self.reach.look()
            case SocketOpened():
                if not self.underlay.streams.opened(event, now):
                    self._socket_opened(event, now)
            case SocketFailed():
                self._socket_failed(event, now)
            case NoTunnelFor():
                self.calls.want_address(event.address, now)
            case NameAsked():
                self.names.asked(event, now)
            case UserAsked():
                self.asked.asked(event, now)
            case _:
                self._plane_event(event, now)
        self._settle(now)

    def _plane_event(self, event: Any, now: float) -> None:
        match event:
            case PeerMoved():
                tunnel = self.tunnels.by_number(event.tunnel)
                if tunnel is not None:
                    self.follow.source_changed(tunnel, event, now)
            case SlotSeen():
                tunnel = self.tunnels.by_number(event.tunnel)
                if tunnel is not None and tunnel.handle is not None:
                    self.common.engine.slot_seen(tunnel.handle, event.session, now)
            case UnknownIndex():
                self.common.engine.unknown_index(event, now)
            case CounterNearLimit():
                tunnel = self.tunnels.by_number(event.tunnel)
                if tunnel is not None:
                    self.steering.rekey(tunnel, now)
            case PlaneStats():
                self.stats = event
            case _:
                self._shell_event(event, now)

    def _shell_event(self, event: Any, now: float) -> None:
        match event:
            case Stopping():
                self._stop(event, now)
            case ClockRead():
                self.common.clock.read(event.wall_ms, now)
            case PortMapped():
                self.reach.port_mapped(event, now)
            case Nat64Found():
                self.reach.nat64_found(event, now)
            case Woke(asleep=asleep):
                self.moves.woke(asleep, now)
                self.keepalive.start(now)
            case CertificateRenewed():
                self._renewed(event, now)
            case DeviceReady():
                self.registration.say_state(now)
            case CommandFailed() | DeviceFailed():
                self._failed(event)
            case _:
                raise TypeError(f"not an input of a node: {type(event).__name__}")

    def handle_deadline(self, now: float) -> None:
        """The instant returned by :meth:`deadline` has passed."""
        self.common.now = now
        self.common.timers.run(now)
        engine_deadline = self.common.engine.deadline()
        if engine_deadline is not None and engine_deadline <= now:
            self.common.engine.handle_deadline(now)
        self._settle(now)

    def take_commands(self) -> list[Any]:
        """All wishes since the last call, in order."""
        for command in self.common.commands:
            if isinstance(command, SendDatagram):
                if self.underlay.is_open(command.path.socket):
                    self.allocations.sent(command.path)
            elif isinstance(command, CloseSocket):
                self.allocations.forget(command.socket)
        taken, self.common.commands[:] = list(self.common.commands), []
        return taken

    def deadline(self) -> float | None:
        """When to call :meth:`handle_deadline`; in the past while commands wait; None: never."""
        if self.common.commands:
            return 0.0
        return earliest(self.common.timers.deadline(), self.common.engine.deadline())

    def _settle(self, now: float) -> None:
        """Pass on what the engine wants sent, and its events, until it has no more to say."""
        self.common.pull()
        while self.common.events:
            self.receive.event(self.common.events.popleft(), now)
            self.common.pull()

    def _within_budget(self, output: SendDatagram, now: float) -> bool:
        """Whether a first-contact datagram to an unproven candidate may leave (rule S7)."""
        data, path = output.data, output.path
        if data[0] != Kind.INITIATION or path.relayed or self.underlay.streams.has(path.socket):
            return True
        servers = [self.registration.uplink, *(r.uplink for r in self.relays.by_name.values())]
        if any(self.underlay.native(path) in uplink.endpoints for uplink in servers):
            return True
        if any(path in tunnel.paths.proven for tunnel in self.tunnels.all()):
            return True
        if self._contacts.allow(len(data), now):
            return True
        self.common.counters["contact_budget"] += 1
        return False

    # -------------------------------------------------------------- inputs

    def _datagram(self, event: DatagramReceived, now: float) -> None:
        if self.relays.reset_received(event.data, now):
            return
        self.common.engine.receive(event.data, event.socket, event.source, now)

    def _activity(self, event: TunnelActivity, now: float) -> None:
        tunnel = self.tunnels.by_number(event.tunnel)
        if tunnel is None or not tunnel.installed:
            return
        self.steering.activity(tunnel, event, now)
        self.journal.activity(tunnel, event, now)
        self.seen.activity(tunnel, event, now)
        self.mtu.activity(tunnel, event, now)

    def _send_failed(self, event: SendFailed, now: float) -> None:
        """The kernel's word is a hint: it raises doubt, it never kills a path (rule N5)."""
        self.common.counters["send_failed"] += 1
        for tunnel in self.tunnels.all():
            primary = tunnel.paths.primary
            if primary is None or not isinstance(tunnel.state, Open):
                continue
            if (primary.socket, primary.remote) != (event.path.socket, event.path.remote):
                continue
            if now - self._error_doubt.get(tunnel.number, -1e9) > ERROR_DOUBT:
                self._error_doubt[tunnel.number] = now
                self.steering.doubt(tunnel, now)

    def _socket_opened(self, event: SocketOpened, now: float) -> None:
        socket = self.underlay.opened(event)
        if socket is None:
            return
        if socket.ready:
            self._socket_ready(now)
            return
        self.common.timers.set(
            ("route", socket.number),
            now + ROUTE_WAIT,
            lambda at: self._without_route(socket.number, at),
        )

    def _without_route(self, number: int, now: float) -> None:
        if self.underlay.without_route(number) is not None:
            self._socket_ready(now)

    def _socket_ready(self, now: float) -> None:
        if not self.relays.by_name and self.common.memory.relays:
            self.relays.set_home(self.common.memory.relays, now)
        self.moves.socket_ready(now)
        self.reach.look()
        self.keepalive.start(now)
        if not self._greeted:
            self._greeted = True
            self._greet(now)

    def _socket_failed(self, event: SocketFailed, now: float) -> None:
        stream = self.underlay.streams.failed(event)
        socket = stream.socket if stream is not None else self.underlay.failed(event, now)
        if stream is not None:
            stream.owner.stream_failed(event.socket, event.text, now)
        if socket is not None and (stream is None or socket.local is not None):
            self.moves.socket_failed(socket, now)

    def _greet(self, now: float) -> None:
        """After a start: call every peer that was active lately; its keys to us are gone (S4). The
        others find this node at its home relays, where its legs wait to be opened again."""
        since = self.common.clock(now) - RECENT_START
        for known in list(self.common.memory.peers.values()):
            if known.met and known.active_ms > since:
                self.calls.greet(known.name, now)
            else:
                self.relays.reopen(known.grants, Peer(Role.NODE, known.name, known.key), now)

    # -------------------------------------------------------------- the shell

    def _plan_renewal(self, now: float) -> None:
        """Ask for a new certificate from a third of its life on, with jitter (rule C9)."""
        try:
            leaf = self.common.own_leaf()
        except ProtocolError:
            return
        life = (leaf.not_after_ms - leaf.not_before_ms) / 1000
        spent = (self.common.clock(now) - leaf.not_before_ms) / 1000
        chance = self.common.number(2) / 0xFFFF
        wait = life * RENEW_FROM + chance * life / 20 - spent
        if wait <= 0.0:
            wait = chance * min(RENEW_RETRY, max(0.0, life - spent) * RENEW_SPREAD)
        self.common.emit(RenewCertificate(wait))

    def _renewed(self, event: CertificateRenewed, now: float) -> None:
        self.common.identity = replace(self.common.identity, certificates=event.certificates)
        self.common.engine.set_identity(self.common.identity)
        self._plan_renewal(now)
        self.registration.refresh(now)

    def _failed(self, event: CommandFailed | DeviceFailed) -> None:
        what = event.command if isinstance(event, CommandFailed) else "data plane"
        self.common.tell("warning", "failed", command=what, errno=event.errno, text=event.text)
        if what == "RenewCertificate":
            chance = self.common.number(2) / 0xFFFF
            self.common.emit(RenewCertificate(RENEW_RETRY * (0.5 + chance)))

    def _stop(self, event: Stopping, now: float) -> None:
        if self.common.stopping:
            return
        self.registration.deregister(now)
        self.calls.close_all(now)
        self.common.stopping = True
        self.common.timers.cancel("keepalive")
        self.registration.say_state(now)
        self.common.tell("info", "stopping", reason=event.reason)
