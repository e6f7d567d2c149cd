"""What is known of each own link from the datagrams on it: when it was heard, whether it is silent.

A link that is up and yet carries nothing (an access point without uplink, a firewall that began to
eat UDP) gives no event. It is found by silence while another link answers, set back in the order,
and asked again and again until it has answered for a while.
"""

from __future__ import annotations

from ntmd.node.common import Common
from ntmd.node.shift import Shift
from ntmd.node.tunnels import Tunnel
from ntmd.node.underlay import Underlay
from ntmd.node.uplink import BRIEF, UNEASY, patience
from ntmd.proto.messages import MoveCause
from ntmd.proto.plane import TunnelActivity
from ntmd.proto.timing import (
    LADDER,
    LINK_BACK,
    LINK_PATIENCE,
    LINK_RETRY,
    STANDBY_SOCKETS,
)


class Links:
    """Per own socket: the last sign of life, and the way back after a silence."""

    def __init__(self, common: Common, underlay: Underlay, shift: Shift) -> None:
        self._common, self._underlay, self._shift = common, underlay, shift
        self._heard: dict[int, float] = {}
        self._answers: dict[int, list[float]] = {}  # silent sockets: when asked and answered since
        self._falls: dict[int, int] = {}
        self._since: dict[int, float] = {}  # silent sockets: when they last answered, or fell

    # -------------------------------------------------------------- signs of life

    def heard(self, socket: int, now: float) -> None:
        """Something authenticated came in on an own socket."""
        if socket not in self._heard:  # sockets come and go: those long gone are forgotten
            for number in [n for n in self._heard if not self._underlay.interface(n)]:
                del self._heard[number]
        self._heard[socket] = now

    def carried(
        self, before: TunnelActivity | None, event: TunnelActivity, _tunnel: Tunnel
    ) -> None:
        """The plane's totals: on which sockets data came in."""
        known = dict(before.received) if before is not None else {}
        for socket, count in event.received:
            if count > known.get(socket, 0):
                self.heard(socket, max(self._heard.get(socket, 0.0), event.last_rx))

    def last(self, socket: int) -> float:
        """When the link last showed life, seconds."""
        return self._heard.get(socket, 0.0)

    def heard_since(self, socket: int, since: float) -> bool:
        """Whether the link showed life after ``since``."""
        return self._heard.get(socket, -1e9) > since

    def others(self, socket: int) -> list[int]:
        """Own sockets on other links, best first, as many as are kept warm."""
        found = [
            s.number
            for s in self._underlay.usable()
            if not self._underlay.same_link(s.number, socket)
        ]
        return found[:STANDBY_SOCKETS]

    # -------------------------------------------------------------- a server is silent

    def uneasy(self, socket: int, now: float) -> None:
        """A server does not answer on this link: does any other one here, or else on another link?
        A server that died says nothing of the link."""
        timer = ("uneasy link", socket)
        if not self.others(socket) or self._common.timers.pending(timer) is not None:
            return
        here = [u for u in self._shift.uplinks() if u.path is not None and u.path.socket == socket]
        asked = [each for each in here if each.ask(now)]
        due = now + UNEASY if asked else now
        since = now - UNEASY  # what was heard while the server was being asked counts
        self._common.timers.set(timer, due, lambda at: self._elsewhere(socket, since, at))

    def _elsewhere(self, socket: int, since: float, now: float) -> None:
        if self.heard_since(socket, since):
            return
        server = self._shift.server()
        for other in self.others(socket):
            server.warm(other, now, lambda at: self._other_answers(socket, since, at))

    def _other_answers(self, socket: int, since: float, now: float) -> None:
        if not self.heard_since(socket, since) and self._underlay.is_open(socket):
            self.silent(socket, now)

    # -------------------------------------------------------------- silent, and back

    def silent(self, socket: int, now: float) -> None:
        """Nothing comes over this link while another one answers: the whole node leaves it."""
        name = self._underlay.interface(socket)
        if not self._underlay.set_silent(socket, True):
            return
        self._common.counters["link_silent"] += 1
        self._common.tell("warning", "link is silent", interface=name)
        self._falls[socket] = self._falls.get(socket, 0) + 1
        self._answers[socket], self._since[socket] = [], now
        self._shift.preferred_changed(now, (MoveCause.PATH_SILENT, f"silent link {name}"))
        self._again(socket, now)

    def _again(self, socket: int, now: float) -> None:
        wait = patience(now - self._since.get(socket, now))
        self._common.timers.set(
            ("silent link", socket), now + wait, lambda at: self._retry(socket, at)
        )

    def _retry(self, socket: int, now: float) -> None:
        if not self._underlay.is_open(socket):
            self._answers.pop(socket, None)
            self._falls.pop(socket, None)
            self._since.pop(socket, None)
            return
        answers = self._answers.setdefault(socket, [])
        if answers and now - answers[-1] > LINK_RETRY + sum(LADDER):
            answers.clear()  # silent again meanwhile
        long = now - self._since.get(socket, now) > LINK_PATIENCE * LINK_RETRY
        self._shift.server().warm(
            socket, now, lambda at: self._answered(socket, at), BRIEF if long else LADDER
        )
        self._again(socket, now)

    def _answered(self, socket: int, now: float) -> None:
        """It answers: after a time that grows with each fall it counts as before."""
        answers = self._answers.get(socket)
        if answers is None:
            return
        answers.append(now)
        self._since[socket] = now
        wait = LINK_BACK * 2 ** min(self._falls.get(socket, 1) - 1, 4)
        if now - answers[0] < wait:
            return
        del self._answers[socket], self._since[socket]
        self._common.timers.cancel(("silent link", socket))
        if self._underlay.set_silent(socket, False):
            name = self._underlay.interface(socket)
            self._shift.preferred_changed(now, (MoveCause.PROMOTION, f"link answers again {name}"))
