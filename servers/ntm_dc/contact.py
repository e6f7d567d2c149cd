"""What a foreign coordinator may make our nodes send to one place (rule S7).

A coordinator that lists a victim as a candidate makes the called node send there before anybody
has answered. Each node bounds what all directions together cause; this bounds, over all our nodes,
what the directions of one coordinator cause towards one prefix.
"""

from __future__ import annotations

import ipaddress

from ntmd.proto.messages import CandidateField, RouteInfo
from ntmd.proto.timing import CANDIDATE_COPIES, DIRECTION_BYTES, HANDSHAKE_SIZE

OPENER_BYTES = 3 * 60  # three headers with their UDP and IP: what a node that waits sends
MINUTE = 60.0
KEPT = 65_536  # (coordinator, prefix) pairs remembered; the oldest leave


class ContactBudgets:
    """First-contact bytes by coordinator (its key) and candidate's prefix, per minute."""

    def __init__(self) -> None:
        self._spent: dict[tuple[bytes, str], tuple[float, int]] = {}

    def allowed(self, dc_key: bytes, route: RouteInfo, now: float) -> tuple[CandidateField, ...]:
        """The candidates of a route that are within the budget; counts them."""
        each = CANDIDATE_COPIES * HANDSHAKE_SIZE if route.start else OPENER_BYTES
        return tuple(item for item in route.candidates if self._take(dc_key, item, each, now))

    def _take(self, dc_key: bytes, item: CandidateField, size: int, now: float) -> bool:
        place = (dc_key, prefix_of(item.endpoint.host))
        since, spent = self._spent.pop(place, (now, 0))
        if now - since >= MINUTE:
            since, spent = now, 0
        good = spent + size <= DIRECTION_BYTES
        self._spent[place] = (since, spent + size if good else spent)
        if len(self._spent) > KEPT:
            del self._spent[next(iter(self._spent))]
        return good


def prefix_of(host: str) -> str:
    """The /24 or /48 of an address."""
    length = 24 if "." in host else 48
    return str(ipaddress.ip_network((host, length), strict=False))
