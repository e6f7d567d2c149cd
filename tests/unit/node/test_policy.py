"""Which pre-shared key opens a session (rule C4): the whole matrix, and each refusal by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ntmd.node.common import Common
from ntmd.node.memory import KnownPeer, Memory, Resumption
from ntmd.node.policy import NodePolicy, offered_psks
from ntmd.node.tunnels import Tunnels
from ntmd.proto.events import Psk, Remote
from ntmd.proto.messages import PskRef
from ntmd.proto.records import Record
from ntmd.proto.types import Arrival, Endpoint, Peer, PskKind, Role

KEY, DC_KEY = b"k" * 32, b"d" * 32
NAME = "laptop.home.test"
DIRECTION = Psk(PskKind.DIRECTION, b"D" * 16, b"1" * 32)
RESUMPTION = Psk(PskKind.RESUMPTION, b"R" * 16, b"2" * 32)
RECORD = Record(1, 0, b"a" * 16, 0, 700_000, bytes(32), bytes(8), bytes(64)).pack()
ARRIVAL = Arrival(1, Endpoint("203.0.113.9", 4330), 0)


def stand(*, directed: bool, resumption: bool, met: bool) -> tuple[NodePolicy, Any, Any]:
    memory = Memory({}, lambda _: None)
    if met or resumption:
        kept = (Resumption(RESUMPTION.id, RESUMPTION.secret, 1_000_000),) if resumption else ()
        memory.keep_peer(KnownPeer(NAME, KEY, b"a" * 16, b"c", RECORD, b"s", (), kept, met=met))
    tunnel = SimpleNamespace(
        peer=Peer(Role.NODE, NAME, KEY),
        direction=DIRECTION if directed else None,
        direction_until=600.0,
    )
    common = SimpleNamespace(
        memory=memory,
        clock=lambda now: int(now * 1000),
        home=SimpleNamespace(dc=Peer(Role.DC, "dc.home.test", DC_KEY)),
    )
    tunnels = SimpleNamespace(by_key={KEY: tunnel})
    policy = NodePolicy(lambda: cast(Common, common), lambda: cast(Tunnels, tunnels))
    return policy, common, tunnel


def caller(role: Role = Role.NODE, key: bytes = KEY, name: str = NAME) -> Remote:
    leaf = SimpleNamespace(role=role, name=name, key=key, domain="home.test")
    return Remote(cast(Any, leaf), b"", None, 0)


def refs(*psks: Psk) -> tuple[PskRef, ...]:
    return tuple(PskRef(int(p.kind), p.id) for p in psks)


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("offers", [True, False])
@pytest.mark.parametrize("met", [True, False])
def test_first_contact_needs_the_coordinators_psk_at_both_ends(
    directed: bool, offers: bool, met: bool
) -> None:
    policy, _, _ = stand(directed=directed, resumption=False, met=met)
    admitted = policy.admit(caller(), refs(DIRECTION) if offers else (), ARRIVAL, 5.0)
    if directed and offers:
        assert admitted is not None
        assert (admitted.psk, admitted.position) == (DIRECTION, 1)
    elif met:
        assert admitted is not None
        assert (admitted.psk, admitted.position) == (None, 0)
    else:
        assert admitted is None


def test_the_first_psk_that_is_held_is_taken_and_named_by_its_place() -> None:
    policy, _, _ = stand(directed=False, resumption=True, met=True)
    admitted = policy.admit(caller(), refs(DIRECTION, RESUMPTION), ARRIVAL, 5.0)
    assert admitted is not None
    assert (admitted.psk, admitted.position) == (RESUMPTION, 2)


def test_spent_and_expired_psks_are_refused() -> None:
    policy, common, tunnel = stand(directed=True, resumption=True, met=False)
    assert policy.admit(caller(), refs(DIRECTION), ARRIVAL, 601.0) is None
    assert policy.admit(caller(), refs(RESUMPTION), ARRIVAL, 1001.0) is None
    tunnel.direction = None
    assert policy.admit(caller(), refs(DIRECTION), ARRIVAL, 5.0) is None
    assert offered_psks(common, tunnel, 5.0) == [RESUMPTION]


def test_a_psk_is_bound_to_the_name() -> None:
    policy, _, _ = stand(directed=True, resumption=False, met=False)
    assert policy.admit(caller(name="other.home.test"), refs(DIRECTION), ARRIVAL, 5.0) is None


def test_only_the_own_coordinator_and_nodes_may_call() -> None:
    policy, _, _ = stand(directed=True, resumption=True, met=True)
    assert policy.admit(caller(Role.DC, DC_KEY, "dc.home.test"), (), ARRIVAL, 5.0) is not None
    assert policy.admit(caller(Role.DC, KEY, "dc.evil.test"), (), ARRIVAL, 5.0) is None
    assert policy.admit(caller(Role.RS, KEY, NAME), refs(DIRECTION), ARRIVAL, 5.0) is None


def test_an_answer_without_psk_is_accepted_from_peers_met_before_only() -> None:
    strange, _, _ = stand(directed=True, resumption=False, met=False)
    known, _, _ = stand(directed=True, resumption=False, met=True)
    peer = Peer(Role.NODE, NAME, KEY)
    assert not strange.accept_unauthorised(peer, 5.0)
    assert known.accept_unauthorised(peer, 5.0)
    assert strange.accept_unauthorised(Peer(Role.RS, "rs1.home.test", b"r" * 32), 5.0)


def test_a_record_that_ran_out_needs_a_resumption_psk() -> None:
    """Only that stands for what is not signed any more (rules C4 and C9)."""
    policy, _, _ = stand(directed=False, resumption=True, met=True)
    peer = Peer(Role.NODE, NAME, KEY)
    assert policy.admit(caller(), (), ARRIVAL, 700.0) is not None
    assert policy.accept_unauthorised(peer, 700.0)
    assert policy.admit(caller(), (), ARRIVAL, 701.0) is None
    assert not policy.accept_unauthorised(peer, 701.0)
    assert policy.admit(caller(), refs(RESUMPTION), ARRIVAL, 701.0) is not None
