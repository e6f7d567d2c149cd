"""What kind of NAT is in between? A prober after RFC 5780, on plain sockets and nothing of ntmd.

    python prober.py serve ADDRESS ADDRESS           answers STUN on two ports of both addresses
    python prober.py probe ADDRESS ADDRESS WAIT...   prints JSON: mapping, filtering, hairpin, the
                                                     endpoints seen, which WAITs a mapping outlives

STUN's Binding request (RFC 8489) with CHANGE-REQUEST and RESPONSE-PORT (RFC 5780, 7.2 and 7.5).
"""

from __future__ import annotations

import ipaddress
import json
import os
import selectors
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PORTS = (3478, 3479)
COOKIE = 0x2112A442
REQUEST, RESPONSE = 0x0001, 0x0101
CHANGE_REQUEST, XOR_MAPPED, RESPONSE_PORT = 0x0003, 0x0020, 0x0027
CHANGE_ADDRESS, CHANGE_PORT = 0x04, 0x02
PATIENCE = 0.4  # seconds without an answer: there is none
COPIES = 2  # of each request, against a first datagram lost to address resolution

Address = tuple[str, int]


def attribute(kind: int, value: bytes) -> bytes:
    """One STUN attribute; every value here is a multiple of four bytes."""
    return struct.pack("!HH", kind, len(value)) + value


def message(kind: int, transaction: bytes, *attributes: bytes) -> bytes:
    """A STUN message."""
    body = b"".join(attributes)
    return struct.pack("!HHI", kind, len(body), COOKIE) + transaction + body


def parse(data: bytes) -> tuple[int, bytes, dict[int, bytes]]:
    """Kind, transaction and attributes; raises ValueError if it is no STUN message."""
    if len(data) < 20 or struct.unpack_from("!I", data, 4)[0] != COOKIE:
        raise ValueError("no STUN message")
    kind, length = struct.unpack_from("!HH", data)
    found, at = {}, 20
    while at < 20 + length:
        name, size = struct.unpack_from("!HH", data, at)
        found[name] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return kind, data[8:20], found


def mapped(source: Address) -> bytes:
    """XOR-MAPPED-ADDRESS of an IPv4 endpoint."""
    address = int(ipaddress.IPv4Address(source[0])) ^ COOKIE
    return attribute(XOR_MAPPED, struct.pack("!BBHI", 0, 1, source[1] ^ COOKIE >> 16, address))


def unmapped(value: bytes) -> Address:
    """The endpoint in an XOR-MAPPED-ADDRESS."""
    _, _, port, address = struct.unpack("!BBHI", value)
    return str(ipaddress.IPv4Address(address ^ COOKIE)), port ^ COOKIE >> 16


