"""Make before break: two links are up, and the traffic changes from one to the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ntmd.proto.frame import Kind
from tests.sim.link import Packet, Shape
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC, NatKind
from tests.sim.node import SimNode
from tests.sim.story import Stage

STEP = 0.005  # between numbered packets, seconds
NEAR, FAR = Shape(delay=0.010), Shape(delay=0.030)
OVERLAP = 3.0  # both links are up for this long, seconds
PLACES: dict[str, NatKind | str] = {
    "public": "public v4",
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
}


def two_links(
    first: NatKind | str = PORT_RESTRICTED,
    second: NatKind | str = PORT_RESTRICTED,
    desk_at: NatKind | str = PORT_RESTRICTED,
    *,
    seed: int = 1,
    shapes: tuple[Shape, Shape] = (NEAR, FAR),
    called: bool = False,
) -> tuple[Stage, SimNode, SimNode]:
    """A laptop with eth0 (preferred) and wlan0, and a desk, connected and settled.

    The laptop calls, or is ``called``: then it is the other end of every handshake.
    """
    stage = Stage(seed, keep_trace=False)
    stage.domain()
    network, families = stage.place(first)
    laptop = stage.node("laptop", network, families=families, shape=shapes[0])
    network, families = stage.place(second)
    laptop.host.attach("wlan0", network, shapes[1], metric=600, families=families)
    network, families = stage.place(desk_at)
    desk = stage.node("desk", network, families=families, shape=NEAR)
    stage.all_up()
    stage.first_answer(*((desk, laptop) if called else (laptop, desk)))
    stage.run(3.0)
    return stage, laptop, desk


class OnLinks:
    """Counts sealed data frames on each link of a node, both ways."""

    def __init__(self, node: SimNode) -> None:
        self.frames: dict[str, int] = {}
        for name, entry in node.host.interfaces.items():
            self.frames[name] = 0
            for link in (entry.up, entry.down):
                link.script = self._count(name)

    def _count(self, name: str) -> Callable[[Packet], int | None]:
        def script(packet: Packet) -> int | None:
            if packet.data[:1] == bytes((Kind.DATA,)):
                self.frames[name] += 1
            return None

        return script

    def take(self) -> dict[str, int]:
        """What was counted since the last call."""
        counted = dict(self.frames)
        self.frames.update(dict.fromkeys(self.frames, 0))
        return counted


def lateness(receiver: SimNode) -> float:
    """How long after a younger packet the latest of the reordered ones arrived, seconds."""
    first: dict[int, float] = receiver.inner.times("udp")
    worst, newest, at = 0.0, -1, 0.0
    for number, when in first.items():  # in order of arrival
        if number > newest:
            newest, at = number, when
        else:
            worst = max(worst, when - at)
    return worst


def check_all_arrived(stage: Stage, *ways: tuple[SimNode, SimNode]) -> None:
    """Every numbered packet came, once, and none was late by more than the links differ."""
    for sender, receiver in ways:
        sent = stage.streamed(sender)
        got = receiver.inner.times("udp")
        missing = sorted(set(range(sent)) - set(got))
        assert missing == [], (len(missing), missing[:5], stage.explain(sender, receiver))
        assert receiver.inner.copies("udp") == 0
        assert lateness(receiver) <= 2 * (FAR.delay - NEAR.delay) + 0.001
        assert receiver.inner.bad == []


def prefer_second(laptop: SimNode) -> None:
    laptop.host.prefer("wlan0", 50)


def deprecate_first(laptop: SimNode) -> None:
    laptop.host.deprecate("eth0")


@pytest.mark.parametrize("hint", [prefer_second, deprecate_first])
@pytest.mark.parametrize("desk_at", PLACES)
@pytest.mark.parametrize("second", PLACES)
def test_a_soft_move_loses_nothing(
    second: str, desk_at: str, hint: Callable[[SimNode], None]
) -> None:
    """Direct, relayed and mixed; both directions carry; the old link is cut after the overlap."""
    called = hint is deprecate_first
    stage, laptop, desk = two_links(PORT_RESTRICTED, PLACES[second], PLACES[desk_at], called=called)
    links = OnLinks(laptop)
    stage.stream(laptop, desk, 1600, STEP)
    stage.stream(desk, laptop, 1600, STEP)
    stage.run(1.0)
    assert links.take()["wlan0"] == 0, "the second link carries nothing before the move"
    hint(laptop)
    stage.run(OVERLAP - 1.0)
    links.take()
    stage.run(1.0)
    assert links.take()["eth0"] == 0, "nobody sends on the old link any more"
    moves = len(laptop.ask("handovers")[-1].result["handovers"])
    laptop.host.detach("eth0")
    stage.run(5.0)
    check_all_arrived(stage, (laptop, desk), (desk, laptop))
    mine = laptop.ask("handovers")[-1].result["handovers"]
    theirs = desk.ask("handovers")[-1].result["handovers"]
    assert len(mine) == moves == 1, "the cut of a link that is not in use moves nothing"
    assert [entry["id"] for entry in mine] == [entry["id"] for entry in theirs]
    assert mine[0]["lost"] == theirs[0]["lost"] == 0


def test_back_and_forth_for_ten_minutes() -> None:
    """Every 2 s: the path follows, nothing is lost, nothing is left behind."""
    stage, laptop, desk = two_links()
    core = laptop.core
    primary = lambda: core.tunnels.by_name(desk.name).paths.primary  # noqa: E731
    stage.run(20.0)
    before = _holdings(laptop)
    for turn in range(300):
        stage.stream(laptop, desk, 40, 0.05)
        stage.stream(desk, laptop, 40, 0.05)
        laptop.host.prefer("wlan0", 50 if turn % 2 == 0 else 600)
        stage.run(1.0)
        wanted = "wlan0" if turn % 2 == 0 else "eth0"
        assert core.underlay.interface(primary().socket) == wanted
        stage.run(1.0)
    stage.run(20.0)
    check_all_arrived(stage, (laptop, desk), (desk, laptop))
    assert core.tunnels.by_name(desk.name).move_seq == 300
    assert core.common.counters["path_doubted"] == 0
    assert _holdings(laptop) == before


def _holdings(node: SimNode) -> dict[str, int]:
    core = node.core
    return {
        "sockets": len(core.underlay.sockets),
        "open": len(node.host.sockets),
        "attempts": len(core.prober.attempts()),
        "timers": len(core.common.timers),
    }
