"""Make before break: while two links work, traffic changes from one to the other without loss.

The move is a change of index: the new path was validated while the old one carried. Relays are
told first, then each peer, on the new path, on the old one and over the relay; whatever is on its
way over the old link still arrives there. Nothing is switched on hope: a link that did not answer
lately is asked first, and the old one carries until it does.
"""

from __future__ import annotations

from ntmd.node.announce import Announcer
from ntmd.node.common import Common
from ntmd.node.journal import Journal
from ntmd.node.registration import Registration
from ntmd.node.relays import Relays
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Open
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.node.uplink import BRIEF, Uplink, patience
from ntmd.proto.messages import MoveCause
from ntmd.proto.timing import LADDER, STANDBY_SOCKETS
from ntmd.proto.types import Path

PROOF_FRESH = 10.0  # a direct path that answered this recently is switched to at once, seconds
REKEY_AFTER_MOVE = 2.0  # data keys are replaced this long after a move (rule S3), seconds
HINT = 5.0  # a soft move this long after the watcher's word has that word as its cause, seconds
PROMOTED = (MoveCause.PROMOTION, "better link")


class Shift:
    """Moves between links that both work, and keeps the spare ones warm."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        relays: Relays,
        tunnels: Tunnels,
        steering: Steering,
        registration: Registration,
        journal: Journal,
        announcer: Announcer,
    ) -> None:
        self._common, self._underlay, self._relays = common, underlay, relays
        self._tunnels, self._steering = tunnels, steering
        self._registration, self._journal, self._announcer = registration, journal, announcer
        self._cause = PROMOTED

    # -------------------------------------------------------------- spare links

    def keep_warm(self, now: float) -> None:
        """One NAT keep-alive per spare socket, towards the home relay (or the coordinator). One
        that did not answer is asked less and less often; beside TLS the race asks on all.

        Another server that is spoken to over a lesser link is asked on the better ones, too, as
        long as they do not leave the first one's questions unanswered.
        """
        server, rank = self.server(), self._underlay.rank
        if server.race.carries:
            return
        for uplink in self.uplinks():
            if uplink.path is None or uplink.race.carries:
                continue
            for socket in self._spare_sockets(uplink):
                better = rank(socket) < rank(uplink.path.socket) and socket not in server.mute
                if uplink is server or better:
                    self._warm(uplink, socket, now)

    def _warm(self, uplink: Uplink, socket: int, now: float) -> None:
        since, asked = uplink.mute.get(socket, (now, -1e9))
        if now - asked >= patience(now - since):
            ladder = BRIEF if socket in uplink.mute else LADDER
            uplink.warm(socket, now, lambda at: self._uplink(uplink, at), ladder)

    def server(self) -> Uplink:
        """Who is asked over spare links."""
        home = self._relays.by_name.get(self._relays.home_name)
        return home.uplink if home is not None and home.uplink.up else self._registration.uplink

    def uplinks(self) -> list[Uplink]:
        """To all servers."""
        return [*self._relays.uplinks(), self._registration.uplink]

    def _spare_sockets(self, server: Uplink) -> list[int]:
        if server.path is None:
            return []
        used = server.path.socket
        tried = self._underlay.streams.base(used)  # UDP beside TLS is tried again by the race
        spare = [s.number for s in self._underlay.usable() if s.number not in (used, tried)]
        return spare[:STANDBY_SOCKETS]

    # -------------------------------------------------------------- the underlay's word

    def preferred_changed(self, now: float, cause: tuple[MoveCause, str]) -> None:
        """Another link is preferred by now, or the one in use is about to go."""
        self._cause = cause
        for uplink in self.uplinks():
            self._uplink(uplink, now)
            self._ask(uplink, now)
        self._each(now)
        self._common.timers.set("hint", now + HINT, self._calm)

    def _calm(self, _now: float) -> None:
        """Whatever moves from now on does so for another reason."""
        self._cause = PROMOTED

    def _ask(self, uplink: Uplink, now: float) -> None:
        """Ask on the links that are better than the present one and did not answer lately."""
        if uplink.path is None:
            return
        rank = self._underlay.rank
        for socket in self._spare_sockets(uplink):
            if rank(socket) < rank(uplink.path.socket) and not uplink.spare_on(socket, now):
                uplink.warm(socket, now, lambda at: self._uplink(uplink, at))

    def _uplink(self, uplink: Uplink, now: float) -> None:
        if uplink.shift(now):
            self._each(now)

    def _order(self) -> list[Tunnel]:
        return sorted(self._tunnels.all(), key=lambda t: (-t.busy_at, t.number))

    def _each(self, now: float) -> None:
        for tunnel in self._order():
            self._one(tunnel, now)

    def _one(self, tunnel: Tunnel, now: float) -> None:
        primary = tunnel.paths.primary
        if not tunnel.live or primary is None or not self._underlay.is_open(primary.socket):
            return
        key = self._steering.key(tunnel)
        stale = False
        for path, proven in list(tunnel.paths.proven.items()):
            if key(path) < key(primary) and now - proven.at > PROOF_FRESH:
                self._steering.challenge(tunnel, path, now, "shift")
                stale = True
        best = self._steering.best(tunnel, now, PROOF_FRESH)
        if best is not None and key(best) < key(primary):
            self.to(tunnel, best, now)
        elif not stale:
            self._steering.explore(tunnel, now)
        if stale:
            self._steering.say_candidates(tunnel, now)

    def _answered(self, tunnel: Tunnel, path: Path, now: float) -> str:
        """What is known of the way that is taken."""
        proven = tunnel.paths.proven.get(path)
        if proven is None:
            return "the relay leg carries there"
        return f"the new way answered {now - proven.at:.1f} s ago in {proven.rtt * 1000:.0f} ms"

    # -------------------------------------------------------------- one tunnel

    def to(self, tunnel: Tunnel, path: Path, now: float) -> None:
        """Send on ``path`` from now on, and have the peer follow, if that is another link."""
        before = tunnel.paths.primary
        if before is None or tunnel.handle is None or not tunnel.live:
            self._tunnels.switch(tunnel, (path,))
            return
        if before == path:
            return
        if self._underlay.same_link(before.socket, path.socket):
            self._tunnels.switch(tunnel, (path,))
            return
        tunnel.move_seq += 1
        tunnel.doubted = tunnel.unanswered = None
        self._journal.begin(
            tunnel,
            own=True,
            seq=tunnel.move_seq,
            cause=self._cause[1],
            before=self._steering.describe(before),
            after=self._steering.describe(path),
            started=now,
            now=now,
            evidence=f"{self._cause[1]}; {self._answered(tunnel, path, now)}",
            decision="change over at once, and listen on the old way too",
        )
        self._tunnels.switch(tunnel, (path,))
        relay = self._steering.relay_way(tunnel)
        ways = [path, before] + ([relay] if relay is not None else [])
        open_ways = [w for w in dict.fromkeys(ways) if self._underlay.is_open(w.socket)]
        self._announcer.send(tunnel, open_ways, self._cause[0], False, now)
        self._journal.sent(tunnel, now)
        if isinstance(tunnel.state, Open):
            self._common.timers.set(
                ("rekey", tunnel.number),
                now + REKEY_AFTER_MOVE,
                lambda at: self._steering.rekey(tunnel, at),
            )
