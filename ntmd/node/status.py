"""What the node tells its user: the parts of ``ntmd status --json`` and of netcheck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ntmd.node.common import Common
from ntmd.node.journal import Journal
from ntmd.node.nat import NatFacts
from ntmd.node.registration import Registration
from ntmd.node.relays import Relay, Relays
from ntmd.node.tunnel import word
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.underlay import OwnSocket, Underlay
from ntmd.proto.errors import ProtocolError
from ntmd.proto.plane import PlaneStats
from ntmd.proto.records import Record
from ntmd.proto.types import Endpoint, Path, Suite, format_address

SCHEMA = 1
CIPHERS = {Suite.AES_GCM: "AES-256-GCM", Suite.CHACHA: "ChaCha20-Poly1305"}
SHOWN_HANDOVERS = 20


class Status:
    """Forms answers from the facts of all parts; decides nothing."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        registration: Registration,
        relays: Relays,
        tunnels: Tunnels,
        journal: Journal,
        reflexive: Callable[[], dict[int, Endpoint]],
        plane: Callable[[], PlaneStats],
    ) -> None:
        self._common, self._underlay, self._registration = common, underlay, registration
        self._relays, self._tunnels, self._journal = relays, tunnels, journal
        self._reflexive, self._plane = reflexive, plane
        self._health_since: dict[str, int] = {}
        self.notices: list[Callable[[float], tuple[str, str, str] | None]] = []

    def whole(self, now: float) -> dict[str, Any]:
        """``ntmd status --json``, but for what only the shell knows (pid, DNS mode)."""
        return {
            "schema": SCHEMA,
            "version": self._common.settings.version,
            "state": self._registration.state(),
            "self": self.own(now),
            "coordinator": self._coordinator(now),
            "underlay": [self._socket(s) for s in self._underlay.usable()],
            "relays": [self.relay(r) for r in self._relays.by_name.values()],
            "peers": [self.peer(t, now) for t in self._tunnels.all()],
            "handovers": [e.as_json() for e in self._journal.entries[-SHOWN_HANDOVERS:]],
            "drops": self._drops(),
            "health": self._health(now),
        }

    def own(self, now: float) -> dict[str, Any]:
        """The part ``self``."""
        settings, memory = self._common.settings, self._common.memory
        return {
            "name": self._common.identity.name,
            "address": format_address(memory.address) if memory.address else None,
            "interface": settings.interface,
            "mtu": settings.mtu,
            "plane": settings.plane,
            "uptime_s": round(now - self._common.born, 1),
        }

    def _coordinator(self, now: float) -> dict[str, Any]:
        uplink = self._registration.uplink
        endpoint = uplink.path.remote if uplink.path else next(iter(uplink.endpoints), None)
        heard = uplink.last_heard
        return {
            "domain": self._common.home.domain,
            "endpoint": str(endpoint) if endpoint else None,
            "transport": "tls" if uplink.race.carries else "udp",
            "reachable": uplink.up,
            "last_seen_s": None if heard is None else round(now - heard, 1),
            "record_age_s": self._record_age(self._common.memory.record, now),
        }

    def _socket(self, socket: OwnSocket) -> dict[str, Any]:
        facts = self._registration.nat.facts.get(socket.number, NatFacts())
        seen = self._reflexive().get(socket.number)
        return {
            "interface": socket.network.interface,
            "address": socket.network.address,
            "reflexive": str(seen) if seen else None,
            "mapping": facts.mapping.value,
            "filtering": facts.filtering.value,
            "mapped": str(socket.mapped) if socket.mapped else None,
            "mapped_by": socket.mapped_by or None,
            "nat64": str(socket.nat64) if socket.nat64 else None,
            "usable": socket.local is not None,
            "metered": self._underlay.metered(socket.number),
            "udp": self._udp(socket, seen is not None),
        }

    def _udp(self, socket: OwnSocket, seen: bool) -> str:
        """``open``, ``blocked`` (servers are reached over TLS instead) or ``no answer`` (yet)."""
        return "blocked" if socket.number in self._blocked() else "open" if seen else "no answer"

    def _blocked(self) -> dict[int, None]:
        """UDP sockets on whose networks servers answer over TLS only, in order."""
        uplinks = [self._registration.uplink, *(r.uplink for r in self._relays.by_name.values())]
        streams = self._underlay.streams
        carried = [u.path.socket for u in uplinks if u.path is not None and u.race.carries]
        return dict.fromkeys(streams.base(number) for number in carried)

    def relay(self, relay: Relay) -> dict[str, Any]:
        """One relay."""
        uplink = relay.uplink
        endpoint = uplink.path.remote if uplink.path else next(iter(uplink.endpoints), None)
        return {
            "name": relay.info.name,
            "endpoint": str(endpoint) if endpoint else None,
            "rtt_ms": _ms(uplink.rtt),
            "transport": "tls" if uplink.race.carries else "udp",
            "reachable": uplink.up,
            "home": relay.home,
            "legs": sum(1 for leg in relay.legs.values() if leg.leg),
        }

    def path(self, tunnel: Tunnel, path: Path | None) -> dict[str, Any]:
        """One path of a peer."""
        if path is None:
            return {"kind": "none"}
        socket = self._underlay.find(path.socket)
        local = None
        if socket is not None and socket.local is not None:
            local = f"{socket.network.address}:{socket.local.port}"
            if socket.network.family == 6:
                local = f"[{socket.network.address}]:{socket.local.port}"
        return {
            "kind": "relay" if path.relayed else "direct",
            "transport": self._underlay.transport(path.socket),
            "interface": self._underlay.interface(path.socket),
            "local": local,
            "remote": str(path.remote),
            "relay": self._relays.name_of(path) if path.relayed else None,
            "rtt_ms": _ms(tunnel.paths.rtt(path)),
            "validity": tunnel.paths.validity(path).name.lower(),
            "mtu": self._underlay.mtu(path),
        }

    def _record_age(self, record: bytes, now: float) -> float | None:
        """Seconds since a coordinator signed it: how old what we know of a node is."""
        try:
            issued = Record.unpack(record).issued_ms
        except ProtocolError:
            return None
        return round(max(0, self._common.clock(now) - issued) / 1000, 1)

    def peer(self, tunnel: Tunnel, now: float) -> dict[str, Any]:
        """One peer with its paths."""
        activity, session = tunnel.activity, tunnel.session()
        others = [p for p in tunnel.paths.proven if p != tunnel.paths.primary]
        heard = max(tunnel.heard_at, activity.last_rx if activity else 0.0)
        return {
            "name": tunnel.peer.name,
            "address": format_address(tunnel.address) if tunnel.address else None,
            "state": word(tunnel.state),
            "path": self.path(tunnel, tunnel.paths.primary),
            "paths": [self.path(tunnel, p) for p in (*tunnel.paths.sending[1:], *others)],
            "tx_bytes": activity.tx_bytes if activity else 0,
            "rx_bytes": activity.rx_bytes if activity else 0,
            "tx_packets": activity.tx_packets if activity else 0,
            "rx_packets": activity.rx_packets if activity else 0,
            "last_rx_s": round(now - heard, 1) if heard else None,
            "record_age_s": self._record_age(tunnel.record, now),
            "session_age_s": round(now - session.born, 1) if session else None,
            "cipher": CIPHERS[session.suite] if session else None,
            "psk": tunnel.psk_used or None,
            "path_since_s": round(now - tunnel.paths.since, 1) if tunnel.paths.primary else None,
            "warm": [self.path(tunnel, p) for p in self._warm(tunnel)],
            "lost": activity.lost if activity else 0,
            "duplicated": activity.duplicated if activity else 0,
        }

    def _warm(self, tunnel: Tunnel) -> list[Path]:
        """What could carry at once besides the primary: proven ways, and the relay leg."""
        legs = [path for _, path in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay)]
        return [p for p in (*tunnel.paths.proven, *legs) if p != tunnel.paths.primary]

    def netcheck(self, now: float) -> dict[str, Any]:
        """``ntmd netcheck --json``."""
        rows = []
        for socket in self._underlay.usable():
            row = self._socket(socket)
            row["families"] = [socket.network.family]
            rows.append(row)
        return {
            "underlay": rows,
            "relays": [self.relay(r) for r in self._relays.by_name.values()],
            "coordinator": self._coordinator(now),
        }

    def _drops(self) -> dict[str, int]:
        drops = dict(self._plane().drops)
        for counter in (self._common.engine.counters, self._common.counters):
            for name, count in sorted(counter.items()):
                drops[name] = drops.get(name, 0) + count
        return drops

    # -------------------------------------------------------------- health

    def _health(self, now: float) -> list[dict[str, Any]]:
        found: list[tuple[str, str, str]] = []
        registration = self._registration
        if registration.state() == "offline":
            found.append(("offline", "error", "no underlay interface has a usable address"))
        elif not registration.uplink.up:
            text = "the coordinator does not answer; tunnels that exist go on"
            found.append(("coordinator", "warning", text))
        if registration.complaint:
            found.append(("registration", "error", registration.complaint))
        for number in self._blocked():
            text = (
                f"UDP gets no answer on {self._underlay.interface(number)}: "
                "servers are reached over TLS, and peers only through a relay"
            )
            found.append(("udp-blocked", "warning", text))
        off = self._common.clock.wrong_by()
        if off:
            text = f"the clock is off by {off:.0f} s; platform time is used instead"
            found.append(("clock", "warning", text))
        for tunnel in self._tunnels.all():
            if tunnel.in_grace:
                text = f"the certificate of {tunnel.peer.name} has expired"
                found.append(("certificate-expired", "warning", text))
        if self._common.counters["binding_conflict"]:
            text = "a direction contradicted an address that is known and valid; it was refused"
            found.append(("binding-conflict", "error", text))
        if self._common.counters["suspected_forwarder"]:
            text = "somebody forwards datagrams of a peer from another address; it was not followed"
            found.append(("suspected-forwarder", "warning", text))
        found += [
            ("memory", "warning", f"stored entry {key} is unreadable and was left alone")
            for key in self._common.memory.unreadable
        ]
        found += [item for item in (notice(now) for notice in self.notices) if item is not None]
        return [self._item(*item, now) for item in found]

    def _item(self, code: str, severity: str, text: str, now: float) -> dict[str, Any]:
        since = self._health_since.setdefault(code, self._common.clock(now))
        return {"code": code, "severity": severity, "text": text, "since": since // 1000}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
