"""Whether a way exists between the two nodes, by reasoning over the world alone.

Conservative: "no" where it cannot be sure. Three sorts of way: over a relay that both reach and
hold a grant for; direct, where one end still stands where the other knows it and can be reached;
directed, where the coordinator reaches both and RFC 4787 lets them punch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.arena import COORDINATOR, PEERS, RELAYS, Arena, Member, Wire

KNOWN_AFTER = 4.0  # quiet seconds after which both ends had told each other everything
MAPPING_SURE = 25.0  # a NAT's mapping stands for this long after traffic, whatever the NAT


@dataclass
class Oracle:
    """Keeps what the reference knows of the past: when the world was disturbed, when it carried."""

    arena: Arena
    disturbed: float = 0.0  # last step that may have broken or made a way
    carried: float = 0.0  # last instant at which pings were answered both ways
    reached: float = 0.0  # the first such instant since then
    proven: dict[tuple[Wire, Wire], float] = field(default_factory=dict)

    def disturb(self) -> None:
        """Something happens now: first note what had the time to become known."""
        now = self.arena.clock.now
        if self.carried >= self.disturbed and now - self.reached >= KNOWN_AFTER:
            one, two = self.arena.members
            for wire in (*one.wires.values(), *two.wires.values()):
                wire.known_at = self.carried
            for mine in one.usable(PEERS):
                for theirs in two.usable(PEERS):
                    if _families(mine, theirs) and _punches(mine, theirs):
                        self.proven[mine, theirs] = self.carried
        self.disturbed = now

    def answered(self, now: float) -> None:
        """Pings were answered at every end that sent some."""
        if self.carried < self.disturbed:
            self.reached = now
        self.carried = now

    def moved(self, member: Member) -> None:
        """The member is where nobody knows it: its NAT or its ports are other ones."""
        for wire in member.wires.values():
            wire.known_at = -1e9
        for pair in list(self.proven):
            if any(wire in pair for wire in member.wires.values()):
                del self.proven[pair]

    # -------------------------------------------------------------- the question

    def way(self) -> str:
        """``relay``, ``direct``, ``directed``, or nothing if none is sure to exist."""
        one, two = self.arena.members
        now = self.arena.clock.now
        if any(m.node.host.asleep or not m.node.running for m in (one, two)):
            return ""
        if any(m.stands_until > now for m in (one, two)):
            return ""
        if self._relayed(one, two):
            return "relay"
        if self._direct(one, two):
            return "direct"
        return "directed" if self._directed(one, two) else ""

    def _relayed(self, one: Member, two: Member) -> bool:
        return any(
            relay.serves and one.usable(RELAYS) and two.usable(RELAYS)
            for relay in self.arena.relays
        )

    def _direct(self, one: Member, two: Member) -> bool:
        now = self.arena.clock.now
        for mine in one.usable(PEERS):
            for theirs in two.usable(PEERS):
                if now - self.proven.get((mine, theirs), -1e9) < MAPPING_SURE:
                    return True
                if _stands(mine, theirs, now) or _stands(theirs, mine, now):
                    return True
        return False

    def _directed(self, one: Member, two: Member) -> bool:
        if not self.arena.dc.serves:
            return False
        if not one.usable(COORDINATOR) or not two.usable(COORDINATOR):
            return False
        return any(
            COORDINATOR not in mine.eats and COORDINATOR not in theirs.eats
            for mine in one.usable(PEERS)
            for theirs in two.usable(PEERS)
            if _punches(mine, theirs)
        )


def _families(one: Wire, two: Wire) -> list[int]:
    return [family for family in one.place.families if family in two.place.families]


def _punches(one: Wire, two: Wire) -> bool:
    return any(one.place.punches(two.place, family) for family in _families(one, two))


def _stands(where: Wire, sender: Wire, now: float) -> bool:
    """Whether ``where`` is still known, and open to whoever sends on ``sender``."""
    for family in _families(where, sender):
        if where.known_at > 0 and where.place.fixed(family):
            return True
        if now - where.known_at < MAPPING_SURE and where.place.open(family):
            return True
    return False
