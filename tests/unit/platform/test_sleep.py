"""Waking up: a real timer of the kernel, and a real bus on which a logind of our own speaks."""

import asyncio
import errno
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from jeepney import DBusAddress, message_bus, new_signal
from jeepney.io.asyncio import DBusConnection, Proxy, open_dbus_router

from ntmd.platform.linux import sleep
from ntmd.platform.linux.sleep import ClockAlarm

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""
MANAGER = DBusAddress("/org/freedesktop/login1", interface="org.freedesktop.login1.Manager")


class Bus:
    """A dbus-daemon with a socket in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:path={folder / 'bus'}"
        config = folder / "bus.conf"
        config.write_text(CONFIG.format(socket=folder / "bus"))
        (folder / "bus").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [str(shutil.which("dbus-daemon")), f"--config-file={config}", "--nofork",
             "--print-address"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@asynccontextmanager
async def service(bus: Bus, name: str) -> AsyncIterator[DBusConnection]:
    """A program on the bus that owns ``name``."""
    async with open_dbus_router(bus.address) as router:
        assert await Proxy(message_bus, router).RequestName(name) == (1,)
        yield router


async def until(what: object, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not what():  # type: ignore[operator]
            await asyncio.sleep(0.005)


def test_logind_tells_of_a_wake_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Falling asleep is no wake; another program's word does not count; a new bus is found."""
    monkeypatch.setattr(sleep, "AGAIN", 0.05)
    woke: list[float] = []

    async def says(bus: Bus, name: str, asleep: bool) -> None:
        async with service(bus, name) as router:
            await router.send(new_signal(MANAGER, "PrepareForSleep", "b", (asleep,)))
            await Proxy(message_bus, router).NameHasOwner(name)  # the bus has passed it on

    async def story() -> None:
        bus = Bus(tmp_path)
        follower = asyncio.ensure_future(sleep.follow_logind(lambda: woke.append(1), bus.address))
        for _ in range(2):
            count = len(woke)
            for _ in range(100):  # until our match is in place
                await says(bus, "org.freedesktop.login1", False)
                await asyncio.sleep(0.02)
                if len(woke) > count:
                    break
            await until(lambda count=count: len(woke) > count)
            count = len(woke)
            await says(bus, "org.freedesktop.login1", True)
            await says(bus, "org.example.login1", False)
            await says(bus, "org.freedesktop.login1", False)
            await until(lambda count=count: len(woke) > count)
            await asyncio.sleep(0.05)
            assert len(woke) == count + 1
            bus.end()
            bus = Bus(tmp_path)
        follower.cancel()
        bus.end()

    asyncio.run(story())


def test_a_bus_that_talks_nonsense_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleep, "AGAIN", 0.01)
    callers: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(await reader.read(100))
        writer.write([b"", b"junk\r\n", b"OK x\r\n" + bytes(100)][len(callers) % 3])
        writer.close()

    async def story() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "bus")
        address = f"unix:path={tmp_path / 'bus'}"
        follower = asyncio.ensure_future(sleep.follow_logind(lambda: None, address))
        await until(lambda: len(callers) > 6)
        assert not follower.done()
        follower.cancel()
        server.close()

    asyncio.run(story())


def test_the_alarm_rings_once_and_is_silent_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A jump of the clock cannot be made here; a timer that is due takes the same way."""
    rung: list[float] = []
    alarms: list[ClockAlarm] = []

    def alarm() -> ClockAlarm:
        alarms.append(ClockAlarm(int(time.time()) + 1))
        return alarms[-1]

    async def story() -> None:
        monkeypatch.setattr(sleep, "ClockAlarm", alarm)
        monkeypatch.setattr(sleep, "SYSTEM_BUS", Path("/nowhere"))
        watching = asyncio.ensure_future(sleep.watch(lambda: rung.append(time.time())))
        await until(lambda: rung)
        await asyncio.sleep(0.1)
        assert len(rung) == 1
        watching.cancel()
        await asyncio.wait([watching])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(alarms[0].fileno())

    asyncio.run(story())


def test_a_cancelled_timer_is_what_a_jump_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = ClockAlarm()

    def cancelled(descriptor: int, size: int) -> bytes:
        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", cancelled)
        alarm.drain()
    alarm.drain()  # not readable at all: no complaint either
    alarm.close()
