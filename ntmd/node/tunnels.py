"""The tunnels of this node: one per peer, its facts, and its entry in the data plane."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from ntmd.node.common import Common
from ntmd.node.memory import KnownPeer, Resumption
from ntmd.node.path import PathBook
from ntmd.node.relays import Relays
from ntmd.node.tunnel import Asleep, Awaiting, Closed, Failed, Input, Open, State, step
from ntmd.node.underlay import Underlay
from ntmd.proto.events import Psk, SessionInfo
from ntmd.proto.messages import NatView, RelayGrant, SeenCounters
from ntmd.proto.plane import (
    InstallTunnel,
    PlanePath,
    RemoveTunnel,
    Resend,
    SwitchPath,
    TunnelActivity,
    TunnelEntry,
)
from ntmd.proto.records import Capability
from ntmd.proto.timing import PSK_RESUMPTION_LIFETIME
from ntmd.proto.types import CandidateKind, Endpoint, Path, Peer

ENDPOINTS_KEPT = 8
TUNNELS_KEPT = 1024
ACTIVE_STEP = 60_000  # "last active" is written no more often than this, ms


@dataclass(frozen=True, slots=True)
class Directed:
    """What a coordinator last said of a peer: ``starts`` if this end is to call."""

    at: float
    starts: bool
    nat: NatView
    relays: tuple[str, ...]


@dataclass(slots=True)
class Tunnel:
    """What this node knows of one peer. ``number`` names the tunnel to the data plane."""

    number: int
    peer: Peer
    state: State
    address: bytes = b""
    certificate: bytes = b""
    record: bytes = b""
    dc_sign: bytes = b""
    capabilities: int = 0
    home_relay: str = ""
    relay_only: bool = False  # no direct way can be expected between the networks of both ends
    handle: int | None = None
    association: int = 0
    grants: tuple[RelayGrant, ...] = ()
    candidates: dict[Endpoint, CandidateKind] = field(default_factory=dict)
    direction: Psk | None = None
    direction_until: float = 0.0
    directed: Directed | None = None
    sessions: dict[int, SessionInfo] = field(default_factory=dict)
    in_use: int | None = None
    paths: PathBook = field(default_factory=PathBook)
    move_seq: int = 0
    peer_seq: int = 0
    activity: TunnelActivity | None = None
    busy_at: float = 0.0  # last data either way
    heard_at: float = 0.0  # last authenticated control frame
    met: bool = False
    installed: bool = False
    shown: tuple[PlanePath, ...] = ()  # what the plane was last told to send on
    psk_used: str = ""
    unanswered: float | None = None  # since when data leaves without anything coming back
    doubted: float | None = None  # since when the primary is in doubt
    rekeyed_at: float = 0.0
    in_grace: bool = False
    foretold: tuple[int, ...] = ()  # own ports that the peer was told to try, by prediction

    @property
    def live(self) -> bool:
        """Whether there is an association in which control frames can be sealed."""
        return self.handle is not None and isinstance(self.state, Open | Asleep)

    def session(self) -> SessionInfo | None:
        """The session that data leaves on."""
        return self.sessions.get(self.in_use) if self.in_use is not None else None

    def seen(self) -> SeenCounters | None:
        """What arrived of the peer's data, for Answer, Move and Seen."""
        activity = self.activity
        if activity is None or activity.rx_packets == 0:
            return None
        session = self.sessions.get(activity.session)
        if session is None:
            return None
        received = tuple(((n - 1) % 255 + 1, count) for n, count in activity.received[:8])
        return SeenCounters(session.slot_in, activity.greatest, activity.bitmap, received)


