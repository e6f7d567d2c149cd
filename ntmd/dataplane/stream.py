"""TLS connections as the plane sees them: one local socket each, to a process that speaks TLS.

:mod:`ntmd.carrier` is that process, started for each connection; a message is a u16 size and
datagrams of that size side by side, so a run of one flow costs one call. The kernel bounds what
waits in between; what does not fit is lost, as in a full socket of UDP.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from typing import Any

from ntmd.proto.plane import OpenStream, StreamSettings
from ntmd.proto.types import Endpoint

BUFFER = 262_144  # bytes in the kernel, each way: two runs
HEAD = 2


class StreamEnded(Exception):
    """The connection cannot be had, or is gone; says why."""


class StreamUnderlay:
    """One connection, under the same roof as :class:`ntmd.dataplane.underlay.Underlay`."""

    def __init__(self, wish: OpenStream, settings: StreamSettings, mark: int) -> None:
        """Start its process; raises OSError. It is open when :meth:`receive` says so."""
        self.number = wish.socket
        self.remote = wish.remote
        self.family = wish.remote.family
        self.local: Endpoint | None = None
        self.interface = wish.interface
        self.blocked = False
        self._head = bytearray(HEAD)
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        self.socket, other = socket.socketpair(socket.AF_UNIX, kind)
        with other:
            for each in (self.socket, other):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            self.socket.setblocking(False)
            os.set_inheritable(other.fileno(), True)
            command = [sys.executable, "-I", "-m", "ntmd.carrier", str(other.fileno())]
            self.pid = os.posix_spawn(command[0], command, os.environ)
        self.socket.send(bytes(HEAD) + json.dumps(_errand(wish, settings, mark)).encode())

    def send(self, run: memoryview, size: int, remote: Endpoint) -> int:
        """Send datagrams that lie side by side to the only remote; returns how many were lost.

        Raises OSError if the connection is gone.
        """
        try:
            self.socket.sendmsg([size.to_bytes(HEAD, "big"), run])
        except BlockingIOError:
            return -(-len(run) // size)
        return 0

    def receive(self, buffer: memoryview) -> tuple[int, int]:
        """Bytes of datagrams put into ``buffer`` and the size of each; (0, 0): it is open now.

        Raises BlockingIOError if nothing waits, StreamEnded if the connection is gone.
        """
        try:
            length = self.socket.recvmsg_into([self._head, buffer])[0] - HEAD
        except BlockingIOError:
            raise
        except OSError as error:
            raise StreamEnded(error.strerror or str(error)) from error
        if length < 0:
            raise StreamEnded("its process has ended")
        size = int.from_bytes(self._head, "big")
        if size:
            return length, size
        word: dict[str, Any] = json.loads(bytes(buffer[:length]))
        if word["what"] != "opened":
            raise StreamEnded(str(word.get("text")))
        self.local = Endpoint(word["host"], word["port"])
        return 0, 0


def _errand(wish: OpenStream, settings: StreamSettings, mark: int) -> dict[str, Any]:
    return {
        "interface": wish.interface,
        "address": wish.address,
        "host": wish.remote.host,
        "port": wish.remote.port,
        "service": wish.service,
        "mark": mark,
        "ca": base64.b64encode(settings.ca).decode(),
        "proxy": settings.proxy,
        "no_proxy": settings.no_proxy,
        "platform_ms": wish.platform_ms,
        "slack_ms": wish.slack_ms,
    }
