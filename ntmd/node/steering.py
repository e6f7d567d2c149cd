"""Choosing the way to a peer: exploring, promotion on proof, doubt, and falling asleep.

The relay leg carries first; every direct pair is challenged on the ladder and takes over once it
answered. A path that falls silent while data leaves is doubted: data goes out twice for a moment,
and whichever way answers carries on (rules C6, S6, S15).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING

from ntmd.node.candidates import merge, own_candidates, promising
from ntmd.node.choice import best_way, key_of
from ntmd.node.common import Common
from ntmd.node.path import RTT_UNKNOWN, Key, PathBook
from ntmd.node.prediction import Allocations
from ntmd.node.probing import Prober, Proof
from ntmd.node.relays import Relays
from ntmd.node.rest import Rest
from ntmd.node.restored import Restored
from ntmd.node.tunnel import Input, Open
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.node.validity import Evidence
from ntmd.proto.messages import CandidateField, CandidateUpdate, Probe
from ntmd.proto.plane import TunnelActivity
from ntmd.proto.timing import (
    DATA_KEY_LIFETIME,
    DIRECT_IDLE,
    KEY_MARGIN,
    REKEY_AFTER,
    REKEY_AFTER_RESPONDER,
    REST_AFTER,
)
from ntmd.proto.types import CandidateKind, Endpoint, Path

if TYPE_CHECKING:
    from ntmd.node.doubt import Doubt
    from ntmd.node.fading import Fading

EXPLORE_PAIRS = 24
PROOF_FRESH = 10.0  # a path proven this recently is not challenged again, seconds
REKEY_PAUSE = 6.0  # two rekeys of one tunnel are at least this far apart, seconds
SAY_AGAIN = 0.3  # candidates are told twice, this far apart: the message has no answer, seconds


class Steering:
    """Decides what each tunnel is sent on."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        relays: Relays,
        tunnels: Tunnels,
        reflexive: Callable[[], dict[int, Endpoint]],
        learn: Callable[[int, Endpoint, float], None],
        rescue: Callable[[Tunnel, float], None],
        allocations: Allocations,
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._relays, self._tunnels, self._allocations = relays, tunnels, allocations
        self._reflexive, self._learn, self.rescue = reflexive, learn, rescue
        self.proved: Callable[[Tunnel, Proof, float], None] = lambda *_: None
        self.carry: Callable[[Tunnel, Path, float], None]
        self.doubts: Doubt
        self.fading: Fading
        self.rest = Rest(common, tunnels, self)
        self.restored = Restored(common, prober, tunnels, self)

    # -------------------------------------------------------------- choosing

    def relay_way(self, tunnel: Tunnel) -> Path | None:
        """The leg to send on: the one at the peer's home relay if it is open."""
        ways = self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)
        return ways[0][1] if ways else None

    def key(self, tunnel: Tunnel) -> Key:
        """How the tunnel's paths are sorted at present."""
        return key_of(tunnel.paths, self._underlay)

    def best(self, tunnel: Tunnel, now: float, fresh: float = 1e9) -> Path | None:
        """The best usable way known to work; a direct one has answered within ``fresh`` seconds."""
        for path in [p for p in tunnel.paths.proven if not self._usable(p)]:
            tunnel.paths.disprove(path)
        key = self.key(tunnel)
        young = PathBook(
            {p: known for p, known in tunnel.paths.proven.items() if now - known.at <= fresh},
            states=tunnel.paths.states,
        )
        return best_way(young, self.relay_way(tunnel), key)

    def confirmed(self, tunnel: Tunnel, arrival: Path, fresh: bool, now: float) -> None:
        """A session was confirmed by something that came in on ``arrival``."""
        if not arrival.relayed:
            tunnel.paths.prove(arrival, tunnel.paths.rtt(arrival) or RTT_UNKNOWN, now)
        primary = tunnel.paths.primary
        if primary is None or fresh or not self._usable(primary):
            self.settle(tunnel, now, arrival)
        if fresh:
            self.say_candidates(tunnel, now)
            self.explore(tunnel, now)
        self.prepare(tunnel, now)
        self._arm_idle(tunnel, now)
        self.rest.watch(tunnel, now)

    def prepare(self, tunnel: Tunnel, now: float) -> None:
        """A relay that is not kept alive may see this node behind a new mapping: tell it first."""
        primary = tunnel.paths.primary
        if primary is not None and primary.relayed:
            self._relays.prepare(self._relays.name_of(primary), now)

    def began(self, tunnel: Tunnel) -> None:
        """A new association: what is under way was sealed for the old one, with its sequences."""
        if tunnel.handle is not None:
            self._prober.cancel(tunnel.handle)

    def _usable(self, path: Path) -> bool:
        return self._underlay.is_open(path.socket)

    def settle(self, tunnel: Tunnel, now: float, arrival: Path | None = None) -> None:
        """Send on the best way that is known to work; on anything plausible if none is."""
        choice = self.best(tunnel, now)
        if choice is None and arrival is not None and arrival.relayed:
            choice = arrival
        if choice is None:
            guesses = self._underlay.ways(tuple(tunnel.candidates))
            choice = guesses[0] if guesses else None
        tunnel.doubted = tunnel.unanswered = None
        self._tunnels.switch(tunnel, (choice,) if choice is not None else ())

    def explore(self, tunnel: Tunnel, now: float) -> None:
        """Challenge every pair of own socket and candidate, and the relay leg for its time."""
        if not tunnel.live or tunnel.handle is None:
            return
        pairs = [] if tunnel.relay_only else self._underlay.ways(tuple(tunnel.candidates))
        relay = self.relay_way(tunnel)
        if relay is not None:
            pairs.insert(0, relay)
        for path in _fairly(pairs)[:EXPLORE_PAIRS]:
            known = tunnel.paths.proven.get(path)
            if known is None or now - known.at > PROOF_FRESH or known.rtt == RTT_UNKNOWN:
                self.challenge(tunnel, path, now)

    def challenge(self, tunnel: Tunnel, path: Path, now: float, purpose: str = "explore") -> None:
        """Send a sealed challenge on one path, unless one is under way there."""
        if tunnel.handle is None or self._prober.under_way(tunnel.handle, path):
            return
        tunnel.paths.trying(path, now)
        self._prober.start(
            tunnel.handle,
            path,
            now,
            lambda proof, at: self.on_proof(tunnel, proof, at),
            lost=lambda at: self._unproven(tunnel, path, at),
            make=lambda nonce: Probe(nonce, spare=self.is_spare(tunnel, path)),
            purpose=purpose,
        )

    def is_spare(self, tunnel: Tunnel, path: Path) -> bool:
        """Whether the path leaves by another link than what carries."""
        primary = tunnel.paths.primary
        return primary is not None and not self._underlay.same_link(primary.socket, path.socket)

    def on_proof(self, tunnel: Tunnel, proof: Proof, now: float) -> None:
        """A challenge of this tunnel was answered."""
        tunnel.heard_at = now
        path = proof.path
        if not self._usable(path):
            return
        tunnel.paths.prove(path, proof.rtt, now)
        if proof.answer.observed is not None and not path.relayed:
            self._learn(path.socket, proof.answer.observed, now)
        if path.relayed:
            self._relays.judge(path, now, dead=False)
        self.proved(tunnel, proof, now)
        self.rest.proved(tunnel, proof)
        if not self.doubts.proved(tunnel, proof, now):
            self._judge(tunnel, path, now)

    def _judge(self, tunnel: Tunnel, path: Path, now: float) -> None:
        primary = tunnel.paths.primary
        if len(tunnel.paths.sending) > 1:
            return  # a move is being settled, by whoever began it
        key = self.key(tunnel)
        if primary is None or (path != primary and tunnel.paths.better(path, key)):
            self._common.tell(
                "info",
                "path promoted",
                peer=tunnel.peer.name,
                path=self.describe(path),
                before=self.describe(primary),
            )
            self.carry(tunnel, path, now)
            self._tunnels.remember(tunnel, None, now)
        elif not path.relayed and tunnel.installed:
            self._tunnels.switch(tunnel, tunnel.paths.sending)

    def _unproven(self, tunnel: Tunnel, path: Path, now: float) -> None:
        """A whole ladder went unanswered on ``path``."""
        if path.relayed:
            tunnel.paths.note(path, Evidence.UNANSWERED)
            if path == tunnel.paths.primary and tunnel.doubted is not None:
                self.rescue(tunnel, now)
            elif path == tunnel.paths.primary:
                self.doubts.doubt(tunnel, now)
            return
        tunnel.paths.disprove(path)
        if path == tunnel.paths.primary:
            self.settle(tunnel, now)
            if self.relay_way(tunnel) is None and not tunnel.paths.proven:
                self.rescue(tunnel, now)

    # -------------------------------------------------------------- candidates

    def say_candidates(self, tunnel: Tunnel, now: float) -> None:
        """Tell the peer where this node may be reached."""
        handle = tunnel.handle
        if handle is None:
            return

        def say(at: float) -> None:
            if tunnel.handle == handle and tunnel.live:
                foretold = self._foretold(tunnel)
                here = own_candidates(self._underlay, self._reflexive(), 8 - len(foretold))
                here += foretold
                told = CandidateUpdate(tunnel.move_seq, here)
                for path in tunnel.paths.sending:
                    if path == tunnel.paths.primary or tunnel.paths.is_proven(path):
                        self._common.engine.tell(handle, told, at, path=path)

        say(now)
        self._common.timers.set(("candidates", tunnel.number), now + SAY_AGAIN, say)

    def _foretold(self, tunnel: Tunnel) -> tuple[CandidateField, ...]:
        """Where the peer may see this node, if the NAT here counts and no way is direct."""
        if tunnel.paths.proven or tunnel.relay_only:
            return ()
        tunnel.foretold = ()
        seen = (CandidateKind.REFLEXIVE, CandidateKind.MAPPED)
        outside = tuple(e for e, kind in tunnel.candidates.items() if kind in seen)
        for way in self._underlay.ways(outside):
            found = self._allocations.foretell(way)
            if found:
                tunnel.foretold = tuple(at.port for at in found)
                return tuple(CandidateField(int(CandidateKind.PREDICTED), at) for at in found)
        return ()

    def candidates_came(
        self, tunnel: Tunnel, candidates: tuple[CandidateField, ...], now: float
    ) -> None:
        """The peer named candidates (already sifted)."""
        if promising(tunnel.candidates, candidates):
            tunnel.relay_only = False
        tunnel.candidates = merge(tunnel.candidates, candidates)
        self.explore(tunnel, now)

    def noticed(self, tunnel: Tunnel, path: Path, now: float) -> None:
        """A sealed frame came directly: the peer can be reached there, perhaps."""
        if path.relayed or path in tunnel.paths.proven:
            return
        tunnel.relay_only = False  # it came through, whatever was expected
        remote = self._underlay.native(path)
        if remote not in tunnel.candidates:
            found = CandidateField(int(CandidateKind.REFLEXIVE), remote)
            tunnel.candidates = merge(tunnel.candidates, (found,))
        self.challenge(tunnel, path, now)

    def legs_changed(self, tunnel: Tunnel, now: float) -> None:
        """A relay leg of the peer has another id, opened, or is gone."""
        relay = self.relay_way(tunnel)
        legs = {  # a tunnel that left a silent relay stays where it is
            way.remote: way
            for name, way in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)
            if not self._relays.by_name[name].draining
        }
        sending: list[Path] = []
        for path in tunnel.paths.sending:
            fresh = legs.get(path.remote, relay) if path.relayed else path
            if fresh is not None and fresh not in sending:
                sending.append(fresh)
        if not sending and relay is not None:
            sending = [relay]
        tunnel.paths.sending = tuple(sending)
        if tunnel.handle is not None and sending:
            self._common.engine.set_primary(tunnel.handle, sending[0], tunnel.move_seq)
        self._tunnels.install(tunnel)

    # -------------------------------------------------------------- while data flows

    def activity(self, tunnel: Tunnel, event: TunnelActivity, now: float) -> None:
        """The plane's running totals: silence, age of the key, idleness."""
        before, tunnel.activity = tunnel.activity, event
        sent = before is None or event.tx_packets > before.tx_packets
        received = before is None or event.rx_packets > before.rx_packets
        pause = now - tunnel.busy_at
        if sent or received:
            tunnel.busy_at = now
        if sent:
            self._rekey_if_due(tunnel, now, pause, alone=not received)
        if sent or received:
            self.rest.stirred(tunnel, now)
        self.doubts.activity(tunnel, before, event, now)
        packets = event.tx_packets + event.rx_packets
        packets -= before.tx_packets + before.rx_packets if before is not None else 0
        self.fading.activity(tunnel, packets, now)

    def doubt(self, tunnel: Tunnel, now: float) -> None:
        """A hint says that the primary may be dead."""
        self.doubts.doubt(tunnel, now, Evidence.REFUSED)

    def _rekey_if_due(self, tunnel: Tunnel, now: float, pause: float, *, alone: bool) -> None:
        """``pause``: since there was data; after another like it the key may not live any more.
        ``alone``: nothing came back, so that the peer may not see that a rekey is due."""
        session = tunnel.session()
        if session is None:
            return
        limit = self._common.settings.rekey_after
        if not session.initiator:
            limit *= REKEY_AFTER_RESPONDER / REKEY_AFTER
        old = now - session.born
        sparse = pause >= REST_AFTER and old + pause >= DATA_KEY_LIFETIME - KEY_MARGIN
        if old >= limit or (sparse and (alone or session.initiator)):
            self.rekey(tunnel, now)

    def _rekey_pause(self) -> float:
        return min(REKEY_PAUSE, self._common.settings.rekey_after * 0.8)

    def rekey(self, tunnel: Tunnel, now: float) -> None:
        """Fresh keys beside the old ones; while relayed, look again for a direct way."""
        if tunnel.handle is None or now - tunnel.rekeyed_at < self._rekey_pause():
            return
        tunnel.rekeyed_at = now
        self._common.engine.rekey(tunnel.handle, now)
        if tunnel.paths.primary is not None and tunnel.paths.primary.relayed:
            self.explore(tunnel, now)

    # -------------------------------------------------------------- falling asleep

    def _arm_idle(self, tunnel: Tunnel, now: float) -> None:
        self._common.timers.set(
            ("idle", tunnel.number),
            max(tunnel.busy_at, now - DIRECT_IDLE) + DIRECT_IDLE,
            lambda at: self._idle(tunnel, at),
        )

    def _idle(self, tunnel: Tunnel, now: float) -> None:
        if not isinstance(tunnel.state, Open):
            return
        if now < tunnel.busy_at + DIRECT_IDLE:  # as it was armed: differences round otherwise
            self._arm_idle(tunnel, now)
            return
        tunnel.paths.lapse()
        self._tunnels.move(tunnel, Input.IDLE, now)
        self.settle(tunnel, now)
        self._tunnels.install(tunnel)

    def forget(self, tunnel: Tunnel) -> None:
        """The association ended."""
        for name in ("idle", "candidates", "follow", "meet"):
            self._common.timers.cancel((name, tunnel.number))
        self.doubts.forget(tunnel)
        self.fading.forget(tunnel)
        self.rest.forget(tunnel)
        self.restored.forget(tunnel)
        if tunnel.handle is not None:
            self._prober.cancel(tunnel.handle)

    def describe(self, path: Path | None) -> str:
        """The path in words."""
        relay = self._relays.name_of(path) if path is not None and path.relayed else ""
        return self._underlay.describe(path, relay)


def _fairly(pairs: list[Path]) -> list[Path]:
    """The same pairs, taking turns among the own sockets, so that none is cut off by a limit."""
    queues: dict[int, list[Path]] = {}
    for path in pairs:
        queues.setdefault(path.socket, []).append(path)
    turns = zip_longest(*queues.values())
    return [path for turn in turns for path in turn if path is not None]
