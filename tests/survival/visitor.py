"""What the laptop keeps open: a WebSocket that says a number ten times a second, and an idle TCP.

    python -m tests.survival.visitor HOST

Prints ``ws N`` for each number that comes back, ``idle WORD`` for each word that was typed on stdin
and came back over the idle connection, and ``closed KIND WHY`` when one of them breaks.
"""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.survival.services import ECHO, WEB_SOCKET

INTERVAL = 0.1


def say(*words: object) -> None:
    """One line on stdout, in one piece: several threads say something."""
    print(" ".join(map(str, words)) + "\n", end="", flush=True)


def count(connection: ClientConnection) -> None:
    """Say the numbers."""
    due = time.monotonic()
    try:
        for number in itertools.count():
            connection.send(str(number))
            due = max(due + INTERVAL, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
    except ConnectionClosed as error:
        say("closed", "ws", repr(error))


def hear(connection: ClientConnection) -> None:
    """Note what comes back; a number out of turn is an error of the connection."""
    try:
        for wanted, message in enumerate(connection):
            if int(message) != wanted:
                say("closed", "ws", "expected", wanted, "got", message)
                return
            say("ws", wanted)
    except ConnectionClosed as error:
        say("closed", "ws", repr(error))


def idle(client: socket.socket) -> None:
    """Words from stdin, over the idle connection and back."""
    try:
        for line in sys.stdin:
            client.sendall(line.encode())
            answer = b""
            while not answer.endswith(b"\n"):
                piece = client.recv(4096)
                if not piece:
                    raise ConnectionError("end of stream")
                answer += piece
            say("idle", answer.decode().strip())
    except OSError as error:
        say("closed", "idle", repr(error))


def main(host: str) -> None:
    """Until it is ended."""
    client = socket.create_connection((host, ECHO), timeout=20)
    client.settimeout(None)
    say("connected", "idle", client.getsockname()[1])
    family = client.family
    stream = socket.socket(family, socket.SOCK_STREAM)
    stream.connect((*client.getpeername()[:1], WEB_SOCKET, *client.getpeername()[2:]))
    with connect(f"ws://desk:{WEB_SOCKET}/", sock=stream, compression=None) as connection:
        say("connected", "ws", stream.getsockname()[1])
        threading.Thread(target=idle, args=(client,), daemon=True).start()
        threading.Thread(target=count, args=(connection,), daemon=True).start()
        hear(connection)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
