"""The parts of a node, built in the order in which they need one another, and what ties them."""

from __future__ import annotations

from ntmd.node.announce import Announcer
from ntmd.node.asked import Asked
from ntmd.node.calls import Calls
from ntmd.node.common import Common
from ntmd.node.direction import Directions
from ntmd.node.doubt import Doubt
from ntmd.node.drain import Drain
from ntmd.node.fading import Fading
from ntmd.node.follow import Follow
from ntmd.node.journal import Journal
from ntmd.node.keepalive import KeepAlive
from ntmd.node.links import Links
from ntmd.node.move import Moves
from ntmd.node.mtu import MtuSearch
from ntmd.node.names import Names
from ntmd.node.prediction import Allocations
from ntmd.node.probing import Prober
from ntmd.node.reach import Reach
from ntmd.node.receive import Receive
from ntmd.node.registration import Registration
from ntmd.node.rehearsal import Rehearsal
from ntmd.node.relays import Relays
from ntmd.node.requests import Requests
from ntmd.node.rescue import Rescues
from ntmd.node.seen import SeenReports
from ntmd.node.shift import Shift
from ntmd.node.status import Status
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Open
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.node.why import Why
from ntmd.proto.plane import PlaneStats
from ntmd.proto.types import Endpoint, Peer

SAME_TIME = 1.0  # of words this close together the coordinator's counts, seconds