class Tunnels:
    """All tunnels, by peer key, name, address, handle and number."""

    def __init__(self, common: Common, underlay: Underlay, relays: Relays) -> None:
        self._common, self._underlay, self._relays = common, underlay, relays
        self._numbers = itertools.count(1)
        self.by_key: dict[bytes, Tunnel] = {}

    def all(self) -> list[Tunnel]:
        """Every tunnel, in order of creation."""
        return list(self.by_key.values())

    def by_name(self, name: str) -> Tunnel | None:
        """The tunnel to this FQDN."""
        return next((t for t in self.by_key.values() if t.peer.name == name), None)

    def by_address(self, address: bytes) -> Tunnel | None:
        """The tunnel to this virtual address."""
        return next((t for t in self.by_key.values() if t.address == address), None)

    def by_handle(self, handle: int) -> Tunnel | None:
        """The tunnel of an association."""
        return next((t for t in self.by_key.values() if t.handle == handle), None)

    def by_number(self, number: int) -> Tunnel | None:
        """The tunnel that the data plane calls ``number``."""
        return next((t for t in self.by_key.values() if t.number == number), None)

    def ensure(self, peer: Peer, now: float) -> Tunnel:
        """The tunnel to ``peer``; one to an older key of the same name is dropped."""
        tunnel = self.by_key.get(peer.key)
        if tunnel is not None:
            return tunnel
        older = self.by_name(peer.name)
        if older is not None:
            self.drop(older, now)
        if len(self.by_key) >= TUNNELS_KEPT:
            self._make_room(now)
        tunnel = Tunnel(next(self._numbers), peer, Closed(now))
        self.by_key[peer.key] = tunnel
        return tunnel

    def _make_room(self, now: float) -> None:
        """Too many peers: the one without a session that was busy longest ago leaves."""
        idle = [t for t in self.by_key.values() if isinstance(t.state, Closed | Failed | Asleep)]
        if idle:
            self.drop(min(idle, key=lambda t: (t.busy_at, t.number)), now)

    def recall(self, known: KnownPeer, peer: Peer, now: float) -> Tunnel:
        """The tunnel to a peer known from before, with everything that was kept of it."""
        tunnel = self.ensure(peer, now)
        if not tunnel.certificate:
            tunnel.address, tunnel.certificate = known.address, known.certificate
            tunnel.record, tunnel.dc_sign = known.record, known.dc_sign
            tunnel.home_relay, tunnel.grants = known.home_relay, known.grants
            tunnel.met = known.met
            for endpoint in known.endpoints:
                tunnel.candidates.setdefault(endpoint, CandidateKind.REFLEXIVE)
        return tunnel

    def move(self, tunnel: Tunnel, event: Input, now: float, reason: str = "") -> bool:
        """Apply the table; False (and a count) if it has no such move."""
        state = step(tunnel.state, event, now, reason)
        if state is None:
            self._common.counters["tunnel_input_ignored"] += 1
            return False
        if state is not tunnel.state:
            self._common.tell(
                "debug",
                "tunnel state",
                peer=tunnel.peer.name,
                before=type(tunnel.state).__name__,
                after=type(state).__name__,
                input=event.name,
            )
            tunnel.state = state
        if not isinstance(state, Awaiting):
            self._common.timers.cancel(("patience", tunnel.number))
        return True

    def drop(self, tunnel: Tunnel, now: float) -> None:
        """Forget a tunnel altogether."""
        if tunnel.handle is not None:
            self._common.engine.forget(tunnel.handle, now)
        self._relays.drop_peer(tunnel.peer.key, now)
        self._common.emit(RemoveTunnel(tunnel.number))
        self.by_key.pop(tunnel.peer.key, None)

    # -------------------------------------------------------------- the data plane

    def sources(self, tunnel: Tunnel) -> tuple[Path, ...]:
        """Where the peer's datagrams are known to come from, without leg ids."""
        known = dict.fromkeys(Path(p.socket, p.remote) for p in tunnel.paths.proven)
        known.update(dict.fromkeys(Path(p.socket, p.remote) for p in tunnel.paths.sending))
        for _, way in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay):
            known[Path(way.socket, way.remote)] = None
        return tuple(known)

    def install(self, tunnel: Tunnel) -> None:
        """Put the tunnel's present entry into the plane."""
        if len(tunnel.address) != 16 or not tunnel.sessions:
            return
        session = tunnel.session()
        send = session.data_out if session and isinstance(tunnel.state, Open) else None
        indexes = dict.fromkeys(s.own_index for s in tunnel.sessions.values())
        indexes.update(dict.fromkeys(self._relays.deliveries(tunnel.peer.key)))
        latest = session or list(tunnel.sessions.values())[-1]
        entry = TunnelEntry(
            tunnel=tunnel.number,
            peer_address=tunnel.address,
            own_indexes=tuple(indexes),
            receive=tuple(s.data_in for s in tunnel.sessions.values()),
            send=send,
            peer_index=latest.peer_index,
            paths=self._for_plane(tunnel),
            sources=self.sources(tunnel),
            takes_partial=bool(tunnel.capabilities & Capability.TAKES_PARTIAL),
        )
        tunnel.installed = True
        tunnel.shown = entry.paths
        self._common.emit(InstallTunnel(entry))

    def _for_plane(self, tunnel: Tunnel) -> tuple[PlanePath, ...]:
        """What is sent on, with the limit of those that are not proven (rule C6)."""
        allowed = tunnel.paths.allowances
        return tuple(
            replace(self._underlay.for_plane(path), allowance=allowed.get(path))
            for path in tunnel.paths.sending
        )

    def switch(self, tunnel: Tunnel, paths: tuple[Path, ...]) -> None:
        """Send on ``paths`` from now on; control frames follow the first. Nothing leaves twice over
        a metered link (rule N8)."""
        paths = paths[:1] + tuple(p for p in paths[1:] if not self._underlay.metered(p.socket))
        tunnel.paths.send_on(paths, self._common.now)
        if tunnel.handle is not None and paths:
            self._common.engine.set_primary(tunnel.handle, paths[0], tunnel.move_seq)
        self.refresh(tunnel)

    def refresh(self, tunnel: Tunnel) -> None:
        """Tell the plane if what is sent on, or what is known of it, has changed."""
        shown = self._for_plane(tunnel)
        if tunnel.installed and shown != tunnel.shown:
            tunnel.shown = shown
            self._common.emit(SwitchPath(tunnel.number, shown, self.sources(tunnel)))

    def resend(self, tunnel: Tunnel, seen: SeenCounters | None, *, again: bool) -> bool:
        """After an outage: what the peer's report shows missing leaves once more (rule S14);
        ``again``: what a later report shows to have been lost since. False if ``seen`` says nothing
        of a session in use."""
        wished = False
        for session in tunnel.sessions.values():
            if seen is not None and session.slot_out == seen.slot and tunnel.installed:
                number = session.data_out.session
                wish = Resend(tunnel.number, number, seen.greatest, seen.bitmap, again)
                self._common.emit(wish)
                wished = True
        return wished

    def remove(self, tunnel: Tunnel) -> None:
        """Take the tunnel out of the plane; its facts stay."""
        tunnel.sessions.clear()
        tunnel.in_use = None
        tunnel.activity = None
        if tunnel.installed:
            tunnel.installed = False
            self._common.emit(RemoveTunnel(tunnel.number))

    # -------------------------------------------------------------- memory

    def remember(self, tunnel: Tunnel, session: SessionInfo | None, now: float) -> None:
        """Keep what a later call needs without a coordinator (rules C4, S4)."""
        memory = self._common.memory
        known = memory.peers.get(tunnel.peer.name)
        resumption = known.resumption if known and known.key == tunnel.peer.key else ()
        if session is not None:
            fresh = Resumption(
                session.resume.id,
                session.resume.secret,
                self._common.clock(now) + int(PSK_RESUMPTION_LIFETIME * 1000),
            )
            if not resumption or resumption[0].id != fresh.id:
                resumption = (fresh, *resumption)[:2]
        direct = [self._underlay.native(p) for p in reversed(tunnel.paths.proven)]
        endpoints = tuple(dict.fromkeys((*direct, *tunnel.candidates)))[:ENDPOINTS_KEPT]
        peer = KnownPeer(
            tunnel.peer.name,
            tunnel.peer.key,
            tunnel.address,
            tunnel.certificate,
            tunnel.record,
            tunnel.dc_sign,
            endpoints,
            resumption,
            tunnel.grants,
            tunnel.home_relay,
            self._common.clock(now) if session is not None else (known.active_ms if known else 0),
            tunnel.met,
        )
        same = known is not None and replace(known, active_ms=peer.active_ms) == peer
        if same and known is not None and peer.active_ms - known.active_ms < ACTIVE_STEP:
            return
        memory.keep_peer(peer)
