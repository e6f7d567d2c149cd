"""The daemon around a scripted core, on a real TUN with a real plane, in a namespace of its own."""

import asyncio
import ctypes
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ntmd import daemon as daemon_module
from ntmd.config import Settings
from ntmd.daemon import Daemon, PlaneDied
from ntmd.node.commands import ConfigureDevice, NameAnswered, StateChanged
from ntmd.node.inputs import DeviceReady, NameAsked, NetworkChanged, Stopping, Woke
from ntmd.nodefiles import NodeFiles
from ntmd.platform.linux import sleep
from ntmd.progress import Progress
from ntmd.proto.io import Store, UserAnswered, UserAsked
from ntmd.proto.plane import OpenSocket, SocketOpened
from ntmd.proto.types import parse_address
from ntmd.runtime.clock import boot_clock
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.control import ControlClient
from tests.unit.platform.conftest import Isolated, isolated, sh

__all__ = ["isolated"]

pytestmark = pytest.mark.e2e

DEVICE = ConfigureDevice(
    parse_address("fd5e:1:2:3::7"), parse_address("fd5e:1:2::53"), "fd5e:1:2::/48", 1420,
    ("home.test",),
)  # fmt: skip


class Scripted:
    """A core that follows the rules of the contract and decides nothing."""

    made: "Scripted"
    configures = True

    def __init__(
        self, settings: Any, identity: Any, trust: Any, home: Any, stored: Any, **more: Any
    ):
        self.stored = dict(stored)
        self.persist = more["persist"]
        self.events: list[Any] = []
        self.wishes: list[Any] = [DEVICE] if self.configures else []
        Scripted.made = self

    def handle(self, event: Any, now: float) -> None:
        self.events.append(event)
        match event:
            case DeviceReady():
                self.wishes += [StateChanged("up"), Store("self", b"remembered")]
            case NetworkChanged() if event.interfaces:
                first = event.interfaces[0]
                address = first.addresses[0].address
                self.wishes.append(OpenSocket(1, first.name, 4, address, 0))
            case Stopping():
                self.wishes.append(StateChanged("down"))
            case UserAsked(token=token, what="status"):
                self.wishes.append(UserAnswered(token, {"state": "up", "drops": {"x": 1}}))
            case UserAsked(token=token, what="remember"):
                self.wishes.append(Store("more", bytes(4096)))
                self.persist("sequence", bytes(8))
                self.wishes.append(UserAnswered(token, {}))
            case NameAsked(token=token):
                self.wishes.append(NameAnswered(token, DEVICE.address))

    def handle_deadline(self, now: float) -> None:
        return

    def take_commands(self) -> list[Any]:
        taken, self.wishes = self.wishes, []
        return taken

    def deadline(self) -> float | None:
        return 0.0 if self.wishes else None


class Member:
    """As much of a membership as the daemon needs."""

    fingerprint = "00112233"
    name = "laptop.home.test"
    domain = "home.test"
    endpoints = ()
    ca = b""

    def identity(self) -> None:
        return None

    trust = home = identity


Story = Callable[[Daemon, Settings], Awaitable[None]]


