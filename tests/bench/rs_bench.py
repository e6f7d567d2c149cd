"""Sealed datagrams through one relay process: GSO batches of 1,400 bytes over loopback.

    python -m tests.bench.rs_bench [--seconds 3] [--rounds 5] [--size 1400]

Three processes: a sender with ``UDP_SEGMENT``, the relay (production plane and leg table), and
a receiver that checks the delivery index of every segment. Prints one JSON object: raw rounds, the
median rate in Gbit/s of datagram payload that *arrived*, and the relay's own CPU per gigabyte.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import statistics
import struct
import time
from multiprocessing.connection import Connection

from ntm_rs.legs import Holder, Leg, LegTable
from ntm_rs.plane import RelayPlane
from ntmd.proto.frame import pack_header
from ntmd.proto.types import Endpoint
from ntmd.runtime.clock import boot_clock
from ntmd.runtime.udp import open_udp

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
LEG, DELIVERY = 0xA0B0C0D0, 0x01020304
GRANT = b"g" * 16


def relay(pipe: Connection) -> None:
    """The relay process: one pair, from the sender's endpoint to the receiver's."""
    udp = open_udp("127.0.0.1", 0)
    pipe.send(udp.getsockname())
    sender, receiver = (Endpoint(*pipe.recv()) for _ in range(2))
    table, now = LegTable(), boot_clock()
    for at, leg, delivery in ((sender, LEG, 9), (receiver, LEG + 1, DELIVERY)):
        holder = Holder(repr(at).encode())
        holder.primary = holder.source(1, at, 1, now)
        holder.primary.validated = True
        table.add(Leg(leg, GRANT, holder, delivery, now + 1e6, 0))

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        plane = RelayPlane({1: udp}, table, lambda *_: None, boot_clock, loop)
        stopped = asyncio.Event()
        loop.add_reader(pipe.fileno(), stopped.set)
        await stopped.wait()
        pipe.recv()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        pipe.send({"cpu": cpu, "packets": table.packets, "bytes": table.bytes, **plane.stats()})
        plane.close()

    asyncio.run(serve())


def send(pipe: Connection, size: int, seconds: float) -> None:
    """The sender process: runs of up to 64 kB, as fast as the kernel takes them."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    pipe.send(udp.getsockname())
    target = pipe.recv()
    run = (pack_header(8, 1, 0, 0, LEG, 7) + bytes(size - 16)) * min(44, 65_000 // size)
    ancillary = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", size))]
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        sent += udp.sendmsg([run], ancillary, 0, target)
        time.sleep(0)  # the two cores are shared by three processes
    pipe.send(sent)


def receive(udp: socket.socket, ready: Connection) -> dict[str, float]:
    """Count what arrives with the right delivery index until the line is silent."""
    udp.settimeout(0.3)
    view = memoryview(bytearray(65_536))
    wanted = DELIVERY.to_bytes(4, "big")
    total = wrong = batches = 0
    first = last = 0.0
    while True:
        try:
            size, ancillary, _, _ = udp.recvmsg_into([view], 64)
        except TimeoutError:
            if ready.poll():
                break
            continue
        last = time.monotonic()
        first = first or last
        batches += 1
        segment = int.from_bytes(ancillary[0][2][:4], "little") if ancillary else size
        count = -(-size // segment)
        right = all(view[4 + at : size : segment] == wanted[at : at + 1] * count for at in range(4))
        total, wrong = total + size, wrong + (0 if right else count)
    gbit = total * 8 / 1e9 / (last - first) if last > first else 0.0
    return {"gbit_s": gbit, "bytes": total, "wrong": wrong, "batches": batches}


def one_round(size: int, seconds: float) -> dict[str, float]:
    """One run of all three processes."""
    context = multiprocessing.get_context("spawn")
    own, theirs = context.Pipe()
    relayer = context.Process(target=relay, args=(theirs,), daemon=True)
    relayer.start()
    at = own.recv()
    udp = open_udp("127.0.0.1", 0)
    udp.setsockopt(SOL_UDP, UDP_GRO, 1)
    out, far = context.Pipe()
    sender = context.Process(target=send, args=(far, size, seconds), daemon=True)
    sender.start()
    own.send(out.recv())
    own.send(udp.getsockname())
    out.send(at)
    result = receive(udp, out)
    offered = out.recv()
    own.send("stop")
    told = own.recv()
    sender.join()
    relayer.join()
    gigabytes = told["bytes"] / 1e9 or 1.0
    return {
        **result,
        "offered_bytes": offered,
        "forwarded": told["packets"],
        "relay_cpu_s_per_gb": told["cpu"] / gigabytes,
        "segmented": told.get("segmented", 0),
        "queue_full": told.get("queue_full", 0),
    }


def measure(rounds: int = 5, seconds: float = 3.0, size: int = 1400) -> dict[str, object]:
    """``rounds`` runs; the median is of what arrived."""
    raw = [one_round(size, seconds) for _ in range(rounds)]
    rates = sorted(entry["gbit_s"] for entry in raw)
    return {
        "what": "sealed datagrams through one relay process",
        "size": size,
        "median_gbit_s": round(statistics.median(rates), 3),
        "range_gbit_s": [round(rates[0], 3), round(rates[-1], 3)],
        "rounds": raw,
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=1400)
    given = parser.parse_args()
    print(json.dumps(measure(given.rounds, given.seconds, given.size), indent=1))


if __name__ == "__main__":
    main()
