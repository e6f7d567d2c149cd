"""Who may open a session with this node, and on which pre-shared key (rule C4)."""

from __future__ import annotations

from collections.abc import Callable

from ntmd.node.common import Common
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Admission, Psk, Remote
from ntmd.proto.messages import PskRef
from ntmd.proto.records import Record
from ntmd.proto.types import Arrival, Peer, PskKind, Role


def resumption_psks(common: Common, key: bytes, now: float) -> list[Psk]:
    """The resumption psks kept for a peer that are still good, newest first."""
    known = common.memory.by_key(key)
    if known is None:
        return []
    now_ms = common.clock(now)
    return [
        Psk(PskKind.RESUMPTION, r.id, r.secret) for r in known.resumption if r.until_ms > now_ms
    ]


def offered_psks(common: Common, tunnel: Tunnel, now: float) -> list[Psk]:
    """What a call offers: the coordinator's psk first, then resumption."""
    found: list[Psk] = []
    if tunnel.direction is not None and now < tunnel.direction_until:
        found.append(tunnel.direction)
    return [*found, *resumption_psks(common, tunnel.peer.key, now)][:4]


class NodePolicy:
    """Answers the engine's questions about callers. Tunnels are handed in once they exist."""

    def __init__(self, common: Callable[[], Common], tunnels: Callable[[], Tunnels]) -> None:
        self._common, self._tunnels = common, tunnels

    def admit(
        self, caller: Remote, offered: tuple[PskRef, ...], arrival: Arrival, now: float
    ) -> Admission | None:
        """A caller's certificate holds: may it have a session, and on which psk?"""
        leaf = caller.leaf
        if leaf.role is Role.DC:
            mine = leaf.key == self._common().home.dc.key
            return Admission(None, 0) if mine else None
        if leaf.role is not Role.NODE:
            return None
        held = self._held(leaf.key, leaf.name, now)
        for position, ref in enumerate(offered, 1):
            for psk in held:
                if psk.kind == ref.kind and psk.id == ref.id:
                    return Admission(psk, position)
        if self._met(leaf.key, leaf.name, now):
            return Admission(None, 0)
        return None

    def accept_unauthorised(self, peer: Peer, now: float) -> bool:
        """May an answer without psk be accepted although some were offered?"""
        return peer.role is not Role.NODE or self._met(peer.key, peer.name, now)

    def _held(self, key: bytes, name: str, now: float) -> list[Psk]:
        tunnel = self._tunnels().by_key.get(key)
        known = self._common().memory.by_key(key)
        same = known is not None and known.name == name
        found = resumption_psks(self._common(), key, now) if same else []
        if tunnel is None or tunnel.peer.name != name or tunnel.direction is None:
            return found
        return [tunnel.direction, *found] if now < tunnel.direction_until else found

    def _met(self, key: bytes, name: str, now: float) -> bool:
        """Whether it was met before, and what the coordinator signed of it then still holds."""
        common = self._common()
        known = common.memory.by_key(key)
        if known is None or not known.met or known.name != name:
            return False
        try:
            return Record.unpack(known.record).expires_ms >= common.clock(now)
        except ProtocolError:
            return False
