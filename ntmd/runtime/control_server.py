"""The serving end of the control socket (see :mod:`ntmd.runtime.control`).

It runs on the event loop of the driver; a slow or silent client costs a bounded buffer and delays
nobody. Requests reach a core as ``UserAsked`` through a :class:`Desk`.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ntmd.proto.io import UserAnswered, UserAsked
from ntmd.runtime.complaints import Complaint, Exit, file_complaint
from ntmd.runtime.control import (
    CREDENTIALS,
    LINE_MAX,
    ControlError,
    check_path,
    group_id,
    may_use,
)
from ntmd.runtime.journal import journal, plain

CLIENTS = 64
UNSENT_MAX = 8 << 20  # a client that reads slower than this is hung up on
REQUESTS_PER_CLIENT = 64

log = journal(__name__)


class Request:
    """One request. Answer it any number of times with ``last`` False, then once with it True."""

    def __init__(self, client: _Client, number: Any, what: str, arguments: dict[str, Any]) -> None:
        self.what = what
        self.arguments = arguments
        self.uid = client.uid
        self.pid = client.pid
        self.on_cancel: Callable[[], None] | None = (
            None  # the client hung up before the last answer
        )
        self._client = client
        self._number = number
        self._done = False

    def answer(self, result: Any, last: bool = True) -> None:
        """Send a result; ignored after the last one, or when the client is gone."""
        self._send({"id": self._number, "result": plain(result), "last": last}, last)

    def fail(self, error: str, exit_code: int = Exit.FAILED) -> None:
        """Send a complaint; it is the last answer."""
        answer = {"id": self._number, "error": error, "exit_code": int(exit_code), "last": True}
        self._send(answer, True)

    def refuse(self, complaint: Complaint) -> None:
        """Send a complaint as :meth:`fail` does."""
        self.fail(complaint.text, complaint.exit_code)

    def _send(self, answer: dict[str, Any], last: bool) -> None:
        if self._done:
            return
        if last:
            self._done = True
            self._client.requests.discard(self)
        self._client.send(answer)


class ControlServer:
    """Listens at ``path``; calls ``on_request`` for each request of a permitted client."""

    def __init__(
        self,
        path: Path,
        on_request: Callable[[Request], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.path = check_path(path)
        self.loop = loop or asyncio.get_running_loop()
        self.on_request = on_request
        self.group = group_id()
        self.clients: set[_Client] = set()
        self._socket = _listen(path, self.group)
        self._inode = os.stat(path).st_ino
        self.loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Hang up on everybody and remove the socket file, if it is still ours."""
        if self._socket.fileno() < 0:
            return
        self.loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for client in list(self.clients):
            client.flush_and_close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except OSError:
            return

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        connection.setblocking(False)
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        pid, uid, gid = CREDENTIALS.unpack(raw)
        client = _Client(self, connection, pid, uid)
        if not may_use(uid, gid, self.group):
            log.warning("refused a caller at the control socket", uid=uid)
            client.send(_complaint(None, "no permission to use this socket.", Exit.NO_PERMISSION))
            client.flush_and_close()
        elif len(self.clients) >= CLIENTS:
            client.send(_complaint(None, "too many callers at once; try again.", Exit.FAILED))
            client.flush_and_close()
        else:
            self.clients.add(client)
            self.loop.add_reader(connection.fileno(), client.readable)


def _listen(path: Path, group: int | None) -> socket.socket:
    """A listening socket at ``path``; a dead one left there is replaced, a live one refused."""
    listener = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    )
    try:
        if _alive(path):
            raise ControlError(
                f"another program serves the control socket {path}.",
                "Two cannot share one state directory.",
                "Stop the other one first, or use another directory (--state of ntmd, --data of"
                " ntm-server).",
            )
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        before = os.umask(0o177)  # never open to others, not even between bind and chmod
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if group is not None:
            os.chown(path, -1, group)
            os.chmod(path, 0o660)
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise file_complaint("open the control socket", path, error) from error
    except Complaint:
        listener.close()
        raise
    return listener


def _alive(path: Path) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with probe:
        code = probe.connect_ex(str(path))
    return code in (0, errno.EAGAIN)


def _complaint(number: Any, text: str, code: int) -> dict[str, Any]:
    return {"id": number, "error": text, "exit_code": int(code), "last": True}


