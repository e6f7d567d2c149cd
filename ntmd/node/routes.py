"""Is the other end who the coordinator says it is? Certificate, record and pin of a route."""

from __future__ import annotations

from dataclasses import dataclass

from ntmd.node.common import Common
from ntmd.node.memory import KnownPeer
from ntmd.proto.certs import Leaf, check_leaf, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.records import Record, check_record
from ntmd.proto.types import Peer, Role


@dataclass(frozen=True, slots=True)
class Verified:
    """A peer whose certificate, record and pin hold."""

    peer: Peer
    leaf: Leaf
    record: Record


def verify(
    common: Common,
    name: str,
    certificate: bytes,
    record: bytes,
    dc_sign: bytes,
    now: float,
    *,
    grace_ms: int = 0,
) -> Verified:
    """Check what vouches for ``name``; raises ProtocolError naming what does not hold (C2, C8).

    The certificate must carry the very name, chain to the platform's anchor and be a node's; the
    record must be signed by the coordinator of the name's own domain, for this key; and no older
    valid record may bind the name to another address or the address to another name. ``grace_ms``
    is for what ran out, where a resumption psk stands for it (rule C9).
    """
    now_ms = common.clock(now)
    leaf = parse_leaf(certificate)
    slack = common.clock.slack_ms()
    check_leaf(
        leaf,
        common.trust,
        role=Role.NODE,
        name=name,
        now_ms=now_ms,
        slack_ms=slack,
        grace_ms=grace_ms,
    )
    if leaf.key == common.own_leaf().key:
        raise ProtocolError("route_to_self")
    signer = parse_leaf(dc_sign)
    check_leaf(
        signer,
        common.trust,
        role=Role.DC_SIGN,
        name=None,
        now_ms=now_ms,
        slack_ms=slack,
        grace_ms=grace_ms,
    )
    checked = check_record(
        record,
        platform_id(common),
        leaf.name,
        leaf.key,
        signer,
        now_ms - grace_ms,
        domain=leaf.domain,
    )
    check_pin(common, leaf.name, checked.address, now_ms)
    return Verified(Peer(Role.NODE, leaf.name, leaf.key), leaf, checked)


def platform_id(common: Common) -> bytes:
    """The platform of this node (rule S9)."""
    return next(iter(common.trust.anchors.values())).platform_id


def check_pin(common: Common, name: str, address: bytes, now_ms: int) -> None:
    """Refuse a binding that contradicts an older one that is still valid (rule C2)."""
    memory = common.memory
    if address == memory.address:
        raise ProtocolError("binding_conflict", name)
    for known in memory.peers.values():
        same_name, same_address = known.name == name, known.address == address
        if same_name == same_address or not known.record:
            continue
        try:
            if Record.unpack(known.record).expires_ms > now_ms:
                raise ProtocolError("binding_conflict", name)
        except ProtocolError as error:
            if error.kind == "binding_conflict":
                raise


def verify_known(common: Common, known: KnownPeer, now: float, grace_ms: int = 0) -> Verified:
    """The same for a peer kept from before."""
    return verify(
        common,
        known.name,
        known.certificate,
        known.record,
        known.dc_sign,
        now,
        grace_ms=grace_ms,
    )
