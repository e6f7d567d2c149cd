"""A node that moves for ever holds no more than one that moved a little."""

from __future__ import annotations

from collections import deque
from types import FunctionType, MethodType, ModuleType
from typing import Any

from ntmd.proto.timing import PREDICTION_DESTINATIONS
from tests.sim.nat import PORT_RESTRICTED
from tests.sim.story import NODE_LINK, Stage

SETTLED = 400.0  # seconds: slots of earlier sessions are closed, copies and timers are over
BOUNDED = {
    "Journal.entries": 256,
    "Timers._heap": 100,
    "Allocations._places": PREDICTION_DESTINATIONS,
}
CONTAINERS = (dict, list, tuple, set, frozenset, deque)


def sizes(root: Any) -> dict[str, int]:
    """Elements of all containers that can be reached, by ``Class.attribute``."""
    found: dict[str, int] = {}
    seen: dict[int, Any] = {}
    waiting: list[tuple[Any, str]] = [(root, "")]
    while waiting:
        each, place = waiting.pop()
        if id(each) in seen or isinstance(each, type | ModuleType):
            continue
        if type(each).__module__.startswith("tests."):
            continue
        seen[id(each)] = each
        if isinstance(each, CONTAINERS):
            found[place] = found.get(place, 0) + len(each)
            inside = [*each, *each.values()] if isinstance(each, dict) else list(each)
            waiting += [(item, f"{place}[]") for item in inside]
        else:
            waiting += members(each)
    return found


def members(each: Any) -> list[tuple[Any, str]]:
    """What an object holds, and its name."""
    if isinstance(each, MethodType):
        return [(each.__self__, "")]
    if isinstance(each, FunctionType):
        return [(cell.cell_contents, "closure") for cell in each.__closure__ or ()]
    name = type(each).__name__
    slots = [slot for cls in type(each).__mro__ for slot in getattr(cls, "__slots__", ())]
    held = [(key, getattr(each, key)) for key in slots if hasattr(each, key)]
    held += list(getattr(each, "__dict__", {}).items())
    return [(value, f"{name}.{key}") for key, value in held]


def test_nothing_grows_with_the_number_of_moves() -> None:
    stage = Stage(1, keep_trace=False)
    stage.domain()
    laptop = stage.node("laptop", stage.world.home(PORT_RESTRICTED))
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    stage.all_up()
    stage.first_answer(laptop, desk)
    homes = [stage.world.home(PORT_RESTRICTED) for _ in range(4)]

    def roam(moves: int) -> None:
        """Hard, hard, soft, and so on, three a second."""
        for number in range(moves):
            old, new = ("eth0", "eth1") if "eth0" in laptop.host.interfaces else ("eth1", "eth0")
            if number % 3 < 2:
                new = old
                laptop.host.detach(old)
            laptop.host.attach(new, homes[number % 4], NODE_LINK)
            if new != old:
                stage.run(0.1)
                laptop.host.detach(old)
            stage.run(0.3)
        stage.fresh_answer(laptop, desk)
        stage.run(SETTLED)

    roam(40)
    before = {node.name: sizes(node.core) for node in (laptop, desk)}
    roam(60)
    for node in (laptop, desk):
        after, was = sizes(node.core), before[node.name]
        grown = {
            place: (was.get(place, 0), count)
            for place, count in after.items()
            if count > was.get(place, 0) + 20 and not place.startswith(tuple(BOUNDED))
        }
        assert not grown, grown
        for place, most in BOUNDED.items():
            assert after[place] <= most