def serve(addresses: list[str]) -> None:
    """Answer for ever."""
    chooser = selectors.DefaultSelector()
    sockets = {}
    for address in addresses:
        for port in PORTS:
            own = sockets[address, port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own.bind((address, port))
            chooser.register(own, selectors.EVENT_READ, (address, port))
    print("ready", flush=True)
    while True:
        for key, _ in chooser.select():
            data, source = sockets[key.data].recvfrom(2048)
            kind, transaction, asked = parse(data)
            if kind != REQUEST:
                continue
            change = struct.unpack("!I", asked.get(CHANGE_REQUEST, bytes(4)))[0]
            address, port = key.data
            if change & CHANGE_ADDRESS:
                address = addresses[1 - addresses.index(address)]
            if change & CHANGE_PORT:
                port = PORTS[1 - PORTS.index(port)]
            to = source
            if RESPONSE_PORT in asked:
                to = (source[0], struct.unpack("!HH", asked[RESPONSE_PORT])[0])
            sockets[address, port].sendto(message(RESPONSE, transaction, mapped(source)), to)


def fresh() -> socket.socket:
    """A socket on a port of its own."""
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(("0.0.0.0", 0))
    return own


def ask(own: socket.socket, server: Address, *attributes: bytes) -> Address | None:
    """A Binding request and where the answer says that it came from; None: no answer."""
    transaction = os.urandom(12)
    for _ in range(COPIES):
        own.sendto(message(REQUEST, transaction, *attributes), server)
        found = listen(own, transaction)
        if found is not None:
            return unmapped(found[XOR_MAPPED])
    return None


def listen(own: socket.socket, transaction: bytes) -> dict[int, bytes] | None:
    """Attributes of the message of this transaction, if it comes in time."""
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        own.settimeout(left)
        try:
            _, said, found = parse(own.recv(2048))
        except TimeoutError:
            break
        if said == transaction:
            return found
    return None


def change(flags: int) -> bytes:
    """CHANGE-REQUEST: answer from another address or port."""
    return attribute(CHANGE_REQUEST, struct.pack("!I", flags))


def mapping(first: str, second: str) -> tuple[str, list[Address | None]]:
    """RFC 5780, 4.3."""
    with fresh() as own:
        seen = [
            ask(own, (first, PORTS[0])), ask(own, (second, PORTS[0])), ask(own, (second, PORTS[1]))
        ]  # fmt: skip
    if None in seen:
        return "blocked", seen
    if seen[0] == seen[1]:
        return ("endpoint-independent" if seen[1] == seen[2] else "port-dependent"), seen
    return ("address-dependent" if seen[1] == seen[2] else "address-and-port-dependent"), seen


def filtering(first: str) -> str:
    """RFC 5780, 4.4; a socket that never spoke to the other address or port."""
    with fresh() as own:
        ask(own, (first, PORTS[0]))
        if ask(own, (first, PORTS[0]), change(CHANGE_ADDRESS | CHANGE_PORT)) is not None:
            return "endpoint-independent"
        if ask(own, (first, PORTS[0]), change(CHANGE_PORT)) is not None:
            return "address-dependent"
        return "address-and-port-dependent"


def hairpin(first: str) -> bool:
    """RFC 5780, 4.5, both having sent to each other's outer endpoint, as in a punch."""
    with fresh() as one, fresh() as other:
        here, there = ask(one, (first, PORTS[0])), ask(other, (first, PORTS[0]))
        if here is None or there is None:
            return False
        transaction = os.urandom(12)
        other.sendto(b"open", here)
        one.sendto(message(REQUEST, transaction), there)
        return listen_raw(other, transaction)


def listen_raw(own: socket.socket, transaction: bytes) -> bool:
    """Whether the datagram of this transaction arrives."""
    own.settimeout(PATIENCE)
    try:
        while True:
            if transaction in own.recv(2048):
                return True
    except TimeoutError:
        return False


def lifetime(first: str, waits: list[float]) -> dict[str, bool]:
    """RFC 5780, 4.6: for each wait a mapping of its own, asked for from another socket."""
    mappings = []
    for wait in waits:
        own = fresh()
        seen = ask(own, (first, PORTS[0]))
        mappings.append((time.monotonic() + wait, own, seen))
    alive = {}
    for (due, own, seen), wait in zip(mappings, waits, strict=True):
        time.sleep(max(0.0, due - time.monotonic()))
        with own, fresh() as other:
            if seen is None:
                continue
            transaction = os.urandom(12)
            port = attribute(RESPONSE_PORT, struct.pack("!HH", seen[1], 0))
            other.sendto(message(REQUEST, transaction, port), (first, PORTS[0]))
            alive[str(wait)] = listen(own, transaction) is not None
    return alive


def probe(first: str, second: str, waits: list[float]) -> dict[str, object]:
    """Everything that can be told from inside."""
    with ThreadPoolExecutor() as aside:
        lives = aside.submit(lifetime, first, waits)
        word, seen = mapping(first, second)
        return {
            "mapping": word,
            "filtering": filtering(first),
            "hairpin": hairpin(first),
            "alive_after_s": lives.result(),
            "seen_as": seen,
        }


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:4])
    else:
        print(json.dumps(probe(sys.argv[2], sys.argv[3], [float(w) for w in sys.argv[4:]])))
