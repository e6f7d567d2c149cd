"""Which relay grants are kept for a peer: a newer direction adds to them, it takes none away.

The other end may have missed the newer direction, and then the older grant is the one that both
hold when no coordinator is left to ask (rule C5).
"""

from __future__ import annotations

from ntmd.proto.errors import ProtocolError
from ntmd.proto.messages import RelayGrant
from ntmd.proto.records import parse_grant

KEPT = 4  # as many as a direction may carry


def renewed(
    held: tuple[RelayGrant, ...], fresh: tuple[RelayGrant, ...], now_ms: int
) -> tuple[RelayGrant, ...]:
    """``fresh`` first, then what is held for other relays and has not expired; four at most.

    ``now_ms`` is platform time. A relay is known by its name: one that came back with another key
    leaves only its fresh grant.
    """
    merged = {grant.relay.name: grant for grant in fresh}
    for grant in held:
        if grant.relay.name not in merged and _holds(grant, now_ms):
            merged[grant.relay.name] = grant
    return tuple(merged.values())[:KEPT]


def _holds(grant: RelayGrant, now_ms: int) -> bool:
    try:
        return parse_grant(grant.grant).expires_ms > now_ms
    except ProtocolError:
        return False
