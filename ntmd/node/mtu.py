"""How large a datagram each path carries (rule S5).

A path begins with what the padded handshake proved and is raised by answers to padded probes only:
the link's own size first, then the usual ones below it, all at once. While much data leaves, the
size is checked every second, and at once where data stays unanswered. When small frames are
answered and large ones are not, the path has become narrower (and whoever should have said so by
ICMP did not): the search begins anew. What routers say by ICMP is not heard: it is forgeable, and
the check is quicker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ntmd.node.common import Common
from ntmd.node.probing import MTU, Prober
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import Underlay
from ntmd.proto.channel import padded_probe
from ntmd.proto.plane import TunnelActivity
from ntmd.proto.timing import (
    DATAGRAM_MAX,
    MTU_BUSY,
    MTU_CHECK,
    MTU_RAISE,
    MTU_SIZES,
    SILENCE_FLOOR,
)
from ntmd.proto.types import Path

UDP_OVER_IP = {4: 28, 6: 48}
PATHS_KEPT = 512
DEAF_MOST = 5  # the pause before a deaf path is asked again doubles up to 2 to this, times a second


@dataclass(slots=True)
class _Search:
    """What is going on at a path: times in seconds, sizes in bytes of IP packet."""

    until: float = -1e9  # probes are under way
    checked_at: float = -1e9
    sent: int = 0  # bytes of the tunnel at the last check
    raise_at: float = 0.0
    answered: int = 0  # largest size answered since the last probes
    alive: bool = False  # an unpadded probe was
    deaf: int = 0  # searches in a row to which nothing was answered


class MtuSearch:
    """Finds and watches the size of the paths that carry data."""

    def __init__(
        self, common: Common, underlay: Underlay, prober: Prober, tunnels: Tunnels
    ) -> None:
        self._common, self._underlay, self._prober = common, underlay, prober
        self._tunnels, self._places = tunnels, underlay.places
        self._searches: dict[Path, _Search] = {}

    def activity(self, tunnel: Tunnel, event: TunnelActivity, now: float) -> None:
        """Data flows: look for the path's size, or look whether it is still the same."""
        path = tunnel.paths.primary
        if path is None or tunnel.handle is None or self._underlay.streams.has(path.socket):
            return
        search = self._search_of(path)
        if now < search.until:
            return
        ceiling, known = self._ceiling(path), self._underlay.mtus.get(path)
        if known is None or (known < ceiling and now >= search.raise_at):
            sizes = (0, *self._remembered(path, ceiling), ceiling)
            self._ask(tunnel, path, sizes, now, self._first)
        elif event.tx_bytes - search.sent >= MTU_BUSY and now - search.checked_at >= MTU_CHECK:
            search.sent = event.tx_bytes
            self._ask(tunnel, path, (0, known), now, self._checked)

    def small_passes(self, tunnel: Tunnel, now: float) -> None:
        """Data stayed unanswered, and a small frame is answered: do large ones still pass?"""
        path, event = tunnel.paths.primary, tunnel.activity
        if path is None or event is None or tunnel.handle is None:
            return
        known = self._underlay.mtus.get(path)
        if known is None or known <= self._underlay.least_mtu(path):
            return
        search = self._search_of(path)
        if now < search.until or event.tx_bytes - search.sent < known:
            return
        search.sent = event.tx_bytes
        self._ask(tunnel, path, (0, known), now, self._checked)

    def _search_of(self, path: Path) -> _Search:
        search = self._searches.pop(path, None)
        if search is None:
            search = _Search()
            for old in [p for p in self._searches if not self._underlay.is_open(p.socket)]:
                self._forget(old)
            while len(self._searches) >= PATHS_KEPT:
                self._forget(next(iter(self._searches)))
        self._searches[path] = search
        return search

    def _forget(self, path: Path) -> None:
        del self._searches[path]
        self._underlay.mtus.pop(path, None)

    def _ceiling(self, path: Path) -> int:
        socket = self._underlay.find(path.socket)
        return min(socket.mtu if socket else DATAGRAM_MAX, DATAGRAM_MAX)

    def _remembered(self, path: Path, ceiling: int) -> tuple[int, ...]:
        """The size that passed when this node was last in this network, if it is less."""
        known = self._places.at(path.socket).mtu
        return (known,) if self._underlay.least_mtu(path) < known < ceiling else ()

    # -------------------------------------------------------------- asking

    def _ask(
        self,
        tunnel: Tunnel,
        path: Path,
        sizes: tuple[int, ...],
        now: float,
        then: Callable[[Tunnel, Path, float], None],
    ) -> None:
        """Send a probe of each size, three times; look at the answers after max(3 RTT, 200 ms)."""
        search, handle = self._search_of(path), tunnel.handle
        assert handle is not None
        wait = max(3 * (tunnel.paths.rtt(path) or 0.0), SILENCE_FLOOR)
        search.until, search.checked_at = now + wait, now
        search.answered, search.alive = 0, False
        for size in sizes:
            room = max(0, size - UDP_OVER_IP[path.remote.family])
            self._prober.start(
                handle,
                path,
                now,
                lambda proof, at, size=size: self._passed(tunnel, path, size),  # type: ignore[misc]
                make=lambda nonce, room=room: padded_probe(nonce, room),  # type: ignore[misc]
                ladder=(wait / 4, wait / 4),
                purpose=MTU,
            )
        self._common.timers.set(
            ("mtu", path), search.until, lambda at: then(tunnel, path, at) if tunnel.live else None
        )

    def _passed(self, tunnel: Tunnel, path: Path, size: int) -> None:
        search = self._search_of(path)
        search.alive, search.deaf = True, 0
        search.answered = max(search.answered, size)
        if size > self._underlay.mtus.get(path, 0):
            self._set(tunnel, path, size)

    def _set(self, tunnel: Tunnel, path: Path, size: int | None) -> None:
        if size is None:
            self._underlay.mtus.pop(path, None)
        else:
            self._underlay.mtus[path] = size
        if path in tunnel.paths.sending:
            self._tunnels.refresh(tunnel)

    # -------------------------------------------------------------- looking at the answers

    def _first(self, tunnel: Tunnel, path: Path, now: float) -> None:
        """The link's own size was asked for: if it did not pass, all below it are tried; but not
        where nothing passes at all, for 40 kB a path would fill a narrow link."""
        search, ceiling = self._search_of(path), self._ceiling(path)
        if not search.alive:
            search.until = now + MTU_CHECK * 2 ** min(search.deaf, DEAF_MOST)
            search.deaf += 1
        elif search.answered in self._remembered(path, ceiling):
            self._settled(tunnel, path, now)
        elif search.answered < ceiling:
            known = self._underlay.mtus.get(path, 0)
            sizes = tuple(size for size in MTU_SIZES if known < size < ceiling)
            self._ask(tunnel, path, sizes, now, self._settled)
        else:
            self._places.learn(path.socket, mtu=ceiling)

    def _settled(self, tunnel: Tunnel, path: Path, now: float) -> None:
        """Every size was asked for; what was answered stays, or the handshake's size."""
        self._search_of(path).raise_at = now + MTU_RAISE
        if path not in self._underlay.mtus:
            self._set(tunnel, path, self._underlay.least_mtu(path))
        self._places.learn(path.socket, mtu=self._underlay.mtus[path])

    def _checked(self, tunnel: Tunnel, path: Path, now: float) -> None:
        """Small frames pass and large ones do not: the path is narrower than it was."""
        search, known = self._search_of(path), self._underlay.mtus.get(path)
        least = self._underlay.least_mtu(path)
        if known is None or search.answered or not search.alive or known <= least:
            return
        self._common.counters["mtu_shrunk"] += 1
        self._set(tunnel, path, None)
        sizes = tuple(size for size in MTU_SIZES if size < known)
        self._ask(tunnel, path, (known, *sizes), now, self._settled)  # known: it may have been loss