class Parts:
    """Every part of one node. ``stats`` is the plane's last report."""

    def __init__(self, common: Common) -> None:
        self.common = common
        self.stats = PlaneStats()
        self._reach()
        self._carry()
        self._follow()
        self._shift()
        self._move()
        self._tell()

    def _reach(self) -> None:
        """What reaches servers."""
        common = self.common
        self.underlay = Underlay(common)
        self.prober = Prober(common)
        self.allocations = Allocations()
        self.prober.observed = self.allocations.saw
        self.requests = Requests(common)
        self.relays = Relays(
            common,
            self.underlay,
            self.prober,
            self.requests,
            leg_changed=self._leg_changed,
            home_changed=self._home_changed,
            seen=self._seen,
        )
        self.registration = Registration(
            common,
            self.underlay,
            self.prober,
            self.requests,
            relays_known=self.relays.set_home,
            reflexive=self._reflexive,
            seen=self._seen,
        )
        self.registration.relay_rtts = self.relays.rtts
        self.keepalive = KeepAlive(
            common,
            self.underlay,
            self.registration.nat,
            self.registration.uplink,
            lambda: [self.registration.uplink, *self.relays.warm()],
        )

    def _carry(self) -> None:
        """What sets tunnels up and chooses their paths."""
        common = self.common
        self.tunnels = Tunnels(common, self.underlay, self.relays)
        self.mtu = MtuSearch(common, self.underlay, self.prober, self.tunnels)
        self.journal = Journal(common)
        self.calls = Calls(common, self.underlay, self.relays, self.tunnels)
        self.steering = Steering(
            common,
            self.underlay,
            self.prober,
            self.relays,
            self.tunnels,
            self._reflexive,
            self._learn,
            Rescues(common, self._rescue).wanted,
            self.allocations,
        )
        self.directions = Directions(
            common,
            self.underlay,
            self.requests,
            self.relays,
            self.tunnels,
            self.registration.uplink,
            to_caller=lambda t, start, now: self.calls.directed(t, start, now, caller=True),
            to_called=lambda t, start, now: self.calls.directed(t, start, now, caller=False),
            refused=self.calls.refused,
        )

    def _follow(self) -> None:
        """What answers names and follows peers' moves."""
        common = self.common
        self.names = Names(common, self.tunnels, self.calls.want_name)
        self.calls.wire(self.directions, self.names, self.steering, self.registration.check_all)
        self.drain = Drain(
            common,
            self.prober,
            self.relays,
            self.tunnels,
            ask=self.directions.ask,
            leg_changed=self._leg_changed,
        )
        self.follow = Follow(
            common,
            self.underlay,
            self.prober,
            self.tunnels,
            self.steering,
            self.directions,
            self.journal,
        )
        self.steering.proved = self.follow.proved

    def _shift(self) -> None:
        """What changes between own links."""
        common = self.common
        self.announcer = Announcer(
            common,
            self.underlay,
            self.prober,
            self.tunnels,
            self.steering,
            self.journal,
            self._reflexive,
            lambda tunnel, now: self.directions.ask(tunnel.peer.name, b"", now),
        )
        self.shift = Shift(
            common,
            self.underlay,
            self.relays,
            self.tunnels,
            self.steering,
            self.registration,
            self.journal,
            self.announcer,
        )
        self.steering.carry = self.shift.to
        self.links = Links(common, self.underlay, self.shift)
        self.steering.doubts = self.doubts = Doubt(
            common,
            self.underlay,
            self.prober,
            self.relays,
            self.tunnels,
            self.steering,
            self.links,
            self.shift.server,
            self.registration.uplink,
        )
        self.doubts.small_passes = self.mtu.small_passes
        self.steering.fading = Fading(
            common,
            self.underlay,
            self.prober,
            self.shift,
            self.doubts.loss,
            self.doubts.others,
            self.steering.key,
        )
        self.keepalive.uneasy = self.registration.uplink.uneasy = self.links.uneasy
        self.keepalive.spares = self.shift.keep_warm

    def _move(self) -> None:
        """What follows the own underlay."""
        common = self.common
        self.moves = Moves(
            common,
            self.underlay,
            self.prober,
            self.relays,
            self.tunnels,
            self.steering,
            self.registration,
            self.journal,
            self.announcer,
            self.shift,
            self.calls.call,
        )
        self.reach = Reach(
            common,
            self.underlay,
            self.prober,
            self.registration.uplink,
            self._reachable,
            self.moves.socket_ready,
        )

    def _tell(self) -> None:
        """What hears the engine and answers the user."""
        common = self.common
        self.seen = SeenReports(common)
        self.status = Status(
            common,
            self.underlay,
            self.registration,
            self.relays,
            self.tunnels,
            self.journal,
            self._reflexive,
            lambda: self.stats,
        )
        self.rehearsal = Rehearsal(common, self.underlay, self.prober, self.tunnels, self.steering)
        self.status.notices.append(self.rehearsal.notice)
        self.asked = Asked(
            common,
            self.names,
            self.tunnels,
            self.steering,
            self.prober,
            self.registration,
            self.relays,
            self.journal,
            self.status,
            self.rehearsal,
            Why(
                common,
                self.underlay,
                self.registration,
                self.relays,
                self.steering,
                self.journal,
                self.status,
            ),
        )
        self.receive = Receive(
            common,
            self.prober,
            self.requests,
            self.registration,
            self.relays,
            self.tunnels,
            self.calls,
            self.steering,
            self.follow,
            self.links,
            self.directions,
            self.journal,
            self.drain,
        )

    # -------------------------------------------------------------- what ties them

    def _leg_changed(self, peer: Peer, now: float) -> None:
        self.drain.leg_changed(peer, now)
        self.calls.leg_changed(peer, now)
        self.announcer.leg_changed(peer, now)

    def _home_changed(self, name: str, now: float) -> None:
        self.registration.home_relay = name
        self.shift.keep_warm(now)
        self.registration.refresh(now)

    def _reflexive(self) -> dict[int, Endpoint]:
        """Per own socket the source that servers saw, as the last one of them said."""
        found: dict[int, tuple[float, Endpoint]] = {}
        for uplink in (*self.relays.warm(), self.registration.uplink):
            for socket, seen in uplink.observed.items():
                at = uplink.observed_at.get(socket, 0.0)
                if socket not in found or at >= found[socket][0] - SAME_TIME:
                    found[socket] = (at, seen)
        return {socket: seen for socket, (_, seen) in found.items()}

    def _learn(self, socket: int, observed: Endpoint, now: float) -> None:
        """A peer told which source it saw: it counts while no server told."""
        if socket not in self._reflexive():
            self.registration.uplink.saw(socket, observed, now)

    def _seen(self, now: float, mapped_anew: int | None = None) -> None:
        """A new reflexive address: peers are told under the seq of the last Move (rule C6).
        ``mapped_anew``: the own socket which had another one until now."""
        self.registration.check_mapping(self.relays.warm(), now)
        self.registration.seen(now)
        for tunnel in self.tunnels.all():
            if isinstance(tunnel.state, Open):
                if mapped_anew is not None:
                    self.steering.doubts.mapped_anew(tunnel, mapped_anew, now)
                self.steering.say_candidates(tunnel, now)
                self.steering.explore(tunnel, now)

    def _reachable(self, now: float) -> None:
        """There is another way to reach this node: coordinator and peers are told."""
        self.registration.refresh(now)
        self._seen(now)

    def _rescue(self, tunnel: Tunnel, now: float) -> None:
        """Nothing answers on any way: shake hands anew, and ask the coordinator beside it."""
        relays = tunnel.directed.relays if tunnel.directed is not None else ()
        tunnel.relay_only = tunnel.relay_only and self.relays.may_answer(relays)
        self.registration.check_all(now)
        self.calls.call(tunnel, now)
        self.directions.ask(tunnel.peer.name, b"", now)
