"""Programs whose traffic shows damage: ``python -m tests.planes.traffic PROGRAM ...``.

Each prints one line of JSON. TCP: SHA-256 over the stream, random write sizes. UDP: each datagram
carries its number and a CRC of all of it; runs of equal sizes alternate with single ones. The
receiver says how far it came, so that no queue overflows on a busy machine: what is missing was
lost by the plane.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import sys
import zlib

RECEIVE_BUFFER = 32 << 20
SO_RCVBUFFORCE = 33
QUIET = 5.0  # seconds without a datagram: the sender has finished
WINDOW = 256  # datagrams under way, fewer than the TUN's queue holds
STEP = 64  # the receiver says how far it is after so many
PATIENCE = 0.2  # seconds without a word of it: something was lost, go on


def tcp_receive(port: int, _: int) -> dict[str, object]:
    with socket.create_server(("::", port), family=socket.AF_INET6) as server:
        print("listening", flush=True)
        connection, _peer = server.accept()
    digest, count = hashlib.sha256(), 0
    with connection:
        while data := connection.recv(1 << 18):
            digest.update(data)
            count += len(data)
    return {"bytes": count, "sha256": digest.hexdigest()}


def tcp_send(host: str, port: int, size: int, seed: int) -> dict[str, object]:
    dice, digest, left = random.Random(seed), hashlib.sha256(), size
    block = dice.randbytes(1 << 20)
    with socket.create_connection((host, port)) as connection:
        while left:
            length = min(left, dice.choice((1, 17, 1388, 1400, 9000, 70_000, 262_144)))
            begin = dice.randrange(len(block) - length)
            connection.sendall(block[begin : begin + length])
            digest.update(block[begin : begin + length])
            left -= length
    return {"bytes": size, "sha256": digest.hexdigest()}


def udp_receive(port: int, count: int) -> dict[str, object]:
    bad = late = copies = received = 0
    last, seen = -1, set()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        own.bind(("::", port))
        own.settimeout(20)
        print("listening", flush=True)
        while received < count:
            try:
                data, source = own.recvfrom(2048)
            except TimeoutError:
                break
            own.settimeout(QUIET)
            received += 1
            number = int.from_bytes(data[4:8], "big")
            bad += zlib.crc32(data[4:]) != int.from_bytes(data[:4], "big")
            late += number < last
            copies += number in seen
            seen.add(number)
            last = max(last, number)
            if received % STEP == 0:
                own.sendto(last.to_bytes(4, "big"), source)
    return {"received": received, "bad": bad, "late": late, "copies": copies}


def udp_send(host: str, port: int, count: int, seed: int) -> dict[str, object]:
    dice = random.Random(seed)
    block = dice.randbytes(4096)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.connect((host, port))
        own.settimeout(PATIENCE)
        number = arrived = 0
        while number < count:
            while number - arrived > WINDOW:
                arrived = _word(own, arrived, number)
            size = dice.choice((1, 56, 57, 64, 300, 1191, 1200, 1364))
            for _ in range(min(count - number, dice.choice((1, 1, 2, 40, 70)))):
                begin = dice.randrange(1024)
                body = number.to_bytes(4, "big") + block[begin : begin + size]
                own.send(zlib.crc32(body).to_bytes(4, "big") + body)
                number += 1
    return {"sent": number}


def _word(own: socket.socket, arrived: int, number: int) -> int:
    """How far the receiver is; after a silence, as far as the sender."""
    try:
        return max(arrived, int.from_bytes(own.recv(64), "big"))
    except TimeoutError:
        return number


def main() -> None:
    program, *words = sys.argv[1:]
    if program in ("tcp-receive", "udp-receive"):
        receive = tcp_receive if program == "tcp-receive" else udp_receive
        result = receive(int(words[0]), int(words[1]))
    else:
        send = tcp_send if program == "tcp-send" else udp_send
        result = send(words[0], int(words[1]), int(words[2]), int(words[3]))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
