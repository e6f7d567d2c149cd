"""The control socket: newline-delimited JSON over a Unix socket, both ends of it.

A request is one line ``{"id": 1, "what": "status", "arguments": {...}}``; it gets one or more
lines ``{"id": 1, "result": ..., "last": true}``, or ``{"id": 1, "error": "...", "exit_code": 1,
"last": true}``. Answers of several requests may be mixed. A client that hangs up cancels what it
asked for. The daemon's socket and the servers' ``admin.sock`` are both of this kind.

The client is synchronous and imports no event loop, so that commands start quickly.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ntmd.runtime.complaints import Complaint, Exit

PATH_MAX = 107  # sockaddr_un.sun_path without its final zero (unix(7))
LINE_MAX = 1 << 16  # a request
ANSWER_MAX = 64 << 20  # an answer, as read by the client
GROUP = "ntmd"
CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class ControlError(Complaint):
    """The control socket cannot be used, or does not answer."""


class ControlRefused(Complaint):
    """The daemon answered a request with a complaint."""

    def __init__(self, error: str, exit_code: int) -> None:
        super().__init__(error, exit_code=exit_code)


def check_path(path: Path) -> Path:
    """``path`` if a Unix socket can have it; complains otherwise."""
    length = len(os.fsencode(path))
    if length > PATH_MAX:
        raise ControlError(
            f"the control socket's path {path} is {length} bytes long.",
            f"The system allows {PATH_MAX}.",
            "Use a state directory with a shorter path.",
        )
    return path


class ControlClient:
    """One connection to a control socket; use it in a ``with`` statement.

    ``program`` and ``start`` (the command that starts it) appear in complaints. ``timeout`` is in
    seconds and counts from the last line heard.
    """

    def __init__(
        self, path: Path, program: str = "ntmd", start: str = "ntmd up", timeout: float = 10.0
    ) -> None:
        self.path = check_path(path)
        self.timeout = timeout
        self._program = program
        self._numbers = itertools.count(1)
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise self._not_connected(error, start) from error

    def ask(
        self, what: str, arguments: dict[str, Any] | None = None, timeout: float | None = None
    ) -> Any:
        """The (last) result of a request; raises ControlRefused or ControlError."""
        result = None
        for result in self.stream(what, arguments, timeout):  # noqa: B007 - the last one counts
            pass
        return result

    def stream(
        self, what: str, arguments: dict[str, Any] | None = None, timeout: float | None = None
    ) -> Iterator[Any]:
        """All results of a request as they come; ``timeout`` inf waits for ever between them."""
        number = next(self._numbers)
        request = {"id": number, "what": what, "arguments": arguments or {}}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self._lost() from error
        wait = self.timeout if timeout is None else timeout
        while True:
            answer = self._line(wait)
            if answer.get("id") not in (number, None):
                continue
            if answer.get("error"):
                raise ControlRefused(str(answer["error"]), int(answer.get("exit_code") or 1))
            if answer.get("last", True):
                if answer.get("result") is not None:
                    yield answer["result"]
                return
            yield answer.get("result")

    def close(self) -> None:
        """Hang up; the other side cancels what is not answered yet."""
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def _line(self, wait: float) -> dict[str, Any]:
        deadline = time.monotonic() + wait
        while (end := self._buffer.find(b"\n")) < 0:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._silent(wait)
            self._socket.settimeout(None if wait == float("inf") else left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise self._silent(wait) from None
            except OSError as error:
                raise self._lost() from error
            if not data or len(self._buffer) > ANSWER_MAX:
                raise self._lost()
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ControlError(
                f"what answers at {self.path} is not {self._program}.",
                "Its answer is not understood.",
                f"Check which program owns that socket, and that both are the same version of "
                f"{self._program}.",
            )
        return answer

    def _silent(self, wait: float) -> ControlError:
        return ControlError(
            f"{self._program} did not answer within {wait:.0f} s.",
            "It is running, but busy or stuck.",
            f"Try again; if it stays so, stop {self._program} and start it again.",
        )

    def _lost(self) -> ControlError:
        return ControlError(
            f"{self._program} hung up.",
            "It ended while it was being asked.",
            f"Look into its log, then start {self._program} again.",
            Exit.NOT_RUNNING,
        )

    def _not_connected(self, error: OSError, start: str) -> ControlError:
        if isinstance(error, PermissionError):
            return ControlError(
                f"no permission to use the control socket {self.path}.",
                f"Only root and members of the group {GROUP} may talk to {self._program}.",
                f"Run the command with sudo, or join the group: sudo usermod -aG {GROUP} $USER",
                Exit.NO_PERMISSION,
            )
        return ControlError(
            f"{self._program} is not running (nothing answers at {self.path}).",
            "There is nobody to ask.",
            f"Start it with: {start}",
            Exit.NOT_RUNNING,
        )


def group_id() -> int | None:
    """Number of the group that may use the socket, if it exists."""
    import grp  # here, because clients do not need it

    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


def may_use(uid: int, gid: int, group: int | None) -> bool:
    """Whether a caller with these credentials may use the socket of this process."""
    if uid in (0, os.geteuid()):
        return True
    if group is None:
        return False
    if gid == group:
        return True
    import grp
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name in grp.getgrgid(group).gr_mem
    except KeyError:
        return False
