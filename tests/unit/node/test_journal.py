"""The journal's figures, from the plane's running totals as they come around a move."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from ntmd.node.common import Common
from ntmd.node.journal import Journal
from ntmd.node.timers import Timers
from ntmd.node.tunnels import Tunnel
from ntmd.proto.plane import TunnelActivity

MOVED = 100.0


class Bench:
    """A journal with one tunnel and nothing around it."""

    def __init__(self) -> None:
        self.timers = Timers()
        common = SimpleNamespace(
            timers=self.timers,
            clock=lambda at: int(at * 1000),
            own_leaf=lambda: SimpleNamespace(key=b"a"),
            tell=lambda *_, **__: None,
        )
        self.journal = Journal(cast(Common, common))
        peer = SimpleNamespace(key=b"b", name="desk.home.test")
        self.tunnel = cast(
            Tunnel, SimpleNamespace(number=1, association=7, peer=peer, activity=None)
        )

    def report(
        self,
        now: float,
        gap: float,
        gap_at: float,
        lost: int = 0,
        *,
        sent: int = 0,
        duplicated: int = 0,
    ) -> None:
        """The plane's report."""
        event = cast(TunnelActivity, SimpleNamespace(
            tunnel=1, tx_packets=sent, last_tx=0.0, last_rx=now, gap=gap, gap_at=gap_at,
            lost=lost, duplicated=duplicated,
        ))  # fmt: skip
        cast(Any, self.tunnel).activity = event
        self.journal.activity(self.tunnel, event, now)

    def begin(self, now: float) -> None:
        """The core learns of the move."""
        self.journal.begin(
            self.tunnel, own=False, seq=1, cause="", before="", after="", started=now, now=now
        )

    @property
    def shown(self) -> dict[str, Any]:
        """The entry as the command line prints it."""
        return self.journal.entries[-1].as_json()


def test_a_hole_that_the_first_data_closed_just_before_the_move_was_told_of() -> None:
    """Data may overtake the Move by a moment: its hole is the move's hole, however reported."""
    for told_before in (True, False):
        bench = Bench()
        bench.report(MOVED - 0.30, 0.01, MOVED - 0.31)
        if told_before:
            bench.report(MOVED - 0.01, 0.12, MOVED - 0.15)
            bench.begin(MOVED)
        else:
            bench.begin(MOVED)
            bench.report(MOVED + 0.06, 0.12, MOVED - 0.15)
        bench.report(MOVED + 0.16, 0.01, MOVED + 0.1)
        assert bench.shown["gap_ms"] == 120.0


def test_older_holes_and_long_silence_are_not_the_moves() -> None:
    bench = Bench()
    bench.report(MOVED - 3.0, 0.9, MOVED - 4.0)
    bench.report(MOVED - 2.0, 0.01, MOVED - 2.1)
    bench.begin(MOVED)
    bench.report(MOVED + 0.05, 0.02, MOVED + 0.01)
    bench.report(MOVED + 0.2, 60.0, MOVED - 59.9)
    assert bench.shown["gap_ms"] == 20.0


def test_losses_before_the_move_are_not_its_own() -> None:
    bench = Bench()
    bench.report(MOVED - 1.0, 0.01, MOVED - 1.1, lost=5)
    bench.begin(MOVED)
    bench.report(MOVED + 1.0, 0.01, MOVED + 0.9, lost=12)
    assert bench.shown["lost"] == 7


def test_a_long_outage_in_which_datagrams_were_lost_is_the_moves() -> None:
    bench = Bench()
    bench.report(MOVED - 7.0, 0.01, MOVED - 7.1, lost=3)
    bench.begin(MOVED)
    bench.report(MOVED + 0.1, 7.05, MOVED - 7.0, lost=503)
    assert bench.shown["gap_ms"] == 7050.0
    assert bench.shown["lost"] == 500


def test_a_pause_of_the_sender_long_after_the_move_is_not_the_moves() -> None:
    bench = Bench()
    bench.begin(MOVED)
    bench.report(MOVED + 0.2, 0.12, MOVED - 0.02, lost=4)
    bench.report(MOVED + 4.0, 0.3, MOVED + 3.6, lost=4)
    assert bench.shown["gap_ms"] == 120.0
    bench.report(MOVED + 4.5, 0.4, MOVED + 4.1, lost=5)
    assert bench.shown["gap_ms"] == 400.0


def test_what_arrives_late_after_all_takes_no_loss_below_none() -> None:
    """The plane's sum of losses falls then; a negative number has no form on the wire (S11)."""
    bench = Bench()
    bench.report(MOVED - 0.30, 0.01, MOVED - 0.31, lost=5)
    bench.report(MOVED - 0.01, 0.12, MOVED - 0.15, lost=3)
    bench.begin(MOVED)
    assert bench.shown["lost"] == 0


def test_totals_that_begin_anew_are_no_losses_taken_back() -> None:
    """A tunnel that had left the plane and is back: its totals start from nothing."""
    bench = Bench()
    bench.report(MOVED - 0.5, 0.01, MOVED - 0.51, lost=4, sent=16, duplicated=9)
    bench.report(MOVED - 0.1, 0.12, MOVED - 0.22, lost=0, sent=2)
    bench.begin(MOVED)
    assert (bench.shown["lost"], bench.shown["duplicated"]) == (0, 0)
    bench.report(MOVED + 0.1, 0.12, MOVED - 0.02, lost=3, sent=30, duplicated=1)
    bench.report(MOVED + 0.2, 0.12, MOVED + 0.08, lost=1, sent=1, duplicated=2)
    assert (bench.shown["lost"], bench.shown["duplicated"]) == (4, 3)
    assert bench.shown["first_out_ms"] is not None


def test_totals_of_an_end_that_only_receives_begin_anew_too() -> None:
    """It sent nothing, before and after: what came twice says so. One copy since then."""
    bench = Bench()
    bench.report(MOVED - 0.5, 0.01, MOVED - 0.51, lost=4, duplicated=9)
    bench.report(MOVED - 0.1, 0.12, MOVED - 0.22, lost=0, duplicated=1)
    bench.begin(MOVED)
    assert (bench.shown["lost"], bench.shown["duplicated"]) == (0, 1)