def living(isolated: Isolated, tmp_path: Path, tell: Story, configures: bool = True) -> Any:
    """Run a daemon while ``tell`` goes on beside it; returns what the command line was told."""

    def inside() -> list[Any]:
        sh("ip link add v0 type veth peer name v0p")
        sh("ip addr add 10.1.0.2/24 dev v0")
        sh("ip link set v0 up")
        sh("ip link set v0p up")
        (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
        sh(f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf")
        vars(daemon_module)["NodeCore"] = Scripted
        Scripted.configures = configures
        settings = Settings(state=tmp_path / "state", interface="ntmt0")
        reading, writing = os.pipe()
        daemon = Daemon(settings, NodeFiles(settings.state), Member(), Progress(writing))  # type: ignore[arg-type]

        async def both() -> None:
            running = asyncio.create_task(daemon.run())
            try:
                await asyncio.wait_for(tell(daemon, settings), 20)
            finally:
                daemon.stop()
                await asyncio.wait_for(running, 20)

        try:
            asyncio.run(both())
        finally:
            daemon.progress.close()
        with open(reading, encoding="utf-8") as pipe:
            return [json.loads(line) for line in pipe]

    return isolated(inside)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


def usable(daemon: Daemon) -> bool:
    return daemon.progress.descriptor is None


async def ask(settings: Settings, what: str) -> Any:
    def client() -> Any:
        with ControlClient(settings.socket) as connection:
            return connection.ask(what)

    return await asyncio.to_thread(client)


def test_it_comes_up_serves_and_gives_everything_back(isolated: Isolated, tmp_path: Path) -> None:
    async def tell(daemon: Daemon, settings: Settings) -> None:
        await until(lambda: usable(daemon))
        status = await ask(settings, "status")
        assert status["self"]["interface"] == "ntmt0"
        assert status["self"]["plane"] == "python"
        assert status["self"]["pid"] == os.getpid()
        assert status["dns"] == {
            "mode": "file", "address": "fd5e:1:2::53", "domains": ["home.test"],
        }  # fmt: skip
        assert status["drops"]["x"] == 1
        await until(lambda: any(isinstance(event, SocketOpened) for event in Scripted.made.events))
        answer = await asyncio.to_thread(sh, "getent ahostsv6 desk.home.test")
        assert "fd5e:1:2:3::7" in answer
        assert "src fd5e:1:2:3::7" in sh("ip -6 route get fd5e:1:2:9::1")
        assert (await ask(settings, "down"))["pid"] == os.getpid()
        assert "ntmt0" not in sh("ip -o link")
        assert "fd5e" not in sh("ip -6 route")
        assert Path("/etc/resolv.conf").read_text() == "nameserver 192.0.2.53\n"
        assert settings.socket.exists() is False

    reports = living(isolated, tmp_path, tell)
    assert [next(iter(report)) for report in reports] == ["step", "step", "step", "usable"]
    assert reports[-1]["usable"]["address"] == "fd5e:1:2:3::7"
    assert NodeFiles(tmp_path / "state").store().read_all() == {"self": b"remembered"}


def test_a_dead_plane_is_noticed_within_a_second_and_the_tun_stays(
    isolated: Isolated, tmp_path: Path
) -> None:
    async def tell(daemon: Daemon, settings: Settings) -> None:
        await until(lambda: usable(daemon))
        os.kill(daemon._plane.pid, signal.SIGKILL)
        async with asyncio.timeout(1):
            while not daemon._restart:
                await asyncio.sleep(0.005)

    def fails() -> None:
        with pytest.raises(PlaneDied):
            living(lambda function: function(), tmp_path, tell)
        assert "fd5e:1:2:3::7" in sh("ip -6 addr show dev ntmt0")
        assert "nameserver fd5e:1:2::53" in Path("/etc/resolv.conf").read_text()

    isolated(fails)


def test_a_first_registration_that_never_ends_is_given_up_with_advice(
    isolated: Isolated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "USABLE_WITHIN", 0.2)
    monkeypatch.setattr(daemon_module, "SETTLED_WITHIN", 0.1)

    async def tell(daemon: Daemon, settings: Settings) -> None:
        await until(lambda: daemon._stopping)

    reports = living(isolated, tmp_path, tell, configures=False)
    assert reports[-1]["exit_code"] == 4
    assert "did not answer" in reports[-1]["complaint"]
    assert "Check that the server runs" in reports[-1]["complaint"]


def test_a_disk_that_fills_up_ends_nothing_and_shows_in_health(
    isolated: Isolated, tmp_path: Path
) -> None:
    async def health(settings: Settings) -> list[str]:
        status = await ask(settings, "status")
        return [item["text"] for item in status["health"] if item["code"] == "storage"]

    async def tell(daemon: Daemon, settings: Settings) -> None:
        await until(lambda: usable(daemon))
        store = settings.state / "store"
        await until(lambda: any(store.iterdir()))
        await asyncio.to_thread(daemon._writer.submit(lambda: None).result)  # all is written
        sh(f"mount -t tmpfs -o size=4k,nr_inodes=1 none {store}")
        await ask(settings, "remember")
        async with asyncio.timeout(5):
            while not await health(settings):
                await asyncio.sleep(0.01)
        [text] = await health(settings)
        assert "disk is full" in text
        assert "Tunnels go on" in text
        sh(f"umount {store}")
        await ask(settings, "remember")
        async with asyncio.timeout(5):
            while await health(settings):
                await asyncio.sleep(0.01)

    living(isolated, tmp_path, tell)


def test_a_wake_is_told_to_the_core_at_the_instant(
    isolated: Isolated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The boot clock has run ahead, and the alarm rings; nothing else has anything to do."""
    alarms: list[sleep.ClockAlarm] = []

    def alarm() -> sleep.ClockAlarm:
        alarms.append(made())
        return alarms[-1]

    made = sleep.ClockAlarm
    monkeypatch.setattr(sleep, "ClockAlarm", alarm)

    async def tell(daemon: Daemon, settings: Settings) -> None:
        await until(lambda: usable(daemon))
        # Any event lets the clock be read; one comes when an address ceases to be tentative.
        await until(lambda: "tentative" not in sh("ip -6 addr"))
        await asyncio.sleep(0.1)
        daemon._clocks._boot = lambda: boot_clock() + 3600.0
        await asyncio.sleep(0.1)
        assert not any(isinstance(event, Woke) for event in Scripted.made.events)
        soon = sleep._TimerSpec(value_ns=1_000_000)
        assert sleep._libc.timerfd_settime(alarms[0].fileno(), 0, ctypes.byref(soon), None) == 0
        await until(lambda: any(isinstance(event, Woke) for event in Scripted.made.events))
        woke = [event for event in Scripted.made.events if isinstance(event, Woke)]
        assert [round(event.asleep) for event in woke] == [3600]

    living(isolated, tmp_path, tell)


def test_a_second_daemon_at_the_same_socket_is_refused(isolated: Isolated, tmp_path: Path) -> None:
    async def tell(daemon: Daemon, settings: Settings) -> None:
        await until(lambda: usable(daemon))
        other = Daemon(settings, NodeFiles(settings.state), Member(), Progress(None, True))  # type: ignore[arg-type]
        with pytest.raises(Complaint, match="another program serves"):
            await other.run()

    living(isolated, tmp_path, tell)
