"""What must hold whatever happens: deliveries, nonces, and nothing that grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ntmd.proto.timing import LADDER
from tests.model.arena import Arena
from tests.sim.node import SimNode

PER_NODE = {
    "attempts": 0,  # challenges that should have ended
    "requests": 0,
    "spare sockets": 0,
    "associations": 0,  # beyond one for each peer and server
    "sessions": 0,  # beyond three for each association
    "tunnels": 0,  # beyond one for each peer
    "plane tunnels": 0,
    "plane indexes": 60,
    "timers": 60,
    "engine timers": 1000,
    "store": 24,
}
ATTEMPT = sum(LADDER) + 2.0  # seconds that a challenge may be under way; UDP that is blocked is
# tried again now and then, so some may be
IDLE = 600.0  # seconds that are looked at
IDLE_BYTES = 28_400  # in that time, both ways, with IP headers
"""Three servers and two spare sockets each 20 s, where a NAT forgets after 40 s, take 28.3 kB.
Two links behind NATs of unknown patience take 10.6 kB; a path that was narrow may be asked once
in this time whether it became wider (15 kB). The hour's budget of a quiet node is in tests/sim."""
UNREADABLE = ("codec", "unknown_kind", "unknown_message")
IDLE_TURNS = 200  # in that time; two links take 84


def deliveries(arena: Arena) -> list[str]:
    """Packets damaged, delivered twice, to the wrong peer, or that nobody sent."""
    found: list[str] = []
    nodes = [member.node for member in arena.members]
    if arena.third is not None:
        nodes.append(arena.third)
    by_address = {node.address: node for node in nodes}
    for node in nodes:
        found += [f"{node.name}: {what}" for what in node.inner.bad[:3]]
        for kind in ("udp", "asked", "echo"):
            if node.inner.copies(kind):
                found.append(f"{node.name}: {node.inner.copies(kind)} {kind} delivered twice")
        for note in node.inner.notes:
            if not _genuine(note, node, by_address):
                found.append(f"{node.name}: {note.kind} {note.number} was never sent to it")
                break
        for what in UNREADABLE:
            if node.core.common.engine.counters[what]:
                found.append(f"{node.name}: took an honest message for {what}")
        if any(len(bodies) > 1 for bodies in node.sealed.values()):
            found.append(f"{node.name}: a key and nonce sealed two datagrams")
    for node, address in zip(nodes, arena.addresses, strict=False):
        if node.address != address:
            found.append(f"{node.name}: another address")
    return found


def _genuine(note: Any, node: SimNode, by_address: dict[bytes, SimNode]) -> bool:
    if note.kind == "echo":
        return (note.source, "echo", note.number) in node.inner.sent
    if note.kind not in ("udp", "asked"):
        return True  # an error of the own plane
    sender = by_address.get(note.source)
    kind = "udp" if note.kind == "udp" else "echo"
    return sender is not None and (node.address, kind, note.number) in sender.inner.sent


def answers(node: SimNode, peer: SimNode) -> list[str]:
    """What is wrong with what a node tells its user, whatever state it is in."""
    found = []
    for what, arguments in (("status", {}), ("handovers", {}), ("why", {"name": peer.name})):
        (answer,) = node.ask(what, **arguments) or (None,)
        if answer is None or not (answer.result or answer.error):
            found.append(f"{node.name}: {what} is not answered")
            continue
        told = json.loads(json.dumps(answer.result))
        found += [f"{node.name}: {what}: {place} is negative" for place in _negative(told, "")]
    node.answers.clear()
    return found


def _negative(told: Any, place: str) -> Iterator[str]:
    """Where there is a number below zero: no age, count, size or time is."""
    if isinstance(told, dict | list):
        for key, value in told.items() if isinstance(told, dict) else enumerate(told):
            yield from _negative(value, f"{place}/{key}")
    elif isinstance(told, int | float) and told < 0:
        yield place


def footprint(arena: Arena, node: SimNode, peers: int) -> dict[str, int]:
    """What a node holds beyond what its peers and servers justify."""
    core: Any = node.core
    engine = core.common.engine
    context = engine._context
    servers = 1 + len(arena.relays) + arena.foreign
    wanted = sum(len(each.addresses) for each in node.host.interfaces.values())
    associations = context.associations.values()
    table = node.plane._plane._board.table
    return {
        "attempts": sum(_overdue(node, each) for each in core.prober._attempts.values()),
        "requests": len(core.requests._waiting),
        "spare sockets": len(node.host.sockets) - wanted,
        "associations": max(0, len(associations) - servers - peers),
        "sessions": sum(max(0, len(each.sessions) - 3) for each in associations),
        "tunnels": max(0, len(core.tunnels.by_key) - peers),
        "plane tunnels": max(0, len(table.by_number) - peers),
        "plane indexes": len(table.by_index),
        "timers": len(core.common.timers._live),
        "engine timers": len(context._timers),
        "store": len(node.store),
    }


class Idle:
    """What idle nodes send and hear, and how often they wake, from now on."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._before = self._now()

    def _now(self) -> list[tuple[int, int]]:
        return [
            (
                sum(i.up.bytes + i.down.bytes for i in m.node.host.interfaces.values()),
                m.node.turns,
            )
            for m in self._arena.members
        ]

    def excess(self) -> list[str]:
        """Nodes that used more than their budget."""
        found = []
        for member, before, now in zip(self._arena.members, self._before, self._now(), strict=True):
            size, turns = now[0] - before[0], now[1] - before[1]
            if size > IDLE_BYTES or turns > IDLE_TURNS:
                found.append(f"{member.node.name}: idle: {size} bytes and {turns} turns")
        return found


def _overdue(node: SimNode, attempt: Any) -> bool:
    return node.host.now - attempt.sent[0] > ATTEMPT


def leaks(arena: Arena, peers: int) -> list[str]:
    """After a calm time: what is more than it may be."""
    found = []
    for member in arena.members:
        for what, number in footprint(arena, member.node, peers).items():
            if number > PER_NODE[what]:
                found.append(f"{member.node.name}: {what}: {number}")
    for relay in arena.relays:
        legs = len(relay.process.core.table)
        if legs > 4 * peers:
            found.append(f"{relay.process.label}: {legs} legs")
    return found
