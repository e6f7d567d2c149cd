"""The plane's process: ``python -m ntmd.dataplane.child DESCRIPTOR``.

Started afresh, not forked, so that it holds nothing but what packets need. It speaks to the daemon
over one ``SOCK_SEQPACKET`` socket and ends when that does: then the daemon is gone. If the daemon
is busy, packets flow on; events wait in two bounded queues, datagrams for the core before reports.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from collections import deque
from typing import Any

from ntmd.dataplane.litter import Sweeper
from ntmd.dataplane.reference import ReferencePlane
from ntmd.dataplane.wire import MESSAGE_MAX, AskStats, SetOwnAddress, Start, Stats, pack, unpack
from ntmd.proto import timing
from ntmd.proto.io import SendFailed
from ntmd.proto.plane import DeviceFailed, NoTunnelFor, TunnelActivity, UnknownIndex

RECEIVE_MAX = 2 * MESSAGE_MAX
COMMANDS_PER_TURN = 64  # messages; packets have their turn in between
BATCH = 256  # events per message
REPEATED = (NoTunnelFor, TunnelActivity, UnknownIndex, SendFailed)  # what comes again if lost


class Child:
    """The plane, and the socket to the daemon."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        first, descriptors, _, _ = socket.recv_fds(control, RECEIVE_MAX, 1)
        [start] = unpack(first)
        assert isinstance(start, Start)
        self._plane = ReferencePlane(
            descriptors[0], start.vnet_header, start.own_address, start.mark
        )
        control.setblocking(False)
        self._plane.epoll.register(control, select.EPOLLIN)
        self._urgent: deque[Any] = deque()
        self._others: deque[Any] = deque()
        self._waiting: deque[bytes] = deque()  # messages the daemon had no room for yet

    def run(self) -> None:
        """Until the daemon is gone."""
        plane, control, sweeper = self._plane, self._control.fileno(), Sweeper()
        while True:
            if control in plane.turn() and not self._commands():
                break
            for event in plane.take_events():
                self._queue(event)
            if self._urgent or self._others or self._waiting:
                self._tell()
                sweeper.sweep()  # a few times a second where there is traffic, not in each turn
        plane.close()

    def _commands(self) -> bool:
        """Carry out what the daemon sent; False if it is gone."""
        for _ in range(COMMANDS_PER_TURN):
            try:
                message = self._control.recv(RECEIVE_MAX)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            for command in unpack(message):
                self._command(command)
        return True

    def _command(self, command: Any) -> None:
        match command:
            case SetOwnAddress(address=address):
                self._plane.set_own_address(address)
            case AskStats(token=token):
                self._urgent.append(Stats(token, dict(self._plane.drops), self._plane.gauges()))
            case _:
                self._plane.apply(command)

    def _queue(self, event: Any) -> None:
        queue = self._others if isinstance(event, REPEATED) else self._urgent
        if len(queue) >= timing.PLANE_EVENTS:
            self._plane.drops["event_queue_full"] += 1
        else:
            queue.append(event)

    def _tell(self) -> None:
        """Send events while the daemon takes them; the rest waits for room."""
        try:
            while self._waiting or self._urgent or self._others:
                if not self._waiting:
                    queue = self._urgent or self._others
                    batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
                    self._waiting.extend(pack(batch))
                self._control.send(self._waiting[0])
                self._waiting.popleft()
            self._plane.epoll.modify(self._control, select.EPOLLIN)
        except BlockingIOError:
            self._plane.epoll.modify(self._control, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self._waiting.clear()  # the daemon is gone; the next turn reads the end
            self._urgent.clear()
            self._others.clear()


def main() -> None:
    """Run on the socket whose descriptor is the only argument."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the daemon decides when to end
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # carriers of TLS end by themselves
    gc.set_threshold(50_000, 20, 100)
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        child = Child(control)
        gc.freeze()
        child.run()
    except Exception as error:  # tell the daemon why, then end: it starts afresh
        failed = DeviceFailed(
            getattr(error, "errno", None) or 0, f"{type(error).__name__}: {error}"
        )
        try:
            control.setblocking(True)
            control.sendall(pack([failed])[0])
        except OSError:
            pass
        os._exit(1)


if __name__ == "__main__":
    main()
