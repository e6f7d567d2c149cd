"""Setting a tunnel up, waking it, and ending it: from a wish to a confirmed session.

Tunnel Requests go to all direct candidates and over the relay leg at the same time; whatever is
answered first carries. A peer known from before is called at once, while the coordinator is asked
beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ntmd.node.candidates import Pauses
from ntmd.node.common import Common
from ntmd.node.policy import offered_psks
from ntmd.node.relays import Relays
from ntmd.node.routes import verify_known
from ntmd.node.tunnel import (
    Asking,
    Asleep,
    Awaiting,
    Calling,
    Closed,
    Failed,
    Input,
    Open,
    Waking,
)
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import CallFailed, Established, PeerClosed, SessionReady
from ntmd.proto.messages import CloseReason, Status
from ntmd.proto.plane import ParkStreams, ReleaseParked
from ntmd.proto.records import choose_suite
from ntmd.proto.timing import (
    DATA_KEY_LIFETIME,
    EXPIRY_GRACE,
    HANDSHAKE_LIFETIME,
    KEY_MARGIN,
    PSK_SPENT_LINGER,
)
from ntmd.proto.types import Path, Peer, PskKind, Role

if TYPE_CHECKING:
    from ntmd.node.direction import Directions
    from ntmd.node.names import Names
    from ntmd.node.steering import Steering

PATIENCE = 1.0  # the caller waits this long for a peer that was directed to start, seconds
HELP_AFTER = 0.4  # a call unanswered for this long doubts the own mappings too, seconds
REFUSED_GRACE = 1.5  # a call goes on this long although the coordinator knows no way, seconds


class Calls:
    """Begins and ends sessions with peers. ``wire`` is called once before anything else."""

    directions: Directions
    names: Names
    steering: Steering

    def __init__(
        self, common: Common, underlay: Underlay, relays: Relays, tunnels: Tunnels
    ) -> None:
        self._common, self._underlay = common, underlay
        self._relays, self._tunnels = relays, tunnels
        self.pauses = Pauses()

    def wire(
        self,
        directions: Directions,
        names: Names,
        steering: Steering,
        check_mappings: Callable[[float], None],
    ) -> None:
        """Make the parts known that in turn know this one."""
        self.directions, self.names, self.steering = directions, names, steering
        self._check_mappings = check_mappings

    # -------------------------------------------------------------- wishes

    def want_name(self, name: str, now: float) -> None:
        """A program wants this FQDN."""
        tunnel = self._tunnels.by_name(name) or self._recall(name, now)
        if tunnel is not None:
            self._want(tunnel, now)
        else:
            self.directions.ask(name, b"", now)

    def want_address(self, address: bytes, now: float) -> None:
        """A packet waits for this virtual address."""
        if address == self._common.memory.address:
            self._common.emit(ReleaseParked(address))
            return
        known = self._common.memory.by_address(address)
        tunnel = self._tunnels.by_address(address)
        if tunnel is None and known is not None:
            tunnel = self._recall(known.name, now)
        if tunnel is not None:
            self._want(tunnel, now)
        else:
            self.directions.ask("", address, now)

    def _recall(self, name: str, now: float) -> Tunnel | None:
        """A tunnel from what is kept of the peer, if that still holds."""
        known = self._common.memory.peers.get(name)
        if known is None:
            return None
        grace = int(EXPIRY_GRACE * 1000) if known.resumption else 0
        try:
            found = verify_known(self._common, known, now, grace)
        except ProtocolError as error:
            self._common.refuse(error)
            return None
        tunnel = self._tunnels.recall(known, found.peer, now)
        tunnel.capabilities = found.record.capabilities
        if tunnel.grants:
            self._relays.want(tunnel.grants, tunnel.peer, now)
        return tunnel

    def _want(self, tunnel: Tunnel, now: float) -> None:
        state = tunnel.state
        if isinstance(state, Open):
            if not tunnel.paths.sending:
                self.steering.settle(tunnel, now)
            self._tunnels.install(tunnel)
        elif isinstance(state, Asleep):
            self._wake(tunnel, now)
        elif isinstance(state, Calling | Waking | Awaiting | Asking):
            self.directions.wanted(now)
        elif isinstance(state, Failed) and now < state.until:
            self._give_up(tunnel, Status.PEER_OFFLINE, state.reason, now)
        elif tunnel.met and tunnel.certificate:
            self._tunnels.move(tunnel, Input.WANTED_KNOWN, now)
            self.call(tunnel, now)
            self.directions.ask(tunnel.peer.name, b"", now)
        else:
            self._tunnels.move(tunnel, Input.WANTED, now)
            self.directions.ask(tunnel.peer.name, b"", now)

    def _wake(self, tunnel: Tunnel, now: float) -> None:
        """A packet waits for a sleeping tunnel: reuse a living key, make fresh ones beside it."""
        for name, _ in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)[:1]:
            self._relays.prepare(name, now)
        session = tunnel.session()
        tunnel.busy_at = now
        self.steering.settle(tunnel, now)
        young = session is not None and now - session.born < DATA_KEY_LIFETIME - KEY_MARGIN
        if young and tunnel.paths.sending:
            self._tunnels.move(tunnel, Input.WOKEN, now)
            self._tunnels.install(tunnel)
        else:
            self._tunnels.move(tunnel, Input.WANTED_KNOWN, now)
        self.call(tunnel, now)
        self.steering.explore(tunnel, now)

    def _help(self, tunnel: Tunnel, now: float) -> None:
        """Silence: our NAT may map anew, so that no relay knows us; the coordinator may know."""
        if not isinstance(tunnel.state, Calling | Waking):
            return
        for name, _ in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)[:2]:
            self._relays.renew(name, now)
        self._check_mappings(now)
        if not isinstance(tunnel.state, Waking):
            return
        told = tunnel.directed.at if tunnel.directed is not None else -1e9
        if now - told >= (now - tunnel.state.since) / 2:  # so the pauses grow with the silence
            self.directions.ask(tunnel.peer.name, b"", now)
        self._call_for_help(tunnel, now)

    def _call_for_help(self, tunnel: Tunnel, now: float) -> None:
        self._common.timers.set(
            ("help", tunnel.number), now + HELP_AFTER, lambda at: self._help(tunnel, at)
        )

    def greet(self, name: str, now: float) -> None:
        """Call a peer of an earlier life of this node, without asking anybody."""
        tunnel = self._tunnels.by_name(name) or self._recall(name, now)
        if tunnel is not None and isinstance(tunnel.state, Closed):
            self._tunnels.move(tunnel, Input.WANTED_KNOWN, now)
            self.call(tunnel, now)

    # -------------------------------------------------------------- directed

    def directed(self, tunnel: Tunnel, start: bool, now: float, *, caller: bool) -> None:
        """The coordinator gave a way; ``caller`` says whether this node had asked."""
        event = Input.DIRECTED_TO_CALL if start else Input.DIRECTED_TO_WAIT
        self._tunnels.move(tunnel, event, now)
        state = tunnel.state
        if isinstance(state, Open):
            self.steering.explore(tunnel, now)
            self._answer_names(tunnel, now)
        elif isinstance(state, Calling | Waking):
            self.call(tunnel, now)
        elif isinstance(state, Awaiting):
            self.directions.wanted(now)
            if caller:
                self.directions.open_nat(tunnel, now)
            wait = PATIENCE if caller else HANDSHAKE_LIFETIME
            self._common.timers.set(
                ("patience", tunnel.number),
                now + wait,
                lambda at: self._impatient(tunnel, caller, at),
            )

    def _impatient(self, tunnel: Tunnel, caller: bool, now: float) -> None:
        if not isinstance(tunnel.state, Awaiting):
            return
        if caller:
            self._tunnels.move(tunnel, Input.PATIENCE_OVER, now)
            self.call(tunnel, now)
        else:
            self._tunnels.move(tunnel, Input.STOPPED, now)

    def refused(self, name: str, address: bytes, status: Status, text: str, now: float) -> None:
        """The coordinator knows no way."""
        tunnel = self._tunnels.by_name(name) if name else self._tunnels.by_address(address)
        if tunnel is not None and isinstance(tunnel.state, Calling | Waking | Awaiting):
            at = tunnel.state.since + REFUSED_GRACE
            if status is not Status.COORDINATOR_UNREACHABLE:
                self._common.timers.set(
                    ("refused", tunnel.number),
                    max(at, now),
                    lambda when: self._refuse_call(tunnel, status, text, when),
                )
            return
        if tunnel is not None and isinstance(tunnel.state, Asking):
            self._tunnels.move(tunnel, Input.REFUSED, now, text)
            self._give_up(tunnel, status, text, now)
        elif tunnel is not None and isinstance(tunnel.state, Open):
            return
        else:
            if name:
                self.names.unknown(name, status, text, now)
            if address:
                self._common.emit(ReleaseParked(address))

    def _refuse_call(self, tunnel: Tunnel, status: Status, text: str, now: float) -> None:
        if isinstance(tunnel.state, Calling | Waking):
            self._tunnels.move(tunnel, Input.CALL_FAILED, now, text or status.name.lower())
            self._give_up(tunnel, status, text, now)

    def _give_up(self, tunnel: Tunnel, status: Status, text: str, now: float) -> None:
        self.names.unknown(tunnel.peer.name, status, text, now)
        if tunnel.address:
            self._common.emit(ReleaseParked(tunnel.address))

    # -------------------------------------------------------------- the handshake

    def ways(self, tunnel: Tunnel) -> list[Path]:
        """Everything a Tunnel Request goes out on: the relay leg first, then all candidates."""
        found = [w for _, w in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)]
        if not tunnel.relay_only:
            found.extend(self._underlay.ways(tuple(tunnel.candidates)))
        return list(dict.fromkeys(found))

    def _unpaused(self, ways: list[Path], now: float) -> list[Path]:
        return [w for w in ways if w.relayed or not self.pauses.paused(w.remote, now)]

    def call(self, tunnel: Tunnel, now: float) -> None:
        """Send the Tunnel Request on every way there is; later ways join by ``leg_changed``."""
        self.directions.wanted(now)
        ways = self._unpaused(self.ways(tunnel), now)
        if not ways:
            self._common.timers.set(
                ("no way", tunnel.number),
                now + HANDSHAKE_LIFETIME,
                lambda at: self._no_way(tunnel, at),
            )
            return
        for way in ways:
            tunnel.paths.trying(way, now)
        psks = offered_psks(self._common, tunnel, now)
        suite = choose_suite(self._common.identity.capabilities, tunnel.capabilities)
        tunnel.handle = self._common.engine.call(tunnel.peer, ways, now, psks, suite)
        self._call_for_help(tunnel, now)

    def _no_way(self, tunnel: Tunnel, now: float) -> None:
        if isinstance(tunnel.state, Calling | Waking):
            text = "neither a common address family nor a relay"
            self._tunnels.move(tunnel, Input.CALL_FAILED, now, text)
            self._give_up(tunnel, Status.PEER_OFFLINE, text, now)

    def leg_changed(self, peer: Peer, now: float) -> None:
        """A relay leg to the peer opened, closed, or got another id."""
        tunnel = self._tunnels.by_key.get(peer.key)
        if tunnel is None:
            return
        if isinstance(tunnel.state, Calling | Waking):
            relayed = [w for w in self.ways(tunnel) if w.relayed]
            if relayed and tunnel.handle is not None:
                self._common.engine.widen(tunnel.handle, relayed, now)
            elif relayed:
                self.call(tunnel, now)
        if tunnel.installed:
            self.steering.legs_changed(tunnel, now)

    def session_ready(self, event: SessionReady, now: float) -> None:
        """Keys exist, not confirmed yet: receive with them."""
        tunnel = self._tunnel_of(event.remote.leaf.key, now)
        if tunnel is None:
            return
        tunnel.handle = event.handle
        tunnel.sessions[event.session.number] = event.session
        self._tunnels.install(tunnel)

    def _tunnel_of(self, key: bytes, now: float) -> Tunnel | None:
        tunnel = self._tunnels.by_key.get(key)
        if tunnel is None:
            known = self._common.memory.by_key(key)
            if known is not None:
                peer = Peer(Role.NODE, known.name, key)
                tunnel = self._tunnels.recall(known, peer, now)
                self._relays.want(tunnel.grants, peer, now)  # to send to it at its own home relay
        return tunnel

    def established(self, event: Established, now: float) -> None:
        """A session with a peer is confirmed: it may carry, and names are answered."""
        tunnel = self._tunnel_of(event.remote.leaf.key, now)
        if tunnel is None or len(tunnel.address) != 16:
            self._common.engine.close(event.handle, now, CloseReason.REFUSED)
            return
        tunnel.handle = event.handle
        tunnel.association = event.session.association
        if event.first:
            self.steering.began(tunnel)
            tunnel.move_seq = tunnel.peer_seq = 0
            tunnel.paths.renew()
        tunnel.sessions[event.session.number] = event.session
        tunnel.in_use = tunnel.in_use or event.session.number
        tunnel.capabilities = event.remote.capabilities or tunnel.capabilities
        tunnel.met = True
        tunnel.in_grace = event.remote.in_grace
        tunnel.heard_at = tunnel.busy_at = now
        tunnel.psk_used = _psk_word(event)
        asleep = not isinstance(tunnel.state, Open)
        self._tunnels.move(tunnel, Input.CONFIRMED, now)
        self._common.timers.cancel(("refused", tunnel.number))
        self._spend(tunnel, event, now)
        if not event.path.relayed:
            self.pauses.answered(event.path.remote)
        self.steering.confirmed(tunnel, event.path, asleep or event.first, now)
        self._tunnels.install(tunnel)
        self._tunnels.remember(tunnel, event.session, now)
        self._answer_names(tunnel, now)

    def _spend(self, tunnel: Tunnel, event: Established, now: float) -> None:
        """The coordinator's psk is spent by its first confirmed session (rule C4)."""
        used = event.psk
        if used is None or tunnel.direction is None or used.id != tunnel.direction.id:
            return
        tunnel.direction_until = min(tunnel.direction_until, now + PSK_SPENT_LINGER)

        def erase(at: float) -> None:
            if tunnel.direction is not None and tunnel.direction.id == used.id:
                tunnel.direction = None

        self._common.timers.set(("spent", used.id), now + PSK_SPENT_LINGER, erase)

    def _answer_names(self, tunnel: Tunnel, now: float) -> None:
        self.names.known(tunnel.peer.name, tunnel.address, now)

    def in_use(self, handle: int, number: int, now: float) -> None:
        """Data is to leave on another session."""
        tunnel = self._tunnels.by_handle(handle)
        if tunnel is None or number not in tunnel.sessions:
            return
        before, new = tunnel.session(), tunnel.sessions[number]
        if before is not None and before.association != new.association and tunnel.installed:
            self._common.emit(ParkStreams(tunnel.number))  # the peer came back without its keys
        tunnel.in_use = number
        self._tunnels.install(tunnel)

    def sessions_gone(self, handle: int, numbers: tuple[int, ...], now: float) -> None:
        """Keys to erase; without a data key the tunnel sleeps."""
        tunnel = self._tunnels.by_handle(handle)
        if tunnel is None:
            return
        others = any(number not in numbers for number in tunnel.sessions)
        if tunnel.in_use in numbers and others and tunnel.installed:
            self._common.emit(ParkStreams(tunnel.number))
        for number in numbers:
            tunnel.sessions.pop(number, None)
        if tunnel.in_use not in tunnel.sessions:
            tunnel.in_use = None
            if isinstance(tunnel.state, Open):
                self._tunnels.move(tunnel, Input.IDLE, now)
        if tunnel.sessions:
            self._tunnels.install(tunnel)
        else:
            self._tunnels.remove(tunnel)

    # -------------------------------------------------------------- ends

    def failed(self, event: CallFailed, now: float) -> None:
        """A handshake came to nothing."""
        tunnel = self._tunnels.by_handle(event.handle)
        if tunnel is None or not isinstance(tunnel.state, Calling | Waking):
            return
        if self._underlay.usable():
            self.pauses.failed(tuple(tunnel.candidates), now)
        self._tunnels.move(tunnel, Input.CALL_FAILED, now, event.reason)
        self._give_up(tunnel, Status.PEER_OFFLINE, event.reason, now)

    def peer_closed(self, event: PeerClosed, now: float) -> None:
        """The peer ended the session."""
        tunnel = self._tunnels.by_handle(event.handle)
        if tunnel is None:
            return
        self._tunnels.move(tunnel, Input.PEER_CLOSED, now)
        self.steering.forget(tunnel)
        self._tunnels.remove(tunnel)
        tunnel.handle = None
        tunnel.paths.sending = ()
        tunnel.paths.lapse()

    def close_all(self, now: float) -> None:
        """This node goes down: tell every peer."""
        for tunnel in self._tunnels.all():
            if tunnel.handle is not None and self._common.engine.established(tunnel.handle):
                self._common.engine.close(tunnel.handle, now, CloseReason.DOWN)
            self._tunnels.move(tunnel, Input.STOPPED, now)
            self._tunnels.remove(tunnel)


def _psk_word(event: Established) -> str:
    if event.psk is None:
        return "none"
    try:
        return PskKind(event.psk.kind).name.lower()
    except ValueError:
        return "unknown"
