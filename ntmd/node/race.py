"""TLS beside UDP towards one server, for networks that let no UDP pass (rule S12).

Whatever asks the server for an answer starts a short wait. If nothing comes, a TLS connection is
opened beside the copies that still leave over UDP, and whichever answers carries. While TLS
carries, UDP is tried again and again, and takes over with its first answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from ntmd.node.common import Common
from ntmd.node.probing import Prober, Proof
from ntmd.node.streams import Streams
from ntmd.proto.stream import ALPN
from ntmd.proto.timing import (
    STREAM_AFTER,
    STREAM_LINGER,
    STREAM_RETRY,
    STREAMS_PER_SERVER,
    UDP_AGAIN,
)
from ntmd.proto.types import Endpoint, Path

if TYPE_CHECKING:
    from ntmd.node.underlay import OwnSocket, Underlay
    from ntmd.node.uplink import Uplink

PROBE_LADDER = (0.1,)  # UDP is tried again with two copies, in the end with one
CALM = 3  # tries of UDP, some seconds, before a better link that stalled carries again


class Race:
    """Decides when one server is spoken to over TLS. ``endpoints`` are where it listens for it."""

    def __init__(self, uplink: Uplink, common: Common, underlay: Underlay, prober: Prober) -> None:
        self._uplink, self._common = uplink, common
        self._underlay, self._prober = underlay, prober
        self._numbers: list[int] = []
        self._failures = 0
        self._failed_at = self._next = -1e9  # the last failure; before that instant no other try
        self._tries = 0  # of UDP, since TLS carries
        self._needed = False  # the last way that answered was a connection
        self._learned = (0, False)  # own socket, and whether it took a connection there
        self.promoted: Callable[[int, float], None] = lambda *_: None
        self.endpoints: tuple[Endpoint, ...] = ()
        self.complaint = ""

    @property
    def _streams(self) -> Streams:
        return self._underlay.streams

    def _timer(self, what: str) -> Hashable:
        return (what, self._uplink.peer.key)

    @property
    def carries(self) -> bool:
        """Whether the server is spoken to over TLS."""
        path = self._uplink.path
        return path is not None and self._streams.has(path.socket)

    def ways(self) -> list[Path]:
        """The ways over open connections to this server."""
        found = (self._streams.way(number) for number in self._numbers)
        return [way for way in found if way is not None]

    # -------------------------------------------------------------- when to open

    def expect(self, now: float) -> None:
        """Something was sent that the server must answer."""
        timer = self._timer("race")
        carries = self.carries and self._uplink.proven
        if not self.endpoints or carries or self._common.timers.pending(timer) is not None:
            return
        path, places = self._uplink.path, self._underlay.places
        carried = path is not None and self._underlay.is_open(path.socket)
        here = places.at(path.socket) if path is not None and carried else places.here()
        blocked = bool(here.tls) if here.tls or here.udp else self._needed
        if path is not None and self._learned == (path.socket, False):
            blocked = False  # what another server found here says less than its own answer
        at_once = blocked and not self._numbers
        wait = 0.0 if at_once else max(STREAM_AFTER, 3 * (self._uplink.rtt or 0.0))
        self._common.timers.set(timer, max(now + wait, self._next), self._unanswered)

    def hurry(self, now: float, pause: float) -> None:
        """Somebody needs the silent server: ``pause`` seconds after the last connection that
        failed are enough."""
        due = self._common.timers.pending(self._timer("race"))
        if due is not None and self._failures:
            soon = max(now + STREAM_AFTER, self._failed_at + pause)
            self._common.timers.set(self._timer("race"), min(due, soon), self._unanswered)

    def _unanswered(self, now: float) -> None:
        """Nothing came: open connections, and take whatever answers from now on."""
        if self._common.stopping:
            return
        self._common.timers.cancel(self._timer("linger"))
        self._uplink.proven = False
        for way in self.ways():
            self.stream_opened(way.socket, now)
        for base, remote in self._places():
            service = ALPN[self._uplink.peer.role]
            self._numbers.append(self._streams.open(base, remote, service, self, now))

    def _places(self) -> list[tuple[OwnSocket, Endpoint]]:
        """The best network of each family that was not tried yet, with an endpoint: another one at
        each failure. So the next link's turn comes while nothing answers on the first."""
        found: dict[int, tuple[OwnSocket, Endpoint]] = {}
        tried = {self._streams.base(number) for number in self._numbers}
        for base in self._underlay.usable():
            family = base.network.family
            fitting = [e for e in self.endpoints if e.family == family]
            if fitting and family not in found and base.number not in tried:
                found[family] = (base, fitting[self._failures % len(fitting)])
        return list(found.values())[: STREAMS_PER_SERVER - len(self._numbers)]

    def heard(self, path: Path, now: float) -> None:
        """The server answered on ``path``."""
        self._common.timers.cancel(self._timer("race"))
        if self.carries:
            self._needed = True
            elsewhere = self._learn(path.socket, True)
            if elsewhere or self._common.timers.pending(self._timer("udp")) is None:
                self._tries = 0
                self._later_udp(now)
        elif path == self._uplink.path:
            self._needed = False
            self._learn(path.socket, False)
            self._let_go(now)

    def _learn(self, socket: int, tls: bool) -> bool:
        """Remember it for this network; once, for another server may find otherwise. False if it
        is what was learned last."""
        if (socket, tls) == self._learned:
            return False
        self._learned = (socket, tls)
        self._underlay.places.learn(socket, tls=int(tls), udp=int(not tls))
        return True

    # -------------------------------------------------------------- connections

    def stream_opened(self, number: int, now: float) -> None:
        """A connection can carry: ask over it too."""
        self._failures, self._next = 0, -1e9
        self.complaint = ""
        way = self._streams.way(number)
        uplink = self._uplink
        if way is None:
            return
        handle = uplink.handle
        in_session = handle is not None and self._common.engine.established(handle)
        if handle is not None and in_session and not self._prober.under_way(handle, way):
            self._prober.start(handle, way, now, uplink.alternative, purpose="move")
        if not uplink.up:
            uplink.call(now)

    def stream_failed(self, number: int, text: str, now: float) -> None:
        """A connection could not be had, or ended."""
        if number not in self._numbers:
            return
        self._numbers.remove(number)
        self._failures += 1
        self._failed_at = now
        self._next = now + STREAM_RETRY[min(self._failures, len(STREAM_RETRY)) - 1]
        if text != self.complaint:
            self._common.tell("info", "no TLS", server=self._uplink.peer.name, why=text)
        self.complaint = text
        if not self._numbers and not (self._uplink.up and self._uplink.proven):
            self.expect(now)

    def stream_gone(self, number: int) -> None:
        """The network of a connection is gone, and it with it."""
        if number in self._numbers:
            self._numbers.remove(number)

    def _let_go(self, now: float) -> None:
        """UDP works: connections are closed when what is under way on them has arrived."""
        self._common.timers.cancel(self._timer("udp"))
        if not self._numbers:
            return

        def close(at: float) -> None:
            if not self.carries:
                for number in self._numbers:
                    self._streams.close(number)
                self._numbers.clear()

        if self._common.timers.pending(self._timer("linger")) is None:
            self._common.timers.set(self._timer("linger"), now + STREAM_LINGER, close)

    def close(self) -> None:
        """The node goes down."""
        for what in ("race", "udp", "linger"):
            self._common.timers.cancel(self._timer(what))

    # -------------------------------------------------------------- back to UDP

    def _later_udp(self, now: float) -> None:
        wait = UDP_AGAIN[min(self._tries, len(UDP_AGAIN) - 1)]
        self._tries += 1
        self._common.timers.set(self._timer("udp"), now + wait, self._try_udp)

    def udp_may_pass(self, now: float) -> None:
        """There is another network, or another server was heard over UDP again."""
        if self.carries:
            self._tries = 0
            self._try_udp(now)

    def _try_udp(self, now: float) -> None:
        uplink = self._uplink
        if not self.carries or uplink.handle is None or self._common.stopping:
            return
        ladder = PROBE_LADDER if self._tries < len(UDP_AGAIN) else ()
        for way in self._underlay.ways(uplink.endpoints):
            if not self._prober.under_way(uplink.handle, way):
                self._prober.start(
                    uplink.handle, way, now, self._udp_works, ladder=ladder, purpose="udp"
                )
        for way in self._on_better_links() if self._tries >= CALM else ():
            if not self._prober.under_way(uplink.handle, way):
                self._prober.start(
                    uplink.handle, way, now, self._better_works, ladder=ladder, purpose="udp"
                )
        self._later_udp(now)

    def _link_rank(self, number: int) -> int:
        """Preference of the link of a connection; silence there is no part of it."""
        base = self._underlay.sockets.get(self._streams.base(number))
        return base.rank if base is not None else 1 << 20

    def _on_better_links(self) -> list[Path]:
        path = self._uplink.path
        rank = self._link_rank(path.socket) if path is not None else 0
        return [way for way in self.ways() if self._link_rank(way.socket) < rank]

    def _better_works(self, proof: Proof, now: float) -> None:
        """The connection on a preferred link had stalled: it carries again, and those on other
        links, which may cost money, end when what is under way has arrived."""
        if not self.carries or proof.path not in self._on_better_links():
            return
        self._uplink.promote(proof, now)

        def close(at: float) -> None:
            path = self._uplink.path
            for way in self.ways():
                if path == proof.path and self._link_rank(way.socket) > self._link_rank(
                    path.socket
                ):
                    self._numbers.remove(way.socket)
                    self._streams.close(way.socket)

        self._common.timers.set(self._timer("linger"), now + STREAM_LINGER, close)

    def _udp_works(self, proof: Proof, now: float) -> None:
        """UDP passes (again): it carries from now on."""
        self._uplink.saw(proof.path.socket, proof.answer.observed, now)
        if self.carries and self._underlay.is_open(proof.path.socket):
            self._uplink.promote(proof, now)
            self.promoted(proof.path.socket, now)
            self._streams.udp_passes(now)
