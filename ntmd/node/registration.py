"""The node and its coordinator: register, refresh, notice silence (Registration of the paper).

The coordinator gives the lasting virtual address, the signed record, the home relays, and says
which source it saw. While it is silent the node is degraded: tunnels go on, nothing is torn down.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace

from ntmd.node.candidates import MAX_PER_PEER, own_candidates
from ntmd.node.commands import ConfigureDevice, StateChanged
from ntmd.node.common import Common
from ntmd.node.nat import NatTests
from ntmd.node.probing import Prober
from ntmd.node.requests import Requests
from ntmd.node.underlay import Underlay
from ntmd.node.uplink import Seen, Uplink
from ntmd.proto.certs import check_leaf, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.messages import (
    CandidateField,
    Deregister,
    Move,
    MoveCause,
    Register,
    Registered,
    RelayInfo,
    Reply,
    Status,
)
from ntmd.proto.records import check_record
from ntmd.proto.timing import REGISTRATION_LEASE, REGISTRATION_REFRESH
from ntmd.proto.types import Endpoint, Role, path_id

RETRY = 5.0  # after a refusal without a hint, seconds
DNS_HOST = 0x53
CHECK_PAUSE = 2.0  # all mappings are looked at once in this time, however many peers are silent
CHECKED_LATELY = 10.0  # how long after a look at all mappings news of one is urgent, seconds


class Registration:
    """Keeps this node known at its coordinator."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        requests: Requests,
        *,
        reflexive: Callable[[], dict[int, Endpoint]],
        relays_known: Callable[[tuple[RelayInfo, ...], float], None],
        seen: Seen,
    ) -> None:
        self._common, self._underlay, self._requests = common, underlay, requests
        self._prober, self._reflexive = prober, reflexive
        self._relays_known = relays_known
        self._asking = False
        self._again = False
        self._configured: ConfigureDevice | None = None
        self._state = ""
        self.last_cause = MoveCause.NETWORK_CHANGED
        self.home_relay = ""
        self.relay_rtts: Callable[[], tuple[tuple[str, int], ...]] = lambda: ()
        self.complaint = ""
        endpoints = tuple(dict.fromkeys((*common.memory.coordinator, *common.home.endpoints)))
        self.uplink = Uplink(
            common,
            underlay,
            prober,
            common.home.dc,
            endpoints,
            up=self._up,
            down=self._down,
            announce=self._announce,
            seen=seen,
        )
        self.uplink.race.endpoints = common.memory.coordinator_tls or common.home.tls
        self._told: tuple[CandidateField, ...] = ()
        self._checked = -1e9
        self.nat = NatTests(common, underlay, prober, self.uplink, self.refresh)
        self.uplink.race.promoted = self.nat.again

    def configure(self) -> None:
        """Wish for the TUN once the address is known; again only if something differs."""
        memory = self._common.memory
        if len(memory.address) != 16:
            return
        network = self._common.virtual_network()
        dns = (int(network.network_address) + DNS_HOST).to_bytes(16, "big")
        domains = self._common.domains()
        wish = ConfigureDevice(
            memory.address, dns, str(network), self._common.settings.mtu, domains
        )
        if wish != self._configured:
            self._configured = wish
            self._common.emit(wish)

    def state(self) -> str:
        """joining, up, degraded, offline or down (``docs/operations.md``)."""
        if self._common.stopping:
            return "down"
        if not self._underlay.usable():
            return "offline" if self._common.memory.address else "joining"
        if not self._common.memory.address:
            return "joining"
        return "up" if self.uplink.up and not self.complaint else "degraded"

    def say_state(self, now: float) -> None:
        """Emit StateChanged if the state is another one than last said."""
        state = self.state()
        if state != self._state:
            self._state = state
            self._common.emit(StateChanged(state, self.complaint))

    # -------------------------------------------------------------- events of the association

    def _up(self, first: bool, now: float) -> None:
        path = self.uplink.path
        if path is not None and not self.uplink.race.carries:
            stored = self._common.memory.coordinator
            there = self._underlay.native(path)
            rest = tuple(e for e in stored if e != there)
            self._common.memory.keep_coordinator((there, *rest)[:8])
        self.refresh(now)

    def _down(self, now: float) -> None:
        self._common.tell("warning", "coordinator does not answer", domain=self._common.home.domain)
        self.say_state(now)

    def _announce(self, now: float) -> None:
        """The uplink took another path: a sealed Move, and a fresh registration on it."""
        uplink = self.uplink
        handle, path, seq = uplink.handle, uplink.path, uplink.seq
        if handle is None or path is None:
            return
        cause = int(self.last_cause)

        def make(nonce: int) -> Move:
            here = own_candidates(self._underlay, self._reflexive(), 8)
            return Move(seq, path_id(path.socket), cause, nonce, here, False)

        self._prober.start(
            handle,
            path,
            now,
            lambda proof, at: uplink.heard(proof.path, at),
            lost=uplink.silent,
            make=make,
            purpose="move",
        )
        self._asking = False
        self.refresh(now)

    def check_mapping(self, others: list[Uplink], now: float) -> None:
        """Another server sees a new source: has the way to the coordinator a new one too?"""
        path = self.uplink.path
        if path is None or path.socket not in self.uplink.observed:
            return
        at = self.uplink.observed_at.get(path.socket, 0.0)
        if any(other.observed_at.get(path.socket, 0.0) > at for other in others):
            self.uplink.challenge(now, lambda *_: None)

    def check_all(self, now: float) -> None:
        """A peer does not answer: do we still appear where the coordinator tells it that we are?"""
        if now - self._checked >= CHECK_PAUSE:
            self._checked = now
            self._look_at_mappings(now)
        self.seen(now)

    def _look_at_mappings(self, now: float) -> None:
        uplink = self.uplink
        uplink.challenge(now, lambda *_: None)
        for socket in self._underlay.usable():
            if uplink.path is not None and socket.number != uplink.path.socket:
                uplink.warm(socket.number, now)

    # -------------------------------------------------------------- registering

    def _candidates(self) -> tuple[CandidateField, ...]:
        return own_candidates(self._underlay, self._reflexive(), MAX_PER_PEER)

    def seen(self, now: float) -> None:
        """A server sees another source than before: while somebody needs us there, the coordinator
        is told at once; otherwise with the next refresh."""
        if now < self._checked + CHECKED_LATELY and self._candidates() != self._told:
            self.refresh(now)

    def refresh(self, now: float) -> None:
        """Register now, or again right after the reply under way."""
        uplink = self.uplink
        if uplink.handle is None or not uplink.up or self._common.stopping:
            return
        if self._asking:
            self._again = True
            return
        self._asking, self._again = True, False
        self._told = self._candidates()
        request = Register(
            0,
            self._told,
            self.nat.view(),
            self._common.identity.capabilities,
            self.home_relay,
            int(REGISTRATION_LEASE),
            self.relay_rtts(),
        )
        handle = uplink.handle
        self._requests.ask(handle, request, now, self._replied)
        wait = REGISTRATION_REFRESH * (1 + self._common.number(2) / 0x4_0000)
        self._common.timers.set("register", now + wait, self.refresh)

    def _replied(self, reply: Reply | None, now: float) -> None:
        self._asking = False
        if reply is None:
            self.uplink.silent(now)
            return
        if not isinstance(reply, Registered):
            self._refused("the coordinator answered something else", RETRY, now)
            return
        if reply.status != Status.OK:
            pause = max(reply.retry_after_ms / 1000, RETRY)
            self._refused(reply.text or Status(reply.status).name.lower(), pause, now)
            return
        try:
            self._accept(reply, now)
        except ProtocolError as error:
            self._common.refuse(error)
            self._refused(f"the coordinator's answer does not verify ({error.kind})", RETRY, now)

    def _refused(self, why: str, pause: float, now: float) -> None:
        self.complaint = why
        self._common.tell("warning", "registration refused", why=why)
        self._common.timers.set("register", now + pause, self.refresh)
        self.say_state(now)

    def _accept(self, reply: Registered, now: float) -> None:
        common = self._common
        common.clock.learn(reply.platform_ms, now)
        common.engine.set_slack(0)
        common.memory.keep_clock(reply.platform_ms)
        dc_sign = reply.dc_sign or common.memory.dc_sign or common.home.dc_sign
        leaf = parse_leaf(dc_sign)
        now_ms = common.clock(now)
        check_leaf(leaf, common.trust, role=Role.DC_SIGN, name=None, now_ms=now_ms)
        own = common.own_leaf()
        record = check_record(
            reply.record, self._platform_id(), own.name, own.key, leaf, now_ms, domain=own.domain
        )
        if record.address != reply.address:
            raise ProtocolError("record_address")
        if ipaddress.IPv6Address(record.address) not in common.virtual_network():
            raise ProtocolError("record_prefix")
        common.memory.keep_self(record.address, reply.record, dc_sign, reply.domains)
        common.identity = replace(common.identity, record=reply.record)
        common.engine.set_identity(common.identity)
        self.complaint = ""
        self.configure()
        changed = False
        if self.uplink.path is not None:
            changed = self.uplink.saw(self.uplink.path.socket, reply.observed, now)
        if reply.tls:
            common.memory.keep_coordinator_tls(reply.tls)
            self.uplink.race.endpoints = reply.tls
        self._relays_known(reply.relays, now)
        self.nat.run(reply.probe_endpoints, now)
        self.say_state(now)
        if self._again or changed:
            self._again = False
            self.refresh(now)

    def _platform_id(self) -> bytes:
        return next(iter(self._common.trust.anchors.values())).platform_id

    # -------------------------------------------------------------- the end

    def deregister(self, now: float) -> None:
        """Tell the coordinator that the node goes down."""
        if self.uplink.handle is not None and self._common.engine.established(self.uplink.handle):
            self._requests.ask(self.uplink.handle, Deregister(0), now, lambda *_: None)
        self._common.timers.cancel("register")
        self.uplink.close(now)
