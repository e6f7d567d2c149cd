"""The journal of moves: evidence, decision, gap and loss of each, the same id on both ends.

The id is association ‖ direction ‖ seq (rule C6): direction "i" for moves of the association's
end with the smaller key, "r" for the other's. An address that changed without the peer's word (a
NAT's doing) is known to this end alone: its id has a number of its own behind an "x". Figures come
from the plane's running totals; what the other end noticed comes in its MoveReport.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ntmd.node.common import Common
from ntmd.node.tunnels import Tunnel
from ntmd.proto.messages import MoveReport
from ntmd.proto.plane import TunnelActivity

ENTRIES = 128
WATCHED = 5.0  # activity this long after a move belongs to it, seconds
REPORT_WITHIN = 1.5  # the other end's report comes in this time or is not waited for, seconds
BEFORE = 1.0  # a hole may have begun this long before the move was noticed, seconds
AROUND = 1.0  # ... or this long after it; later only if datagrams were lost in it, seconds
OUTAGE = 30.0  # with losses it may also have begun this long before: it was not idleness, seconds
OVERTAKEN = 0.5  # data on the new path may close the hole this long before the Move is read, s
REMEMBERED = 1024  # tunnels whose last hole is known


@dataclass(slots=True)
class Handover:
    """One move of one peer's path, as ``ntmd handovers`` prints it. Instants in boot seconds."""

    id: str
    peer: str
    at_ms: int
    started: float
    cause: str
    before: str
    after: str
    first_out: float | None = None
    first_in: float | None = None
    gap: float = 0.0
    lost: int = 0
    duplicated: int = 0
    notes: list[str] = field(default_factory=list)
    base_lost: int = 0
    base_duplicated: int = 0
    base_tx: int = 0
    evidence: str = ""
    decision: str = ""
    own: bool = False
    seq: int = 0
    peers: MoveReport | None = None
    finished: bool = False
    said: bool = False

    def as_json(self) -> dict[str, Any]:
        """The entry in the words of the contract of ``ntmd handovers --json``."""
        at = datetime.datetime.fromtimestamp(self.at_ms / 1000, datetime.UTC)
        return {
            "id": self.id,
            "peer": self.peer,
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "cause": self.cause,
            "from": self.before,
            "to": self.after,
            "gap_ms": round(self.gap * 1000, 1) if self.gap else self._since(self.first_in),
            "first_out_ms": self._since(self.first_out),
            "first_in_ms": self._since(self.first_in),
            "lost": self.lost,
            "duplicated": self.duplicated,
            "notes": list(self.notes),
            "own": self.own,
            "evidence": self.evidence,
            "decision": self.decision,
            "gap_in_ms": round(self.gap * 1000, 1) if self.gap else None,
            "gap_out_ms": self.peers.gap_ms or None if self.peers else None,
            "lost_out": self.peers.lost if self.peers else None,
            "duplicated_out": self.peers.duplicated if self.peers else None,
        }

    def _since(self, instant: float | None) -> float | None:
        return None if instant is None else round(max(0.0, instant - self.started) * 1000, 1)


@dataclass(frozen=True, slots=True)
class _Recent:
    """A tunnel's latest long hole, the totals before it, and the totals now."""

    gap: float
    gap_at: float
    lost_before: int
    duplicated_before: int
    lost: int
    duplicated: int
    sent: int

    def ahead_of(self, event: TunnelActivity) -> bool:
        """Whether the plane counts from nothing again; ``lost`` may fall by late arrivals, too."""
        return event.tx_packets < self.sent or event.duplicated < self.duplicated

    def then(self, event: TunnelActivity) -> _Recent:
        """What is known after one more report."""
        gap, gap_at = self.gap, self.gap_at
        lost, duplicated = self.lost_before, self.duplicated_before
        if event.gap >= gap or gap_at + gap < event.gap_at + event.gap - OVERTAKEN:
            gap, gap_at, lost, duplicated = event.gap, event.gap_at, self.lost, self.duplicated
        return _Recent(
            gap, gap_at, lost, duplicated, event.lost, event.duplicated, event.tx_packets
        )


