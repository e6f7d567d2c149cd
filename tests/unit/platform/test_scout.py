"""What is asked of routers, and when nothing may be."""

import asyncio
from typing import Any

import pytest

from ntmd.node.commands import EndScout, ScoutNetwork
from ntmd.node.inputs import PortMapped
from ntmd.platform.linux import scout
from ntmd.platform.linux.scout import Scouts
from ntmd.platform.portmap import Granted
from ntmd.proto.types import Endpoint

OUTSIDE = Endpoint("203.0.113.7", 4330)


def wish(number: int, interface: str = "eth0") -> ScoutNetwork:
    return ScoutNetwork(number, interface, Endpoint("10.0.0.2", 4000 + number), "10.0.0.1")


def test_a_blocked_interface_is_left_alone_and_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was granted before a rehearsal is neither given back nor asked for in it."""
    asked: list[int] = []
    returned: list[tuple[int, str]] = []

    async def slow(wish: ScoutNetwork, lifetime: int) -> Granted:
        asked.append(wish.socket)
        await asyncio.sleep(0.02)
        return Granted(OUTSIDE, lifetime)

    monkeypatch.setattr(scout, "PROTOCOLS", {"pcp": slow})
    monkeypatch.setattr(scout, "_give_back", lambda wish, by: returned.append((wish.socket, by)))

    async def story() -> None:
        told: list[Any] = []
        scouts = Scouts(told.append, tuple)
        scouts.begin(wish(1))
        scouts.begin(wish(2, "wlan0"))
        await asyncio.sleep(0.1)
        assert told == [PortMapped(n, OUTSIDE, "pcp") for n in (1, 2)]
        scouts.begin(wish(3))
        scouts.block("eth0", 0.3)
        asked.clear()
        scouts.begin(wish(4))
        scouts.begin(wish(5, "wlan0"))
        scouts.end(EndScout(4))
        await asyncio.sleep(0.15)
        assert asked == [5]
        assert [each.socket for each in told] == [1, 2, 5]
        await asyncio.sleep(0.3)
        assert asked == [5, 1, 3]
        assert returned == []
        scouts.block("wlan0", 60.0)
        await scouts.close()
        assert returned == [(1, "pcp"), (3, "pcp")]

    asyncio.run(story())
