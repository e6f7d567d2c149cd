"""What the desk serves: a file over HTTPS, an echo over WebSocket, an echo over TCP.

    python -m tests.survival.services FOLDER

FOLDER holds cert.pem, key.pem and the file ``served``. The file goes out at a steady pace until
FOLDER/hurry exists, so that a download lasts as long as the scenario. Each new connection is noted
on stdout with its kind and the client's port.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

HTTPS, WEB_SOCKET, ECHO = 8443, 8765, 7777
PIECE, PACE = 10_000, 0.05  # 200 kB/s


def note(kind: str, port: int) -> None:
    """One line on stdout, in one piece: several threads note something."""
    print(f"{kind} {port}\n", end="", flush=True)


def server_socket(port: int) -> socket.socket:
    """Listens on both families."""
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


class Files(http.server.BaseHTTPRequestHandler):
    """GET of the one file, paced."""

    folder: Path

    def do_GET(self) -> None:
        """Send the file."""
        note("https", self.client_address[1])
        data = memoryview((self.folder / "served").read_bytes())
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        hurry, due = self.folder / "hurry", time.monotonic()
        with contextlib.suppress(OSError):  # the client's loss is the client's to report
            while data:
                self.wfile.write(data[:PIECE])
                data = data[PIECE:]
                due += PACE
                while time.monotonic() < due and not hurry.exists():
                    time.sleep(PACE / 2)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def serve_files(folder: Path, listener: socket.socket) -> None:
    """HTTPS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    Files.folder = folder
    server = http.server.ThreadingHTTPServer(("", HTTPS), Files, bind_and_activate=False)
    server.socket.close()
    server.socket = context.wrap_socket(listener, server_side=True)
    server.serve_forever()


def serve_web_socket(listener: socket.socket) -> None:
    """Each message comes back."""

    def echo(connection: ServerConnection) -> None:
        note("websocket", connection.remote_address[1])
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                connection.send(message)

    with serve(echo, sock=listener, compression=None) as server:
        server.serve_forever()


def serve_echo(listener: socket.socket) -> None:
    """Each byte comes back."""

    def echo(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                client.sendall(data)

    while True:
        client, peer = listener.accept()
        note("idle", peer[1])
        threading.Thread(target=echo, args=(client,), daemon=True).start()


def main(folder: str) -> None:
    """Until it is ended."""
    files, web, words = (server_socket(port) for port in (HTTPS, WEB_SOCKET, ECHO))
    threads = [
        threading.Thread(target=serve_files, args=(Path(folder), files), daemon=True),
        threading.Thread(target=serve_web_socket, args=(web,), daemon=True),
        threading.Thread(target=serve_echo, args=(words,), daemon=True),
    ]
    for thread in threads:
        thread.start()
    note("ready", 0)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