class Journal:
    """The last moves, oldest first; ``followers`` are told of each finished entry."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self.entries: list[Handover] = []
        self._open: dict[int, Handover] = {}
        self._implicit = 0
        self._recent: dict[int, _Recent] = {}
        self.followers: list[Callable[[dict[str, Any]], None]] = []

    def begin(
        self,
        tunnel: Tunnel,
        *,
        own: bool,
        seq: int,
        cause: str,
        before: str,
        after: str,
        started: float,
        now: float,
        evidence: str = "",
        decision: str = "",
        told: bool = True,
    ) -> Handover:
        """A move of this tunnel began; one still being watched is finished first.

        ``told``: both ends know of it, so that each reports to the other what it noticed.
        """
        self._finish(tunnel, now)
        number = self._id(tunnel, own, seq)
        if not told:
            self._implicit += 1
            number += f"x{self._implicit}"
        entry = Handover(
            number,
            tunnel.peer.name,
            self._common.clock(started),
            started,
            cause,
            before,
            after,
            evidence=evidence or cause,
            decision=decision or f"carry on over {after}",
            own=own,
            seq=seq if told else 0,
        )
        if tunnel.activity is not None:
            entry.base_tx = tunnel.activity.tx_packets
        recent = self._recent.get(tunnel.number)
        if recent is not None:
            entry.base_lost, entry.base_duplicated = recent.lost, recent.duplicated
            if _belongs(entry, recent.gap, recent.gap_at, recent.lost - recent.lost_before):
                entry.gap, entry.base_lost = recent.gap, recent.lost_before
                entry.base_duplicated = recent.duplicated_before
                entry.lost = max(0, recent.lost - recent.lost_before)
                entry.duplicated = recent.duplicated - recent.duplicated_before
        self.entries.append(entry)
        del self.entries[:-ENTRIES]
        self._open[tunnel.number] = entry
        self._common.timers.set(
            ("journal", tunnel.number), now + WATCHED, lambda at: self._finish(tunnel, at)
        )
        return entry

    def _id(self, tunnel: Tunnel, own: bool, seq: int) -> str:
        smaller = self._common.own_leaf().key < tunnel.peer.key
        direction = "i" if smaller == own else "r"
        return f"{tunnel.association:016x}-{direction}-{seq}"

    def open_entry(self, tunnel: Tunnel) -> Handover | None:
        """The entry being watched for this tunnel."""
        return self._open.get(tunnel.number)

    def heard(self, tunnel: Tunnel, now: float) -> None:
        """Something authenticated came from the peer."""
        entry = self._open.get(tunnel.number)
        if entry is not None and entry.first_in is None and now > entry.started:
            entry.first_in = now

    def sent(self, tunnel: Tunnel, now: float) -> None:
        """The first datagram of the move left."""
        entry = self._open.get(tunnel.number)
        if entry is not None and entry.first_out is None:
            entry.first_out = now

    def arrived(self, tunnel: Tunnel, words: str) -> None:
        """The path on which the move settled."""
        entry = self._open.get(tunnel.number)
        if entry is not None:
            entry.after = words

    def note(self, tunnel: Tunnel, text: str) -> None:
        """Something remarkable about the move."""
        entry = self._open.get(tunnel.number)
        if entry is not None:
            entry.notes.append(text)

    def activity(self, tunnel: Tunnel, event: TunnelActivity, now: float) -> None:
        """Running totals while a move is watched: the longest hole and what was lost."""
        before = self._note(tunnel.number, event)
        entry = self._open.get(tunnel.number)
        if entry is None:
            return
        missed = event.lost - before.lost if before is not None else 0
        if event.gap > entry.gap and _belongs(entry, event.gap, event.gap_at, missed):
            entry.gap = event.gap
        if event.last_rx > entry.started and entry.first_in is None:
            entry.first_in = event.last_rx
        if event.tx_packets > entry.base_tx and entry.first_out is None:
            entry.first_out = event.last_tx
        entry.lost = max(0, event.lost - entry.base_lost)
        entry.duplicated = max(0, event.duplicated - entry.base_duplicated)

    def _note(self, number: int, event: TunnelActivity) -> _Recent | None:
        """Remember a report; returns what was known before it."""
        before = self._recent.pop(number, None)
        if before is not None and before.ahead_of(event):
            before = _Recent(0.0, 0.0, 0, 0, 0, 0, 0)
            self._began_anew(number)
        known = before or _Recent(
            0.0, 0.0, event.lost, event.duplicated, event.lost, event.duplicated, 0
        )
        self._recent[number] = known.then(event)
        while len(self._recent) > REMEMBERED:
            del self._recent[next(iter(self._recent))]
        return before

    def _began_anew(self, number: int) -> None:
        """The plane counts from nothing: the tunnel had left it, and is back."""
        entry = self._open.get(number)
        if entry is not None:
            entry.base_tx = 0
            entry.base_lost, entry.base_duplicated = -entry.lost, -entry.duplicated

    def reported(self, tunnel: Tunnel, report: MoveReport, now: float) -> None:
        """The other end tells what it noticed of a move; unknown ones are ignored."""
        number = self._id(tunnel, not report.own, report.seq)
        entry = next((e for e in reversed(self.entries) if e.id == number), None)
        if entry is None or entry.peers is not None:
            return
        entry.peers = report
        if entry.finished:
            self._say(entry)

    def _finish(self, tunnel: Tunnel, now: float) -> None:
        """The move was watched long enough: report to the other end, and wait for its report."""
        entry = self._open.pop(tunnel.number, None)
        self._common.timers.cancel(("journal", tunnel.number))
        if entry is None:
            return
        entry.finished = True
        if entry.seq and tunnel.handle is not None and tunnel.live and not self._common.stopping:
            gap = min(round(entry.gap * 1000), 0xFFFFFFFF)
            report = MoveReport(entry.own, entry.seq, gap, entry.lost, entry.duplicated)
            self._common.engine.tell(tunnel.handle, report, now)
        if entry.peers is not None or not entry.seq:
            self._say(entry)
            return
        self._common.timers.set(
            ("journal report", entry.id), now + REPORT_WITHIN, lambda at: self._say(entry)
        )

    def _say(self, entry: Handover) -> None:
        """Tell log and followers, once."""
        if entry.said:
            return
        entry.said = True
        self._common.timers.cancel(("journal report", entry.id))
        shown = entry.as_json()
        self._common.tell("info", "handover", **shown)
        for follower in self.followers:
            follower(shown)


def _belongs(entry: Handover, gap: float, gap_at: float, missed: int) -> bool:
    """Whether a hole is this move's: it ended around or after it, and was not mere idleness."""
    before, after = (OUTAGE, WATCHED) if missed > 0 else (BEFORE, AROUND)
    begun = entry.started - before <= gap_at <= entry.started + after
    return begun and gap_at + gap >= entry.started - OVERTAKEN
