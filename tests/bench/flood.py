"""Floods 64-byte UDP datagrams, and counts them: ``flood source HOST SECONDS``, ``flood sink``."""

from __future__ import annotations

import socket
import sys
import time

PORT = 7300
SIZE = 64
SOL_UDP, UDP_GRO, SO_RCVBUFFORCE = 17, 104, 33


def source(host: str, seconds: float) -> int:
    """One datagram a call, as fast as the kernel takes them."""
    data, count = bytes(SIZE), 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.connect((host, PORT))
        send, until = own.send, time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(64):
                send(data)
            count += 64
    return count


def sink() -> int:
    """Counts until nothing came for half a second; cheap, because it takes joined datagrams."""
    count = 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        own.setsockopt(SOL_UDP, UDP_GRO, 1)
        own.bind(("::", PORT))
        own.settimeout(10)
        print("listening", flush=True)
        buffer = bytearray(65_536)
        while True:
            try:
                count += own.recv_into(buffer) // SIZE
            except TimeoutError:
                return count
            own.settimeout(0.5)


if __name__ == "__main__":
    print(sink() if sys.argv[1] == "sink" else source(sys.argv[2], float(sys.argv[3])), flush=True)
