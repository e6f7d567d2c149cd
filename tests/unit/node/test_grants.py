"""Grants held for a peer: a newer direction adds to them and takes none away (decision 0080)."""

from __future__ import annotations

from ntmd.node.grants import KEPT, renewed
from ntmd.proto.messages import RelayGrant, RelayInfo
from ntmd.proto.records import sign_grant

NOW, DAY = 1_800_000_000_000, 86_400_000


def grant(relay: str, expires_ms: int = NOW + DAY, kbit_s: int = 0) -> RelayGrant:
    data = sign_grant(
        bytes(32),
        bytes(32),
        rs_key_hash=relay.encode().ljust(32),
        grant_id=bytes(16),
        node_a_hash=b"a" * 32,
        node_b_hash=b"b" * 32,
        issued_ms=NOW,
        expires_ms=expires_ms,
        kbit_s=kbit_s,
    )
    return RelayGrant(RelayInfo(relay, b"certificate", ()), data)


def test_fresh_ones_come_first_and_others_stay() -> None:
    old, other, fresh = grant("rs1"), grant("rs2"), grant("rs1", kbit_s=7)
    assert renewed((old, other), (fresh,), NOW) == (fresh, other)
    assert renewed((old,), (), NOW) == (old,)


def test_what_expired_or_cannot_be_read_is_not_kept() -> None:
    broken = RelayGrant(RelayInfo("rs3", b"", ()), b"broken")
    fresh = grant("rs1")
    assert renewed((grant("rs2", NOW), broken), (fresh,), NOW) == (fresh,)


def test_a_peer_has_no_more_than_a_direction_carries() -> None:
    held = tuple(grant(f"rs{n}") for n in range(KEPT))
    fresh = grant("new")
    assert renewed(held, (fresh,), NOW) == (fresh, *held[: KEPT - 1])
