"""The underlay watcher: pure reading of dumps, and real links that come and go."""

import asyncio
import errno
import gc
import itertools
import socket
from collections.abc import Callable

import pytest
from pyroute2 import AsyncIPRoute

from ntmd.node.inputs import NetworkChanged, UnderlayAddress
from ntmd.platform.linux import interfaces, watch
from tests.unit.platform.conftest import Isolated, sh

pytestmark = pytest.mark.e2e


class Seen:
    """Collects what the watcher says."""

    def __init__(self) -> None:
        self.states: list[NetworkChanged] = []
        self._news = asyncio.Event()

    def __call__(self, state: NetworkChanged) -> None:
        self.states.append(state)
        self._news.set()

    async def until(self, wanted: Callable[[NetworkChanged], bool]) -> NetworkChanged:
        async with asyncio.timeout(10):
            while not self.states or not wanted(self.states[-1]):
                self._news.clear()
                await self._news.wait()
        return self.states[-1]


def names(state: NetworkChanged) -> list[str]:
    return [interface.name for interface in state.interfaces]


def veth(name: str, address: str = "") -> None:
    sh(f"ip link add {name} type veth peer name {name}p")
    sh(f"ip link set {name} up")
    sh(f"ip link set {name}p up")
    if address:
        sh(f"ip addr add {address} dev {name} nodad" if ":" in address
           else f"ip addr add {address} dev {name}")  # fmt: skip


def test_a_dump_leaves_no_cycles_behind(isolated: Isolated) -> None:
    """What only the collector takes away leaves holes in the heap of a node on the move."""

    def messages() -> int:
        modules = [str(type(each).__module__) for each in gc.get_objects()]
        return sum(module.startswith("pyroute2.netlink.rtnl") for module in modules)

    async def tell(seen: Seen) -> None:
        gc.collect()
        before = messages()  # of what else this process has done
        gc.disable()
        try:
            for number in range(5):
                veth(f"v{number}", f"198.51.100.{number + 1}/24")
                await seen.until(lambda state, at=number: f"v{at}" in names(state))  # type: ignore[misc]
            async with asyncio.timeout(10):
                while messages() > before + 100:  # not one goes by itself
                    await asyncio.sleep(0.02)
        finally:
            gc.enable()

    watching(isolated, tell)


def watching(isolated: Isolated, tell: Callable[[Seen], object], *own: str) -> None:
    async def story() -> None:
        seen = Seen()
        task = asyncio.create_task(watch.watch(seen, own))
        try:
            await tell(seen)  # type: ignore[misc]
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    isolated(lambda: asyncio.run(story()))


def test_a_link_that_comes_and_goes_is_seen_whole(isolated: Isolated) -> None:
    async def tell(seen: Seen) -> None:
        await seen.until(lambda state: state.interfaces == ())
        veth("v0", "10.1.0.2/24")
        sh("ip -6 addr add 2001:db8::2/64 dev v0 nodad")
        sh("ip route add default via 10.1.0.1 dev v0 metric 100")
        sh("ip -6 route add default via 2001:db8::1 dev v0 metric 50")
        state = await seen.until(
            lambda s: bool(s.interfaces) and len(s.interfaces[0].gateways) == 2
        )
        (interface,) = state.interfaces
        assert interface.addresses == (
            UnderlayAddress("10.1.0.2", 24),
            UnderlayAddress("2001:db8::2", 64),
        )
        assert interface.gateways == ((4, "10.1.0.1"), (6, "2001:db8::1"))
        assert (interface.name, interface.metric, interface.mtu) == ("v0", 50, 1500)
        assert interface.carrier
        sh("ip addr del 10.1.0.2/24 dev v0")
        state = await seen.until(
            lambda s: s.interfaces[0].addresses == (UnderlayAddress("2001:db8::2", 64),)
        )
        sh("ip link set v0p down")  # the other end of the cable
        await seen.until(lambda s: s.interfaces == ())

    watching(isolated, tell)


def test_the_best_default_route_comes_first_and_follows_its_metric(isolated: Isolated) -> None:
    async def tell(seen: Seen) -> None:
        veth("v0", "10.1.0.2/24")
        veth("v1", "10.2.0.2/24")
        veth("v2", "10.3.0.2/24")
        sh("ip route add default via 10.1.0.1 metric 200")
        sh("ip route add default via 10.2.0.1 metric 100")
        await seen.until(lambda s: names(s) == ["v1", "v0", "v2"])
        sh("ip route del default via 10.2.0.1 metric 100")
        await seen.until(lambda s: names(s)[0] == "v0")

    watching(isolated, tell)


