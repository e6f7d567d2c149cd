"""Doubt: a path falls silent while data leaves, or does not answer when it is asked.

Three steps, on evidence only. *Suspicion*: the silence is longer than usual; the path and every
other way are challenged, nothing else changes. *Doubt*: it has lasted max(3 RTT, 200 ms); data
leaves on two ways, on different links where there are two. *Verdict*: so much stays out that loss
does not explain it (the chance is below e^-9), and another way answers. If the own link shows life,
only this tunnel takes the other way; if it does not and another link does, the whole node moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ntmd.node.chance import CERTAIN, nats, reckoned
from ntmd.node.common import Common
from ntmd.node.links import Links
from ntmd.node.lull import TICK, Lull
from ntmd.node.path import RTT_UNKNOWN
from ntmd.node.probing import Prober, Proof
from ntmd.node.relays import Relays
from ntmd.node.steering import Steering
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.node.uplink import Uplink
from ntmd.node.validity import Evidence
from ntmd.proto.messages import Probe, SeenCounters
from ntmd.proto.plane import TunnelActivity
from ntmd.proto.timing import (
    ACTIVITY_INTERVAL,
    DOUBT_LADDER,
    DOUBT_SECONDS,
    PATH_CHECK,
    PATH_SET,
    SEEN_INTERVAL,
    SILENCE_FLOOR,
)
from ntmd.proto.types import Path

DENSE = 3  # packets per report from which on a flow counts as steady
SUSPICIOUS = 0.4  # of the silence that makes a path doubtful
LOOK_AGAIN = 1.0  # after a direct path gave way to the relay, seconds
SMOOTH = 0.2  # weight of the newest report


@dataclass(slots=True)
class _Watch:
    """What is watched of one tunnel. ``rate``: data per second from the peer while it was well;
    ``loss``: share of datagrams lost, 0 to 1, the worse of the two directions."""

    rate: float = 0.0
    loss: float = 0.0
    socket: int = 0  # of the own link in use ...
    heard: float = 0.0  # ... and when the peer was last heard on it
    told: tuple[int, int, int] = (0, 0, 0)  # slot, greatest, received of the last Seen
    checked: float = -1e9
    since: float | None = None  # of the suspicion
    primary: Path | None = None
    answered: dict[Path, float] = field(default_factory=dict)
    report: SeenCounters | None = None  # of the last answer: what had arrived at the peer
    links: dict[int, float] = field(default_factory=dict)  # other sockets on which a server answers


class Doubt:
    """Watches the paths in use."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        prober: Prober,
        relays: Relays,
        tunnels: Tunnels,
        steering: Steering,
        links: Links,
        server: Callable[[], Uplink],
        coordinator: Uplink,
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._relays, self._tunnels, self._steering = relays, tunnels, steering
        self._links, self._server, self._coordinator = links, server, coordinator
        self._watched: dict[int, _Watch] = {}
        self.small_passes: Callable[[Tunnel, float], None] = lambda *_: None  # after silence
        self._lull = Lull(common, links, prober, server, self._ask_server, self.loss)

    def loss(self, tunnel: Tunnel) -> float:
        """The share of its datagrams that gets lost, the worse of the two directions, 0 to 1."""
        return self._watch(tunnel).loss

    def _watch(self, tunnel: Tunnel) -> _Watch:
        return self._watched.setdefault(tunnel.number, _Watch())

    def forget(self, tunnel: Tunnel) -> None:
        """The association ended."""
        self._watched.pop(tunnel.number, None)
        self._lull.forget(tunnel)
        for name in ("doubt", "suspect", "look"):
            self._common.timers.cancel((name, tunnel.number))

    # -------------------------------------------------------------- evidence

    def activity(
        self, tunnel: Tunnel, before: TunnelActivity | None, event: TunnelActivity, now: float
    ) -> None:
        """Running totals came in."""
        self._links.carried(before, event, tunnel)
        sent = event.tx_packets - (before.tx_packets if before else 0)
        came = event.rx_packets - (before.rx_packets if before else 0)
        watch, primary = self._watch(tunnel), tunnel.paths.primary
        if primary is not None and primary.socket != watch.socket:
            watch.socket, watch.heard, tunnel.unanswered = primary.socket, now, None
        if (
            came > 0
            and primary is not None
            and self._links.heard_since(primary.socket, watch.heard)
        ):
            watch.heard = min(event.last_rx, self._links.last(primary.socket))
        heard = watch.heard
        if watch.since is None and tunnel.unanswered is not None and heard > tunnel.unanswered:
            tunnel.unanswered = None
        answered = tunnel.unanswered is None
        if sent > 0 and answered and event.last_tx > heard:
            steady = sent >= DENSE
            tunnel.unanswered = max(heard, now - ACTIVITY_INTERVAL) if steady else event.last_tx
        outage = event.gap > 2 * ACTIVITY_INTERVAL  # what that ate says nothing of the path's loss
        if came > 0 and before is not None and answered and not outage:
            self._learn(watch, came, event.lost - before.lost)
        if sent > 0:
            self._silence(tunnel, watch, now)
            self._check(tunnel, watch, now)
        elif came == 0 and watch.rate >= DENSE / ACTIVITY_INTERVAL and tunnel.paths.primary:
            watch.rate = 0.0
        if came > 0:
            self._lull.came(tunnel, came, now)

    def heard(self, tunnel: Tunnel, path: Path, now: float, *, asks: bool) -> None:
        """A control frame of the peer came: a sign of life of the own link that it came on. A
        question on another way is none for ours: perhaps the peer asks because it hears nothing."""
        primary = tunnel.paths.primary
        if asks and tunnel.paths.beside(path):
            self._asked(tunnel, now)
            return
        if primary is not None and path.socket == primary.socket:
            watch = self._watch(tunnel)
            watch.heard = now
            if watch.since is None:
                tunnel.unanswered = None

    def _learn(self, watch: _Watch, came: int, lost: int) -> None:
        watch.rate += SMOOTH * (came / ACTIVITY_INTERVAL - watch.rate)
        share = max(0, lost) / (max(0, lost) + came)
        watch.loss += SMOOTH * (share - watch.loss)

    def seen(self, tunnel: Tunnel, counters: SeenCounters) -> None:
        """The peer says what arrived: how much is lost on the way there."""
        watch = self._watch(tunnel)
        total = sum(count for _, count in counters.received)
        slot, greatest, received = watch.told
        watch.told = (counters.slot, counters.greatest, total)
        if slot == counters.slot and counters.greatest > greatest and total >= received:
            share = 1 - min(1.0, (total - received) / (counters.greatest - greatest))
            watch.loss += SMOOTH * (share - watch.loss)

    def _owed(self, watch: _Watch) -> float:
        """How long a healthy peer may say nothing: it reports once its data has paused (S15)."""
        return 0.0 if watch.rate >= DENSE / ACTIVITY_INTERVAL else SEEN_INTERVAL

    def _silence(self, tunnel: Tunnel, watch: _Watch, now: float) -> None:
        if tunnel.unanswered is None:
            return
        silence = now - tunnel.unanswered - self._owed(watch)
        limit = tunnel.paths.silence(SILENCE_FLOOR)
        if silence >= limit * SUSPICIOUS:
            self._suspect(tunnel, now)
        if silence >= limit:
            self.doubt(tunnel, now)

    def _asked(self, tunnel: Tunnel, now: float) -> None:
        """The peer asks on another way: while data leaves, see at once whether ours still works."""
        if self._sends(tunnel, now):
            silence = tunnel.paths.silence(SILENCE_FLOOR)
            self._check(tunnel, self._watch(tunnel), now, silence)

    def _sends(self, tunnel: Tunnel, now: float) -> bool:
        last = tunnel.activity.last_tx if tunnel.activity is not None else -1e9
        return now - last < tunnel.paths.silence(SILENCE_FLOOR)

    def mapped_anew(self, tunnel: Tunnel, socket: int, now: float) -> None:
        """A server sees the own socket under another address than before: what is sent to that one
        vanishes, and the new one is a stranger to the peer's NAT."""
        primary = tunnel.paths.primary
        direct = primary is not None and not primary.relayed and primary.socket == socket
        if direct and self._sends(tunnel, now):
            self.doubt(tunnel, now, Evidence.MAPPED_ANEW)

    def _check(self, tunnel: Tunnel, watch: _Watch, now: float, pause: float = PATH_CHECK) -> None:
        """Data from the peer proves its way here, not ours there: ask now and then (C6)."""
        primary = tunnel.paths.primary
        if primary is None or tunnel.doubted is not None or len(tunnel.paths.sending) > 1:
            return
        proven = tunnel.paths.proven_at(primary)
        if proven < watch.checked:  # asked, and not answered yet: that may take a long round trip
            pause = max(pause, 2 * tunnel.paths.silence(SILENCE_FLOOR))
        if now - max(proven, watch.checked) < pause:
            self._checked(tunnel, watch, primary, now)
            return
        watch.checked = now
        self._steering.challenge(tunnel, primary, now, "check")

    def _checked(self, tunnel: Tunnel, watch: _Watch, primary: Path, now: float) -> None:
        if tunnel.paths.proven_at(primary) >= watch.checked:
            return
        late = now - watch.checked > tunnel.paths.silence(SILENCE_FLOOR)
        if late and self._missing(tunnel, watch, primary, now, data=False) >= CERTAIN / 2:
            self._suspect(tunnel, now)
            self.doubt(tunnel, now)

    def _missing(
        self, tunnel: Tunnel, watch: _Watch, path: Path, now: float, *, data: bool = True
    ) -> float:
        """How unlikely it is, in nats, that all that stayed out on ``path`` was lost by chance."""
        if tunnel.handle is None:
            return 0.0
        rtt = tunnel.paths.rtt(path) or RTT_UNKNOWN
        due = now - 1.25 * rtt
        probes = sum(at <= due for at in self._prober.copies(tunnel.handle, path))
        weight = probes * nats(watch.loss)
        if data and tunnel.unanswered is not None:
            weight += watch.rate * (now - tunnel.unanswered) * -math.log(reckoned(watch.loss))
        return weight

    # -------------------------------------------------------------- suspicion

    def _suspect(self, tunnel: Tunnel, now: float) -> None:
        watch, primary = self._watch(tunnel), tunnel.paths.primary
        if watch.primary not in (None, primary):
            self._leave(tunnel, watch)  # what was asked was asked about another path
        if primary is None or watch.since is not None or tunnel.handle is None:
            return
        watch.since, watch.primary = now, primary
        self._steering.prepare(tunnel, now)
        watch.answered.clear()
        watch.links.clear()
        spares = self._relays.spare_ways(tunnel.peer.key, tunnel.home_relay, primary.socket)
        if primary.relayed:
            for way in spares[:1]:
                self._relays.duplicate(way, now)
        for path in (primary, *self.others(tunnel, primary)):
            self.ask(tunnel, path, now)
        self._ask_server(primary.socket, now, watch.links.__setitem__)
        self._tick(tunnel, now)

    def others(self, tunnel: Tunnel, primary: Path) -> list[Path]:
        """Ways to the peer beside the one in use: over spare links, relay legs, direct."""
        spares = self._relays.spare_ways(tunnel.peer.key, tunnel.home_relay, primary.socket)
        legs = self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)
        direct = [p for p in tunnel.paths.proven if self._underlay.is_open(p.socket)]
        ways = [*spares[:2], *(leg for _, leg in legs[:2]), *direct]
        return [way for way in dict.fromkeys(ways) if way != primary][:PATH_SET]

    def ask(self, tunnel: Tunnel, path: Path, now: float) -> None:
        """Challenge one path in quick succession."""
        assert tunnel.handle is not None
        self._prober.cancel(tunnel.handle, purpose="check", keep=lambda p: p != path)
        if self._prober.under_way(tunnel.handle, path):
            return
        self._prober.start(
            tunnel.handle,
            path,
            now,
            lambda proof, at: self._steering.on_proof(tunnel, proof, at),
            make=lambda nonce: Probe(nonce, spare=self._steering.is_spare(tunnel, path)),
            ladder=DOUBT_LADDER,
            purpose="doubt",
        )

    def _ask_server(self, socket: int, now: float, answers: Callable[[int, float], None]) -> None:
        """Does a server answer on this link, and on the others? Two are asked here: one may be the
        relay that died, which says nothing of the link."""
        server = self._server()
        for each in dict.fromkeys((server, self._coordinator)):
            if each.path is not None and each.path.socket == socket:
                each.ask(now)
        for other in self._links.others(socket):
            server.warm(other, now, partial(answers, other))

    def _tick(self, tunnel: Tunnel, now: float) -> None:
        watch = self._watch(tunnel)
        if watch.since is None:
            return
        if tunnel.paths.primary != watch.primary or now - watch.since > DOUBT_SECONDS:
            self._over(tunnel, watch)
            return
        wait = TICK
        if tunnel.doubted is not None:
            self._decide(tunnel, watch, now)
        elif tunnel.unanswered is not None:
            due = tunnel.unanswered + self._owed(watch) + tunnel.paths.silence(SILENCE_FLOOR)
            if now >= due:
                self.doubt(tunnel, now)
            else:
                wait = min(TICK, due - now)
        if watch.since is not None:
            self._common.timers.set(
                ("suspect", tunnel.number), now + wait, lambda at: self._tick(tunnel, at)
            )

    def _over(self, tunnel: Tunnel, watch: _Watch) -> None:
        watch.since = watch.primary = None
        watch.answered.clear()
        self._common.timers.cancel(("suspect", tunnel.number))
        if tunnel.handle is not None:
            self._prober.cancel(tunnel.handle, purpose="doubt")

    # -------------------------------------------------------------- doubt

    def doubt(self, tunnel: Tunnel, now: float, evidence: Evidence = Evidence.SILENT) -> None:
        """The primary may be dead: challenge it and the others, and send on two ways."""
        primary = tunnel.paths.primary
        self._suspect(tunnel, now)
        if primary is None or tunnel.doubted is not None or tunnel.handle is None:
            return
        tunnel.doubted = now
        tunnel.paths.note(primary, evidence)
        self._common.counters["path_doubted"] += 1
        watch = self._watch(tunnel)
        spares = self._relays.spare_ways(tunnel.peer.key, tunnel.home_relay, primary.socket)
        for name, _ in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)[:2]:
            self._relays.renew(name, now)  # also where it carries: our mapping there may be new
        for way in spares[:1]:
            self._relays.duplicate(way, now)
        others = [*watch.answered, *self.others(tunnel, primary)]
        if others:
            self._tunnels.switch(tunnel, (primary, others[0]))
        self._common.timers.set(
            ("doubt", tunnel.number), now + DOUBT_SECONDS, lambda at: self._ends(tunnel, at)
        )
        self._decide(tunnel, watch, now)

    def moot(self, tunnel: Tunnel) -> None:
        """The peer left the path that was in doubt: what answers from now on is judged anew."""
        self._leave(tunnel, self._watch(tunnel))
        tunnel.unanswered = None

    def _leave(self, tunnel: Tunnel, watch: _Watch) -> None:
        self._over(tunnel, watch)
        self._common.timers.cancel(("doubt", tunnel.number))
        tunnel.doubted = None

    def proved(self, tunnel: Tunnel, proof: Proof, now: float) -> bool:
        """A challenge was answered; True if a suspicion was what it was about."""
        watch = self._watch(tunnel)
        if watch.since is None and tunnel.doubted is None:
            return False
        watch.report = proof.answer.seen
        if proof.path == tunnel.paths.primary:
            tunnel.unanswered = None
            self._over(tunnel, watch)
            self.small_passes(tunnel, now)
            if tunnel.doubted is not None:
                tunnel.doubted = None
                self._tunnels.switch(tunnel, (proof.path,))
                self._steering.restored.begin(tunnel, proof.answer.seen, now)
            return True
        watch.answered[proof.path] = now
        if tunnel.doubted is not None and watch.since is not None:
            self._decide(tunnel, watch, now)
        return True

    def _decide(self, tunnel: Tunnel, watch: _Watch, now: float) -> None:
        primary = watch.primary
        if primary is None or watch.since is None or primary != tunnel.paths.primary:
            return
        if self._missing(tunnel, watch, primary, now) < CERTAIN:
            return
        answered = [p for p in watch.answered if self._underlay.is_open(p.socket)]
        if self._links.heard_since(primary.socket, watch.since):
            if answered:
                self._take(tunnel, watch, min(answered, key=self._steering.key(tunnel)), now)
            return
        elsewhere = [p for p in answered if p.socket != primary.socket]
        if not elsewhere and not watch.links:
            return
        self._over(tunnel, watch)
        self._links.silent(primary.socket, now)
        if tunnel.paths.primary == primary and elsewhere:
            self._take(tunnel, watch, elsewhere[0], now)

    def _take(self, tunnel: Tunnel, watch: _Watch, path: Path, now: float) -> None:
        """This tunnel goes another way; the own link is not to blame."""
        primary = tunnel.paths.primary
        self._over(tunnel, watch)
        if primary is not None and not primary.relayed:
            tunnel.paths.disprove(primary)
        elif primary is not None and path.relayed and path.socket == primary.socket:
            tunnel.paths.note(primary, Evidence.UNANSWERED)
            self._relays.judge(primary, now, dead=True)
        tunnel.doubted = tunnel.unanswered = None
        self._common.timers.cancel(("doubt", tunnel.number))
        self._steering.carry(tunnel, path, now)
        self._tunnels.switch(tunnel, (path,))
        self._steering.restored.begin(tunnel, watch.report, now)
        if path.relayed:
            self._common.timers.set(
                ("look", tunnel.number), now + LOOK_AGAIN, lambda at: self._look(tunnel, at)
            )

    def _look(self, tunnel: Tunnel, now: float) -> None:
        """The direct way broke: is there another one by now?"""
        self._steering.say_candidates(tunnel, now)
        self._steering.explore(tunnel, now)

    def _ends(self, tunnel: Tunnel, now: float) -> None:
        """Nothing answered in time: back to one way, the relay's if there is one."""
        if tunnel.doubted is None:
            return
        self._over(tunnel, self._watch(tunnel))
        primary = tunnel.paths.primary
        if primary is not None and not primary.relayed:
            tunnel.paths.disprove(primary)
        self._steering.settle(tunnel, now)
        self._steering.rescue(tunnel, now)
