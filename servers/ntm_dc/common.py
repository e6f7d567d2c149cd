"""What the parts of the coordinator's core share: engine, trust, time, timers, requests."""

from __future__ import annotations

import heapq
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ntm_dc.values import DcSettings
from ntmd.proto.certs import Leaf, Trust, check_leaf, parse_leaf
from ntmd.proto.crypto import ed25519_public, public_key, sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Identity
from ntmd.proto.io import Tell
from ntmd.proto.messages import Message, Request
from ntmd.proto.session import SessionEngine
from ntmd.proto.timing import REQUEST_TIMEOUT
from ntmd.proto.types import Endpoint, Path, Role

Answered = Callable[[Message | None, float], None]


@dataclass(slots=True)
class Bucket:
    """A token bucket that holds at most one second's worth, and never less than one."""

    tokens: float
    filled: float

    def take(self, rate: float, now: float) -> bool:
        """Whether one more is allowed now."""
        most = max(rate, 1.0)
        self.tokens = min(most, self.tokens + (now - self.filled) * rate)
        self.filled = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class Buckets:
    """Token buckets by key; the least recently used leave when there are too many."""

    def __init__(self, rate: float, keep: int = 65_536) -> None:
        self._rate, self._keep = rate, keep
        self._buckets: dict[Any, Bucket] = {}

    def take(self, key: Any, now: float) -> bool:
        """Whether ``key`` may have one more now."""
        bucket = self._buckets.pop(key, None) or Bucket(max(self._rate, 1.0), now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._keep:
            del self._buckets[next(iter(self._buckets))]
        return bucket.take(self._rate, now)


class Common:
    """One per core; every part holds it."""

    engine: SessionEngine

    def __init__(
        self,
        settings: DcSettings,
        identity: Identity,
        trust: Trust,
        sign_private: bytes,
        sign_certificate: bytes,
        prefix: ipaddress.IPv6Network,
        random: Callable[[int], bytes],
        now: float,
        wall_ms: int,
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.own_key = public_key(identity.private_key)
        self.trust = trust
        self.sign_private = sign_private
        self.sign_certificate = sign_certificate
        self.prefix = prefix
        self.random = random
        self.sockets = settings.sockets()
        self.commands: list[Any] = []
        self.counters: Counter[str] = Counter()
        self.revoked: frozenset[bytes] = frozenset()
        anchor = next(iter(trust.anchors.values()))
        self.platform_id: bytes = anchor.platform_id
        self.virtual: ipaddress.IPv6Network = anchor.network
        self._offset_ms = wall_ms - now * 1000
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = 0
        self._asked: dict[tuple[int, int], Answered] = {}
        self.check_sign(sign_certificate, sign_private)

    def check_sign(self, certificate: bytes, private: bytes) -> None:
        """Our own signing certificate must be for our key, domain and prefix; ValueError if not."""
        leaf = parse_leaf(certificate)
        if leaf.role is not Role.DC_SIGN or leaf.key != ed25519_public(private):
            raise ValueError("the signing certificate is not for the signing key")
        if leaf.domain != self.settings.domain or leaf.prefix != self.prefix:
            raise ValueError("the signing certificate is for another domain or prefix")

    # -------------------------------------------------------------- time

    def platform_ms(self, now: float) -> int:
        """Platform time at a boot-clock instant (rule S8)."""
        return int(self._offset_ms + now * 1000)

    def at(self, when: float, what: Callable[[float], None]) -> None:
        """Call ``what(now)`` at ``when``; it checks itself whether it still applies."""
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, what))

    def deadline(self) -> float | None:
        """The next timer."""
        return self._timers[0][0] if self._timers else None

    def run_timers(self, now: float) -> None:
        """Run what is due."""
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2](now)

    # -------------------------------------------------------------- saying and asking

    def emit(self, command: Any) -> None:
        """Wish for something."""
        self.commands.append(command)

    def tell(self, level: str, what: str, **fields: Any) -> None:
        """Something for the operator's log."""
        self.commands.append(Tell(level, what, fields))

    def refuse(self, error: ProtocolError, **fields: Any) -> None:
        """A peer broke a rule: one counter, one line for who looks into it."""
        self.counters[error.kind] += 1
        self.tell("debug", "refused", kind=error.kind, detail=error.detail, **fields)

    def ask(
        self,
        handle: int,
        request: Request,
        now: float,
        done: Answered,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        """Send a request; ``done(reply or None, now)`` is called once."""
        number = self.engine.ask(handle, request, now, timeout=timeout)
        self._asked[handle, number] = done

    def answered(self, handle: int, number: int, reply: Message | None, now: float) -> None:
        """The engine reports the end of a request."""
        done = self._asked.pop((handle, number), None)
        if done is not None:
            done(reply, now)

    def waiting(self) -> int:
        """Requests under way."""
        return len(self._asked)

    # -------------------------------------------------------------- checks and paths

    def verified(self, der: bytes, role: Role, name: str | None, now: float) -> Leaf:
        """A certificate of ``role`` (and ``name``) that holds now; raises ProtocolError."""
        leaf = parse_leaf(der)
        check_leaf(leaf, self.trust, role=role, name=name, now_ms=self.platform_ms(now))
        if sha256(leaf.key) in self.revoked:
            raise ProtocolError("certificate_revoked")
        return leaf

    def path_to(self, endpoint: Endpoint) -> Path | None:
        """From our first listening socket of the endpoint's family."""
        for number, own in enumerate(self.settings.listen, 1):
            if own.family == endpoint.family:
                return Path(number, endpoint)
        return None