def test_a_default_route_may_have_no_gateway(isolated: Isolated) -> None:
    async def tell(seen: Seen) -> None:
        veth("v0", "10.1.0.2/24")
        state = await seen.until(lambda s: bool(s.interfaces))
        assert state.interfaces[0].gateways == ()
        sh("ip route add default dev v0")
        await seen.until(lambda s: s.interfaces[0].gateways == ((4, ""),))

    watching(isolated, tell)


def test_what_is_no_underlay_is_left_out(isolated: Isolated) -> None:
    async def tell(seen: Seen) -> None:
        sh("ip tuntap add dev other0 mode tun")
        sh("ip addr add 10.8.0.1/24 dev other0")
        sh("ip link set other0 up")
        veth("own0", "10.9.0.1/24")
        veth("down0", "10.7.0.1/24")
        sh("ip link set down0 down")
        veth("bare0")
        veth("v0", "10.1.0.2/24")
        state = await seen.until(lambda s: "v0" in names(s))
        assert names(state) == ["v0"]

    watching(isolated, tell, "own0")


def test_tentative_and_deprecated_addresses_say_so(isolated: Isolated) -> None:
    async def tell(seen: Seen) -> None:
        veth("v0")
        sh("ip -6 addr add 2001:db8::2/64 dev v0")
        first = await seen.until(lambda s: bool(s.interfaces))
        assert first.interfaces[0].addresses[0].tentative
        await seen.until(lambda s: not s.interfaces[0].addresses[0].tentative)
        sh("ip -6 addr change 2001:db8::2/64 dev v0 preferred_lft 0")
        await seen.until(lambda s: s.interfaces[0].addresses[0].deprecated)

    watching(isolated, tell)


def test_a_flood_that_overruns_the_monitor_loses_no_state(
    isolated: Isolated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MONITOR_BUFFER", 2048)
    monkeypatch.setattr(watch, "SO_RCVBUFFORCE", socket.SO_RCVBUF)
    lost = []
    original = watch.Monitor.drain

    def drain(self: watch.Monitor) -> bool:
        result = original(self)
        lost.append(self.lost)
        return result

    monkeypatch.setattr(watch.Monitor, "drain", drain)

    async def tell(seen: Seen) -> None:
        await seen.until(lambda s: s.interfaces == ())
        for number in range(60):  # the loop is blocked meanwhile, so that nobody drains
            sh(f"ip route add unreachable 10.200.{number}.0/24")
        veth("v0", "10.1.0.2/24")
        await seen.until(lambda s: names(s) == ["v0"])
        assert lost[-1] > 0

    watching(isolated, tell)


def test_an_error_of_the_monitor_other_than_overrun_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def recv(self, size: int) -> bytes:
            raise OSError(errno.EBADF, "bad")

        def close(self) -> None:
            pass

    monkeypatch.setattr(watch, "_open_monitor", Broken)
    with pytest.raises(OSError, match="bad"):
        watch.Monitor().drain()


def test_nothing_is_said_twice(isolated: Isolated) -> None:
    async def tell(seen: Seen) -> None:
        veth("v0", "10.1.0.2/24")
        sh("ip route add default via 10.1.0.1")
        await seen.until(lambda s: bool(s.interfaces) and bool(s.interfaces[0].gateways))
        for _ in range(5):
            sh("ip route add unreachable 10.99.0.0/24")
            sh("ip route del unreachable 10.99.0.0/24")
            await asyncio.sleep(0)
        sh("ip addr add 10.1.0.3/24 dev v0")
        await seen.until(lambda s: len(s.interfaces[0].addresses) == 2)
        snapshots = [state.interfaces for state in seen.states]
        assert all(one != two for one, two in itertools.pairwise(snapshots))

    watching(isolated, tell)


def test_dumps_do_not_grow(isolated: Isolated) -> None:
    async def story() -> None:
        veth("v0", "10.1.0.2/24")
        async with AsyncIPRoute() as netlink:
            for _ in range(5):
                await watch.snapshot(netlink, frozenset())
            assert all(queue.qsize() == 0 for queue in netlink.msg_queue.queues.values())

    isolated(lambda: asyncio.run(story()))


def test_the_netifaces_view(isolated: Isolated) -> None:
    def story() -> None:
        veth("v0", "10.1.0.2/24")
        sh("ip route add default via 10.1.0.1 metric 5")
        assert set(interfaces.interfaces()) == {"lo", "v0", "v0p"}
        found = interfaces.ifaddresses("v0")
        assert found[interfaces.AF_INET] == [{"addr": "10.1.0.2", "netmask": "255.255.255.0"}]
        assert len(found[interfaces.AF_LINK][0]["addr"]) == 17
        assert interfaces.gateways()["default"][interfaces.AF_INET] == ("10.1.0.1", "v0")
        assert interfaces.gateways()[interfaces.AF_INET] == [("10.1.0.1", "v0", True)]
        with pytest.raises(ValueError, match="valid interface"):
            interfaces.ifaddresses("absent")

    isolated(story)