class _Client:
    """A connected client: its buffers and its open requests."""

    def __init__(
        self, server: ControlServer, connection: socket.socket, pid: int, uid: int
    ) -> None:
        self.server = server
        self.pid = pid
        self.uid = uid
        self.requests: set[Request] = set()
        self._connection = connection
        self._unread = bytearray()
        self._unsent = bytearray()
        self._closing = False

    def readable(self) -> None:
        """Take what came; every full line is a request."""
        try:
            data = self._connection.recv(LINE_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._unread += data
        while (end := self._unread.find(b"\n")) >= 0 and not self._closing:
            line = bytes(self._unread[:end])
            del self._unread[: end + 1]
            if line.strip():
                self._take(line)
        if len(self._unread) > LINE_MAX:
            self.send(_complaint(None, f"a request is longer than {LINE_MAX} bytes.", Exit.USAGE))
            self.flush_and_close()

    def _take(self, line: bytes) -> None:
        number: Any = None
        try:
            message = json.loads(line)
            number = message.get("id")
            what, arguments = message["what"], message.get("arguments") or {}
            good = isinstance(what, str) and isinstance(arguments, dict) and len(line) <= LINE_MAX
        except (ValueError, KeyError, AttributeError, RecursionError):
            good = False
        if not good or not isinstance(number, int | str | None):
            self.send(_complaint(None, "a request is not understood.", Exit.USAGE))
            return
        if len(self.requests) >= REQUESTS_PER_CLIENT:
            self.send(_complaint(number, "too many requests at once.", Exit.FAILED))
            return
        request = Request(self, number, what, arguments)
        self.requests.add(request)
        try:
            self.server.on_request(request)
        except Complaint as complaint:
            request.refuse(complaint)

    def send(self, answer: dict[str, Any]) -> None:
        """Queue one line and send as much as goes."""
        if self._closing or self._connection.fileno() < 0:
            return
        self._unsent += json.dumps(answer, separators=(",", ":")).encode() + b"\n"
        if len(self._unsent) > UNSENT_MAX:
            self.close()
        else:
            self._flush()

    def _flush(self) -> None:
        descriptor = self._connection.fileno()
        if descriptor < 0:
            return
        try:
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            self.server.loop.add_writer(descriptor, self._flush)
            return
        except OSError:
            self.close()
            return
        self.server.loop.remove_writer(descriptor)
        if self._closing:
            self.close()

    def flush_and_close(self) -> None:
        """Close once everything is sent."""
        self._closing = True
        self._flush()

    def close(self) -> None:
        """Close at once; open requests are cancelled."""
        descriptor = self._connection.fileno()
        if descriptor >= 0:
            self.server.loop.remove_reader(descriptor)
            self.server.loop.remove_writer(descriptor)
            self._connection.close()
        self.server.clients.discard(self)
        for request in list(self.requests):
            self.requests.discard(request)
            if request.on_cancel is not None:
                request.on_cancel()


class Desk:
    """Turns requests into ``UserAsked`` inputs of a core, and its answers back.

    A client that hangs up becomes ``UserAsked(token, "cancel", {})`` with the token it cancels.
    ``finish`` may add to a result what only the shell knows: it gets the request's ``what`` and
    the result, and returns the result to send.
    """

    def __init__(
        self,
        post: Callable[[UserAsked], None],
        finish: Callable[[str, Any], Any] = lambda what, result: result,
    ) -> None:
        self._post = post
        self._finish = finish
        self._open: dict[int, Request] = {}
        self._tokens = itertools.count(1)

    def ask(self, request: Request) -> None:
        """Hand ``request`` to the core."""
        token = next(self._tokens)
        self._open[token] = request
        request.on_cancel = lambda: self._cancel(token)
        self._post(UserAsked(token, request.what, request.arguments))

    def answered(self, command: UserAnswered) -> None:
        """Execute the core's answer; one for a cancelled request is ignored."""
        request = self._open.get(command.token)
        if request is None:
            return
        if command.last or command.error is not None:
            del self._open[command.token]
        if command.error is not None:
            request.fail(command.error, command.exit_code or Exit.FAILED)
        else:
            request.answer(self._finish(request.what, command.result), command.last)

    def _cancel(self, token: int) -> None:
        if self._open.pop(token, None) is not None:
            self._post(UserAsked(token, "cancel", {}))
