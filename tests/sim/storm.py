"""Coordinator and account server were away for long and come back: do the nodes storm them?

    python -m tests.sim.storm [--nodes 10000] [--hours 24] [--stale] [--relay]

All nodes and servers are the production cores. Only what nodes send to the coordinator is looked at
(how many datagrams in any second, how many in an hour of silence, when all are known again), and
their requests to the account server: their certificates were due before they started, and it is
away from then on. ``--relay``: the relay is away for as long. ``--stale``: what the coordinator
wrote down of its nodes is made a day older meanwhile, so that it calls none of them back, as after
a day: the nodes' pauses grow no more after ten minutes, so half an hour shows how they come back.
Prints JSON; how far it is, on standard error.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ntmd.node.commands import RenewCertificate
from ntmd.node.core import RENEW_RETRY
from ntmd.node.inputs import CertificateRenewed, CommandFailed
from ntmd.proto.frame import Kind
from tests.sim.node import SimNode
from tests.sim.story import Stage

SETTLED = 600.0  # after this the pauses between calls grow no more, seconds
JOINING = 0.01  # seconds between two nodes that start
PATIENCE = 600.0
DAY_MS = 86_400_000
DUE_DAYS = 6.0  # a third of a certificate's 14 days, its jitter and some hours have passed


@dataclass(frozen=True, slots=True)
class Storm:
    """``silent``: datagrams of one node in an hour without coordinator. ``initiations``: most
    first copies of a handshake in one second after the return; ``peak``: most datagrams.
    ``renewals_away`` and ``renewals``: most requests to the account server in one second, while it
    is away and in the hours after its return; ``renewed_s``: until all certificates are new."""

    nodes: int
    away_s: float
    silent: float
    initiations: int
    peak: int
    half_s: float
    all_s: float
    renewals_away: int
    renewals: int
    renewed_s: float
    real_s: float


class Accounts:
    """The account server, seen from its nodes: it renews, or cannot be reached."""

    def __init__(self, stage: Stage) -> None:
        self.serves = False
        self.requests: Counter[int] = Counter()
        self.renewed = 0
        self._stage = stage

    def serve(self, node: SimNode) -> None:
        """Take this node's requests from now on, those made already too."""
        wishes = node.renewals

        class Hears(list[RenewCertificate]):
            def append(_, wish: RenewCertificate) -> None:  # noqa: N805
                self._plan(node, wish)

        node.renewals = Hears()
        for wish in wishes:
            self._plan(node, wish)

    def _plan(self, node: SimNode, wish: RenewCertificate) -> None:
        self._stage.world.clock.after(wish.after, lambda: self._asked(node))

    def _asked(self, node: SimNode) -> None:
        self.requests[int(self._stage.world.clock.now)] += 1
        if not self.serves:
            node.post(CommandFailed("RenewCertificate", 111, "account server silent"))
            return
        self.renewed += 1
        leaf = self._stage.platform.renew(node.identity)
        node.identity = replace(node.identity, certificates=(leaf,))
        node.post(CertificateRenewed((leaf,)))

    def peak(self) -> int:
        """Most requests in a second since the last look."""
        most = max(self.requests.values(), default=0)
        self.requests.clear()
        return most


class Watch:
    """Counts what nodes send to the coordinator, by second."""

    def __init__(self, stage: Stage) -> None:
        domain = stage.domains["home.test"]
        self.clock = stage.world.clock
        self._to = dict.fromkeys(domain.dc.settings.sockets().values(), True)
        self._last: dict[tuple[str, bytes], bool] = {}
        self.datagrams: Counter[int] = Counter()
        self.initiations: Counter[int] = Counter()
        for node in stage.nodes.values():
            self._wrap(node)

    def _wrap(self, node: SimNode) -> None:
        send = node.send

        def sent(number: int, data: bytes, remote: object) -> int:
            if remote in self._to:
                self._note(node.name, data)
            return send(number, data, remote)  # type: ignore[arg-type]

        node.send = sent  # type: ignore[method-assign]

    def _note(self, name: str, data: bytes) -> None:
        second = int(self.clock.now)
        self.datagrams[second] += 1
        first = (name, data[8:16])  # the sender's index: another one for each handshake
        if data[0] == Kind.INITIATION and first not in self._last:
            self._last[first] = True
            self.initiations[second] += 1


def storm(
    nodes: int,
    away: float,
    *,
    stale: bool = False,
    relay: bool = False,
    seed: int = 3,
    tell: Callable[[str], None] = lambda line: None,
) -> Storm:
    """Join ``nodes``, take the coordinator away for ``away`` seconds, and look at its return."""
    began = time.monotonic()

    def note(what: str) -> None:
        at, real = stage.world.clock.now, time.monotonic() - began
        tell(f"{at:9.2f} s, real {real:7.1f} s: {what}")

    stage = Stage(seed, keep_trace=False)
    domain = stage.domain()
    accounts = Accounts(stage)
    for number in range(nodes):
        accounts.serve(stage.node(f"n{number}", families=(4,), issued_days_ago=DUE_DAYS))
        stage.run(JOINING)
        if number % 1000 == 999:
            note(f"{number + 1} nodes started")
    everybody = list(stage.nodes.values())
    stage.run(120.0)
    assert all(node.state == "up" for node in everybody)
    domain.dc.crash()
    note("all nodes up; the coordinator goes away")
    if stale:
        for name, known in domain.dc.nodes.items():
            old = replace(known, last_seen_ms=known.last_seen_ms - DAY_MS)
            domain.dc.nodes[name] = old
    if relay:
        domain.rs.crash()
    rest = min(3600.0, away - SETTLED)
    stage.run(away - rest)
    watch = Watch(stage)
    stage.run(rest)
    silent = sum(watch.datagrams.values()) * 3600.0 / rest / nodes
    note(f"{silent:.1f} datagrams an hour to the silent coordinator; it comes back")
    watch.datagrams.clear()
    watch.initiations.clear()
    renewals_away, accounts.serves = accounts.peak(), True
    domain.dc.restart()
    if relay:
        domain.rs.restart()
    back, half = stage.world.clock.now, 0.0
    while not all(node.state == "up" for node in everybody):
        stage.run(1.0)
        passed = stage.world.clock.now - back
        assert passed < PATIENCE, Counter(node.state for node in everybody)
        if passed % 30.0 < 1.0:
            note(f"{sum(node.state == 'up' for node in everybody)} nodes known again")
        if not half and sum(node.state == "up" for node in everybody) * 2 >= nodes:
            half = passed
    passed = stage.world.clock.now - back
    stage.run(60.0)
    initiations, peak = max(watch.initiations.values(), default=0), max(watch.datagrams.values())
    note(
        f"all known after {passed:.1f} s, half {half:.1f} s; {initiations} begun, {peak} datagrams"
    )
    while accounts.renewed < nodes:
        stage.run(10.0)
        assert stage.world.clock.now - back < 2 * RENEW_RETRY, "not all certificates are new"
    return Storm(
        nodes,
        away,
        round(silent, 1),
        initiations,
        peak,
        round(half, 1),
        round(passed, 1),
        renewals_away,
        accounts.peak(),
        round(stage.world.clock.now - back, 1),
        round(time.monotonic() - began, 1),
    )


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--stale", action="store_true")
    parser.add_argument("--relay", action="store_true")
    given = parser.parse_args()
    gc.set_threshold(20_000, 50, 1_000_000)  # never look through all that 10,000 nodes hold
    found = storm(
        given.nodes,
        given.hours * 3600,
        stale=given.stale,
        relay=given.relay,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
