"""One end of a tunnel with static keys: ``python -m tests.planes.end SIDE [options]``.

Runs inside a namespace: opens the TUN, starts the plane's process, installs one tunnel, says
``ready``. On standard input: ``stats`` prints the drop counters and gauges as JSON, ``storm N``
lets install, switch and remove of a neighbour tunnel run N times a second, ``end`` ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import sys
from typing import Any

from ntmd.dataplane.remote import PlaneProcess
from ntmd.platform.linux.tun import open_tun
from ntmd.proto.plane import (
    DataKey,
    InstallTunnel,
    OpenSocket,
    PlanePath,
    RemoveTunnel,
    SocketFailed,
    SocketOpened,
    SwitchPath,
    TunnelActivity,
    TunnelEntry,
)
from ntmd.proto.types import Endpoint, Path, Suite

A, B = "fd00:aa::1", "fd00:aa::2"
PORT = 4500
SLOTS = {"a": 1, "b": 2}


def packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed


def entry(options: argparse.Namespace) -> TunnelEntry:
    side = options.side
    own, peer = (SLOTS["a"], SLOTS["b"]) if side == "a" else (SLOTS["b"], SLOTS["a"])
    keys = {"a": bytes(range(32)), "b": bytes(range(32, 64))}
    suite = Suite[options.suite]
    remotes = [Endpoint(each, PORT) for each in options.remote.split(",")]
    return TunnelEntry(
        tunnel=1,
        peer_address=packed(B if side == "a" else A),
        own_indexes=(1000 + own,),
        receive=(DataKey(own, suite, keys["b" if side == "a" else "a"], 1),),
        send=DataKey(peer, suite, keys[side], 1),
        peer_index=1000 + peer,
        paths=tuple(PlanePath(Path(i + 1, each), options.mtu) for i, each in enumerate(remotes)),
        takes_partial=not options.complete,
    )


class End:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.opened = asyncio.Event()
        self.failed = asyncio.Event()
        self.activity: TunnelActivity | None = None
        self.plane = PlaneProcess(self.event)
        self.waiting = len(options.local.split(","))
        self.storms, self.rate = 0, 0.0

    def event(self, event: Any) -> None:
        if isinstance(event, SocketOpened):
            self.waiting -= 1
            if not self.waiting:
                self.opened.set()
        elif isinstance(event, TunnelActivity):
            self.activity = event
        elif isinstance(event, SocketFailed) or type(event).__name__ == "DeviceFailed":
            print(json.dumps({"failed": str(event)}), flush=True)
            self.failed.set()

    async def run(self) -> None:
        options = self.options
        tun = open_tun(options.tun)
        own = packed(A if options.side == "a" else B)
        self.plane.start(tun.descriptor, tun.vnet_header, own, 0)
        pairs = zip(options.interface.split(","), options.local.split(","), strict=True)
        for number, (interface, address) in enumerate(pairs, 1):
            family = 6 if ":" in address else 4
            self.plane.send(OpenSocket(number, interface, family, address, PORT))
        self.plane.send(InstallTunnel(entry(options)))
        await asyncio.wait_for(self.opened.wait(), 10)
        print(json.dumps({"ready": self.plane.pid, "plane": self.plane.name}), flush=True)
        await self.listen()
        self.plane.close()

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        storm: asyncio.Task[None] | None = None
        while line := (await reader.readline()).decode().split():
            if line[0] == "stats":
                stats = self.plane.stats()
                report = {"drops": stats.drops, "gauges": stats.gauges, "storms": self.storms}
                report["storm_rate"] = self.rate
                if self.activity is not None:
                    report["lost"] = self.activity.lost
                    report["duplicated"] = self.activity.duplicated
                print(json.dumps(report), flush=True)
            elif line[0] == "storm":
                storm = asyncio.create_task(self.storm(int(line[1])))
            elif line[0] == "end":
                break
        if storm is not None:
            storm.cancel()

    async def storm(self, rate: int) -> None:
        """Install, switch and remove, in turn; the tunnel in use is never without a way."""
        own = entry(self.options)
        other = TunnelEntry(2, bytes(15) + b"\x09", (9,), own.receive, own.send, 9, own.paths)
        wishes = [
            InstallTunnel(own),
            SwitchPath(1, own.paths),
            InstallTunnel(other),
            RemoveTunnel(2),
        ]
        loop = asyncio.get_running_loop()
        begin, done = loop.time(), 0
        while True:
            while done < (loop.time() - begin) * rate:
                self.plane.send(wishes[done % len(wishes)])
                done += 1
            self.storms, self.rate = done, done / max(loop.time() - begin, 1.0)
            await asyncio.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["a", "b"])
    parser.add_argument("--tun", required=True)
    parser.add_argument("--interface", required=True)
    parser.add_argument("--local", required=True)
    parser.add_argument("--remote", required=True)
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--suite", default="AES_GCM")
    parser.add_argument("--complete", action="store_true", help="the peer takes no partial sums")
    asyncio.run(End(parser.parse_args()).run())


if __name__ == "__main__":
    main()
