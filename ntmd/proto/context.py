"""What the parts of the session engine share: identity, indices, timers, outputs, counters."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ntmd.proto import timing
from ntmd.proto.association import Association
from ntmd.proto.certs import Trust
from ntmd.proto.crypto import PrivateKey, hkdf, hmac256, sha256
from ntmd.proto.events import Event, Identity, Policy
from ntmd.proto.io import SendDatagram
from ntmd.proto.types import Arrival, Endpoint, Path, Peer

Random = Callable[[int], bytes]
SLOTS_REMEMBERED = 128  # of 256


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery index of ours: whose datagrams arrive under it, and the leg that leads back."""

    peer_key: bytes
    leg: int
    relay: Endpoint


class Sequencer:
    """Initiation sequences that never repeat (rule C10).

    ``mark`` is the persisted high-water mark; ``persist`` must have stored its argument durably
    when it returns, since that happens before the sequence is used.
    """

    def __init__(self, mark: int, persist: Callable[[int], None]) -> None:
        self._last = mark
        self._mark = mark
        self._persist = persist

    def next(self, wall_ms: int) -> int:
        """max(last + 1, wall-clock milliseconds)."""
        self._last = max(self._last + 1, wall_ms)
        if self._last >= self._mark:
            self._mark = self._last + timing.SEQUENCE_STEP
            self._persist(self._mark)
        return self._last


class Context:
    """Shared by the parts of one engine; the engine's owner never sees it."""

    def __init__(
        self,
        identity: Identity,
        trust: Trust,
        policy: Policy,
        random: Random,
        platform_ms: Callable[[float], int],
        sequencer: Sequencer,
    ) -> None:
        self.set_identity(identity)
        self.platform_id = next(iter(trust.anchors.values())).platform_id
        self.static = PrivateKey(identity.private_key)
        self.public = self.static.public
        self.trust = trust
        self.policy = policy
        self.random = random
        self.platform_ms = platform_ms
        self.sequencer = sequencer
        self.counters: Counter[str] = Counter()
        self.outputs: list[SendDatagram | Event] = []
        self.associations: dict[int, Association] = {}
        self.by_key: dict[bytes, Association] = {}
        self.slack_ms = 0  # extra tolerance for server certificates before the time is known (S8)
        self.indexes: dict[int, int | Delivery | None] = {}  # handle, delivery; None: not ours
        self.tokens: dict[bytes, tuple[int, int]] = {}  # peers' reset tokens: handle, peer's index
        self.relays: Counter[Endpoint] = Counter()  # where our deliveries come from
        self._quarantine: list[tuple[float, int]] = []
        self._timers: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0
        self._sessions = 0
        self._handles = 0
        self._reset_key = hkdf(identity.private_key, b"", b"ntm reset")

    def set_identity(self, identity: Identity) -> None:
        """A renewed certificate or record; role, name and key stay."""
        self.identity = identity
        self.certificate_hash = sha256(identity.certificates[0])
        self.record_hash = sha256(identity.record) if identity.record else b""
        self.fingerprint = self.certificate_hash + self.record_hash

    # -------------------------------------------------------------- indices

    def draw_index(self, now: float, use: int | Delivery | None = None) -> int:
        """A random u32, unique among the live ones and those of the last 180 s (rule S3)."""
        while self._quarantine and self._quarantine[0][0] <= now:
            self.indexes.pop(heapq.heappop(self._quarantine)[1], None)
        while True:
            index = int.from_bytes(self.random(4), "big")
            if index and index not in self.indexes:
                self.indexes[index] = use
                return index

    def free_index(self, index: int, now: float) -> None:
        """Stop using an index; it is not drawn again for a while."""
        if index in self.indexes:
            self.indexes[index] = None
            heapq.heappush(self._quarantine, (now + timing.INDEX_QUARANTINE, index))

    def draw_slot(self, association: Association, now: float) -> int:
        """A random u8, unique in the association among live slots and those of the last 180 s."""
        horizon = now - timing.INDEX_QUARANTINE
        old = [each for each in association.old_slots if each[0] > horizon]
        old = old[-SLOTS_REMEMBERED:]  # a peer that opens without end does not exhaust the slots
        taken = {slot for _, slot in old} | set(association.sessions)
        if association.call:
            taken |= {attempt.slot for attempt in association.call.attempts}
        while True:
            slot = self.random(1)[0]
            if slot not in taken:
                association.old_slots = (*old, (now, slot))
                return slot

    def reset_token(self, index: int) -> bytes:
        """Stateless reset token of an own index (rule S4)."""
        return hmac256(self._reset_key, index.to_bytes(4, "big"))[:16]

    def session_number(self) -> int:
        """Numbers of sessions, counted up over the life of the engine."""
        self._sessions += 1
        return self._sessions

    # -------------------------------------------------------------- associations, paths

    def association(self, peer: Peer) -> Association:
        """The association with a peer's key, made if there is none."""
        found = self.by_key.get(peer.key)
        if found is None:
            self._handles += 1
            found = Association(self._handles, peer)
            self.associations[found.handle] = self.by_key[peer.key] = found
        return found

    def back(self, arrival: Arrival) -> Path:
        """The path that leads back to where a datagram came from."""
        use = self.indexes.get(arrival.index)
        leg = use.leg if isinstance(use, Delivery) else 0
        return Path(arrival.socket, arrival.source, leg)

    def owner_of(self, index: int) -> Association | None:
        """The association whose datagrams arrive under an own index."""
        use = self.indexes.get(index)
        if isinstance(use, Delivery):
            return self.by_key.get(use.peer_key)
        return None if use is None else self.associations.get(use)

    def send(self, data: bytes, path: Path) -> None:
        """Put a datagram out."""
        self.outputs.append(SendDatagram(data, path))

    def emit(self, event: Event) -> None:
        """Tell the owner."""
        self.outputs.append(event)

    # -------------------------------------------------------------- timers

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        """Call ``what(*arguments, now)`` at ``when``; it checks itself whether it still applies."""
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, what, arguments))

    def deadline(self) -> float | None:
        """The next instant of interest."""
        return self._timers[0][0] if self._timers else None

    def run_timers(self, now: float) -> None:
        """Run what is due."""
        while self._timers and self._timers[0][0] <= now:
            _, _, what, arguments = heapq.heappop(self._timers)
            what(*arguments, now)
