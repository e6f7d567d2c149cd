"""UDP at a given rate, and a count of what arrives.

``pace source HOST SIZE`` reads lines ``RATE SECONDS`` (rate 0: as fast as it goes) and answers each
with the number sent; ``pace sink SIZE`` answers each line with the number received so far.
"""

from __future__ import annotations

import select
import socket
import sys
import time

PORT = 7301
BURST = 64  # most datagrams between two looks at the clock
SOL_UDP, UDP_GRO, SO_RCVBUFFORCE = 17, 104, 33


def source(host: str, size: int) -> None:
    """Sends what the lines on stdin ask for."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.connect((host, PORT))
        for line in sys.stdin:
            rate, seconds = (float(word) for word in line.split())
            print(send(own, bytes(size), rate, seconds), flush=True)


def send(own: socket.socket, data: bytes, rate: float, seconds: float) -> int:
    """Paced by the clock; returns how many went out."""
    push, began, sent = own.send, time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        due = min(BURST, int(passed * rate) - sent) if rate else BURST
        for _ in range(due):
            push(data)
        sent += max(0, due)
        if due <= 0:
            time.sleep(50e-6)
    return sent


def sink(size: int) -> None:
    """Counts datagrams; takes joined ones, so that it costs little."""
    count, buffer = 0, bytearray(65_536)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        own.setsockopt(SOL_UDP, UDP_GRO, 1)
        own.bind(("::", PORT))
        own.setblocking(False)
        print("listening", flush=True)
        while True:
            ready, _, _ = select.select([own, sys.stdin], [], [])
            if own in ready:
                for _ in range(BURST):
                    try:
                        count += own.recv_into(buffer) // size
                    except BlockingIOError:
                        break
            elif not sys.stdin.readline():
                return
            else:
                print(count, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        sink(int(sys.argv[2]))
    else:
        source(sys.argv[2], int(sys.argv[3]))
