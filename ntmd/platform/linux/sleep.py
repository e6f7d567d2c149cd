"""The instant of waking, so that nobody has to wait for the next timer to notice it.

Two hints, both silent while nothing happens. A timer on the wall clock that is never due and is
cancelled whenever that clock jumps (``TFD_TIMER_CANCEL_ON_SET``, timerfd_create(2)): the kernel
cancels it when it resumes, and when somebody sets the clock. And where there is a system bus,
logind's ``PrepareForSleep`` (org.freedesktop.login1(5)), which comes after a wake. A hint is a
reason to look at the clocks and nothing more: whoever forges one has us read a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

from ntmd.runtime.journal import journal

SYSTEM_BUS = Path("/run/dbus/system_bus_socket")
LOGIND = "org.freedesktop.login1"
AGAIN = 600.0  # a bus that hung up is tried again after this, seconds
# linux/timerfd.h
TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2
NEVER = 1 << 40  # seconds since the epoch: the year 36812

log = journal(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


class _TimerSpec(ctypes.Structure):
    """``struct itimerspec``: interval and value, seconds and nanoseconds each."""

    _fields_ = (
        ("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long), ("value_ns", ctypes.c_long),
    )  # fmt: skip


class ClockAlarm:
    """A descriptor that becomes readable when the wall clock jumps. Raises OSError."""

    def __init__(self, due: int = NEVER) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC  # what TFD_NONBLOCK and TFD_CLOEXEC are
        self._descriptor = _checked(_libc.timerfd_create(time.CLOCK_REALTIME, flags))
        spec = _TimerSpec(value_s=due)
        how = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
        try:
            _checked(_libc.timerfd_settime(self._descriptor, how, ctypes.byref(spec), None))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """For the event loop."""
        return self._descriptor

    def drain(self) -> None:
        """It was readable: be ready for the next time."""
        try:
            os.read(self._descriptor, 8)
        except OSError as error:  # ECANCELED is how a jump of the clock is told
            log.debug("the clock jumped", why=error.strerror)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


async def watch(woke: Callable[[], None]) -> None:
    """Call ``woke`` when the machine may have slept; ends only by cancellation."""
    with contextlib.ExitStack() as stack:
        try:
            _set_alarm(woke, stack)
        except OSError as error:  # a sandbox, or a kernel without it
            log.info("a wake is noticed by the next timer only", why=error.strerror)
        if SYSTEM_BUS.exists():
            await follow_logind(woke)
        await asyncio.get_running_loop().create_future()  # for ever


def _set_alarm(woke: Callable[[], None], stack: contextlib.ExitStack) -> None:
    loop, alarm = asyncio.get_running_loop(), ClockAlarm()

    def rang() -> None:
        alarm.drain()
        woke()

    stack.callback(alarm.close)
    loop.add_reader(alarm.fileno(), rang)
    stack.callback(loop.remove_reader, alarm.fileno())


async def follow_logind(woke: Callable[[], None], address: str = f"unix:path={SYSTEM_BUS}") -> None:
    """Call ``woke`` after each sleep that logind tells of; ends only by cancellation."""
    while True:
        try:
            await _listen(woke, address)
        except Exception as error:  # a hint less; whatever a bus says must not end tunnels
            log.debug("no hints of logind", why=str(error) or type(error).__name__)
        await asyncio.sleep(AGAIN)


async def _listen(woke: Callable[[], None], address: str) -> None:
    from jeepney import HeaderFields, MatchRule, MessageType, message_bus
    from jeepney.io.asyncio import open_dbus_connection

    rule = MatchRule(
        type="signal", sender=LOGIND, interface=f"{LOGIND}.Manager", member="PrepareForSleep"
    )
    async with await open_dbus_connection(address) as bus:
        await bus.send(message_bus.AddMatch(rule))
        while True:
            message = await bus.receive()
            member = message.header.fields.get(HeaderFields.member)
            if message.header.message_type == MessageType.error:
                raise OSError(str(message.body))
            if member == "PrepareForSleep" and message.body == (False,):
                woke()
