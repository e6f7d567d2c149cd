"""What is asked again after an outage: which report is the first, and which are later ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from ntmd.node.restored import Restored
from ntmd.node.timers import Timers
from ntmd.node.tunnels import Tunnel
from ntmd.proto.messages import SeenCounters
from ntmd.proto.timing import ONE_OUTAGE, RESEND_LOOKS

OURS, ANOTHER = SeenCounters(1, 7, 0), SeenCounters(2, 7, 0)


class Peer:
    """Answers each question with the next of ``reports``; ``wishes`` are what was asked to leave
    once more, each with whether it counted as a later report."""

    def __init__(self) -> None:
        self.reports: list[SeenCounters | None] = []
        self.wishes: list[tuple[float, bool]] = []
        self.timers, self.now = Timers(), 0.0
        self.tunnel = cast(Tunnel, SimpleNamespace(
            number=1, handle=1, installed=True, activity=SimpleNamespace(last_tx=0.0),
            paths=SimpleNamespace(primary="the way"),
        ))  # fmt: skip
        steering = SimpleNamespace(on_proof=lambda *_: None)
        common = SimpleNamespace(timers=self.timers)
        self.restored = Restored(
            cast(Any, common), cast(Any, self), cast(Any, self), cast(Any, steering)
        )

    def resend(self, tunnel: Tunnel, seen: SeenCounters | None, *, again: bool) -> bool:
        if seen is None or seen.slot != OURS.slot:
            return False
        self.wishes.append((self.now, again))
        return True

    def start(self, handle: int, path: str, now: float, won: Any, **_: Any) -> None:
        if self.reports:
            won(SimpleNamespace(answer=SimpleNamespace(seen=self.reports.pop(0))), now)

    def restore(self, seen: SeenCounters | None, now: float) -> list[bool]:
        """There is a way again at ``now``, and the peer says ``seen``; then time passes."""
        self.now, self.wishes = now, []
        self.restored.begin(self.tunnel, seen, now)
        while (due := self.timers.deadline()) is not None:
            self.now = due
            self.timers.run(due)
        return [again for _, again in self.wishes]


def test_the_peer_is_asked_twice_what_came() -> None:
    peer = Peer()
    peer.reports = [OURS] * 5
    assert peer.restore(OURS, 10.0) == [False, True, True]
    assert [at for at, _ in peer.wishes] == [10.0, 10.0 + RESEND_LOOKS[0], 10.0 + sum(RESEND_LOOKS)]


def test_a_way_that_comes_before_a_report_is_no_lost_outage() -> None:
    """Found by reading: the first report counted as a later one, which resent nothing, or what an
    outage of long ago had eaten."""
    peer = Peer()
    for at, nothing in ((10.0, None), (20.0, ANOTHER)):
        peer.reports = [OURS, OURS]
        assert peer.restore(nothing, at) == [False, True]
    peer.reports = [None, OURS]
    assert peer.restore(None, 30.0) == [False]


def test_ways_that_fail_soon_after_each_other_are_one_outage() -> None:
    peer = Peer()
    assert peer.restore(OURS, 10.0) == [False]
    assert peer.restore(OURS, 10.9 * ONE_OUTAGE) == [True]
    assert peer.restore(OURS, 12.0 + ONE_OUTAGE) == [False]
    peer.restored.forget(peer.tunnel)
    assert peer.restore(OURS, 12.1 + ONE_OUTAGE) == [False]


def test_an_old_silence_is_not_asked_about() -> None:
    peer = Peer()
    peer.reports = [OURS] * 2
    assert peer.restore(OURS, 200.0) == [False], "no stream waits for us so long"
