"""What must hold whatever happens: deliveries, nonces, and nothing that grows."""

from __future__ import annotations

from typing import Any

from tests.model.arena import Arena
from tests.sim.node import SimNode

PER_NODE = {
    "attempts": 0,  # challenges under way
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
IDLE_BYTES = 60_000  # an hour, both ways, with IP headers: DC and two relays, each on its own host
IDLE_TURNS = 900  # an hour


def deliveries(arena: Arena) -> list[str]:
    """Packets damaged, delivered twice, to the wrong peer, or that nobody sent."""
    found: list[str] = []
    nodes = [member.node for member in arena.members]
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
        if any(len(bodies) > 1 for bodies in node.sealed.values()):
            found.append(f"{node.name}: a key and nonce sealed two datagrams")
    for node, address in zip(nodes, arena.addresses, strict=True):
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


def footprint(arena: Arena, node: SimNode, peers: int) -> dict[str, int]:
    """What a node holds beyond what its peers and servers justify."""
    core: Any = node.core
    engine = core.common.engine
    context = engine._context
    servers = 1 + len(arena.relays)
    wanted = sum(len(each.addresses) for each in node.host.interfaces.values())
    associations = context.associations.values()
    table = node.plane._plane._board.table
    return {
        "attempts": len(core.prober._attempts),
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
