"""The plane as the daemon sees it: a process of its own behind one socket pair."""

from __future__ import annotations

import asyncio
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from ntmd.dataplane.wire import MESSAGE_MAX, AskStats, SetOwnAddress, Start, Stats, pack, unpack
from ntmd.proto import timing
from ntmd.proto.io import SendDatagram
from ntmd.proto.plane import DeviceFailed, PlaneStats

RECEIVE_MAX = 2 * MESSAGE_MAX
MESSAGES_PER_TURN = 16
STATS_WITHIN = 0.25  # seconds until the last known figures have to do
END_WITHIN = 1.0


class PlaneProcess:
    """Starts the plane's process and speaks to it. Use it inside a running asyncio loop.

    Events go to ``on_event`` in order. When the process is gone, the last event is DeviceFailed.
    """

    name = "python"

    def __init__(self, on_event: Callable[[Any], None]) -> None:
        self._on_event = on_event
        self._backlog: deque[Any] = deque()
        self._writing = False
        self._closed = True
        self._dropped = 0
        self._token = 0
        self._stats = Stats(0, {}, {})

    def start(self, tun: int, vnet_header: int, own_address: bytes | None, mark: int) -> None:
        """Start it and hand over the TUN's descriptor; the caller keeps its own."""
        self._loop = asyncio.get_running_loop()
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        self._socket, other = socket.socketpair(socket.AF_UNIX, kind)
        with other:
            number = other.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ntmd.dataplane.child", str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
            )
        self._closed = False
        [first] = pack([Start(vnet_header, own_address or b"", mark)])
        socket.send_fds(self._socket, [first], [tun])
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._readable)

    @property
    def pid(self) -> int:
        """Number of the plane's process."""
        return self._process.pid

    def set_own_address(self, address: bytes) -> None:
        """The own virtual address (16 bytes)."""
        self.send(SetOwnAddress(address))

    def send(self, command: Any) -> None:
        """Carry out a command; never blocks. A datagram is dropped if the plane lags behind."""
        if self._closed:
            return
        if isinstance(command, SendDatagram) and len(self._backlog) >= timing.PLANE_EVENTS:
            self._dropped += 1
            return
        self._backlog.append(command)
        if len(self._backlog) == 1 and not self._writing:
            self._loop.call_soon(self._flush)

    def stats(self) -> PlaneStats:
        """Drop counters and gauges; those known last if the plane does not answer in time."""
        if not self._closed:
            self._token += 1
            self._backlog.append(AskStats(self._token))
            self._flush()
            self._await_stats()
        drops = dict(self._stats.drops)
        if self._dropped:
            drops["command_queue_full"] = self._dropped
        return PlaneStats(drops, dict(self._stats.gauges))

    def close(self) -> None:
        """End the process: it erases its keys when the socket is closed."""
        if self._closed:
            return
        self._flush()
        self._let_go()
        try:
            self._process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # ------------------------------------------------------------------ the socket

    def _flush(self) -> None:
        """Send what waits, several commands in a message, while the plane takes them."""
        if self._closed:
            return
        while self._backlog:
            batch = [self._backlog.popleft() for _ in range(min(256, len(self._backlog)))]
            messages = pack(batch)
            for done, message in enumerate(messages):
                try:
                    self._socket.send(message)
                except BlockingIOError:
                    left = [each for message in messages[done:] for each in unpack(message)]
                    self._backlog.extendleft(reversed(left))
                    self._wait_for_room(True)
                    return
                except OSError:
                    self._backlog.clear()  # it is gone: the reader will find out
                    return
        self._wait_for_room(False)

    def _wait_for_room(self, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self._socket, self._flush)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._socket)
        self._writing = wanted

    def _readable(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            if self._closed or not self._receive(self._on_event):
                return

    def _receive(self, deliver: Callable[[Any], None]) -> bool:
        try:
            message = self._socket.recv(RECEIVE_MAX)
        except BlockingIOError:
            return False
        except OSError as error:
            self._gone(error.errno or 0)
            return False
        if not message:
            self._gone(0)
            return False
        for event in unpack(message):
            if isinstance(event, Stats):
                self._stats = event
            else:
                deliver(event)
        return True

    def _await_stats(self) -> None:
        """Wait for the answer; events that come first are delivered afterwards, in order."""
        waiter = select.poll()
        waiter.register(self._socket, select.POLLIN)
        limit = self._loop.time() + STATS_WITHIN
        early: list[Any] = []
        while not self._closed and self._stats.token != self._token:
            left = limit - self._loop.time()
            if left <= 0 or not waiter.poll(left * 1000):
                break
            self._receive(early.append)
        for event in early:
            self._loop.call_soon(self._on_event, event)

    def _gone(self, number: int) -> None:
        self._let_go()
        code = self._process.wait()
        text = f"the plane's process ended with code {code}"
        self._loop.call_soon(self._on_event, DeviceFailed(number, text))

    def _let_go(self) -> None:
        self._closed = True
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
            self._writing = False
        self._socket.close()
