"""What a relay looks at each second: what waits for something, not every node it knows."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from ntm_rs.clients import Clients
from ntmd.proto import messages as m
from ntmd.proto import timing
from ntmd.proto.crypto import sha256
from tests.unit.servers.rs_ground import Ground, Station


def lines_of_a_sweep(ground: Ground) -> int:
    """How many lines a sweep runs now."""
    count = 0

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: line if frame.f_code is Clients.sweep.__code__ else None)
    try:
        ground.core.clients.sweep(ground.now)
    finally:
        sys.settrace(before)
    return count


def joined(count: int) -> Ground:
    """A relay with so many nodes whose addresses are proved."""
    ground = Ground()
    for number in range(count):
        ground.node(f"n{number}", f"203.0.113.{number + 1}").call_relay()
    ground.wait(2)
    assert len(ground.core.clients) == count
    return ground


def test_a_sweep_costs_the_same_with_any_number_of_nodes_at_rest() -> None:
    assert lines_of_a_sweep(joined(12)) == lines_of_a_sweep(joined(1)) > 0


def leg(ground: Ground, node: Station, other: Station) -> None:
    """Open a leg of ``node``."""
    assert node.ask(m.LegOpen(0, ground.grant(node, other), 0xA1)).status == m.Status.OK


def leave(ground: Ground, node: Station) -> None:
    """End the node's session."""
    node.engine.close(node.handle, ground.now, m.CloseReason.DOWN)
    ground.wait(1)


def test_a_node_that_left_is_forgotten_with_its_last_leg() -> None:
    ground = Ground()
    node, other = ground.node("a", "203.0.113.1"), ground.node("b", "203.0.113.2")
    node.call_relay()
    leg(ground, node, other)
    leave(ground, node)
    holders = ground.core.clients._holders
    assert len(holders) == 1, "its leg waits"
    ground.wait(timing.LEG_LINGER + 2, step=10)
    assert not holders


def test_a_node_that_came_again_and_left_without_legs_is_forgotten_once() -> None:
    ground = Ground()
    node, other = ground.node("a", "203.0.113.1"), ground.node("b", "203.0.113.2")
    node.call_relay()
    leg(ground, node, other)
    clients, now = ground.core.clients, ground.now
    clients.ended(next(iter(clients._by_handle)), now)
    node.call_relay()
    node.ask(m.LegClose(0, sha256(node.key_hash + other.key_hash)[:16]))
    for handle in list(clients._by_handle):
        clients.ended(handle, now)
    assert not clients._holders
    clients.sweep(now)
    assert not clients._holders
