"""The zone on the wire: UDP and TCP on every listening address."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from ntm_dc.dns import TCP_SIZE, ResponseLimit, Zone, answer, truncated
from ntmd.proto.types import Endpoint
from ntmd.runtime.clock import boot_clock
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.udp import UdpPort, bind_complaint

TCP_IDLE = 5.0  # seconds
TCP_CONNECTIONS = 64


class DnsServer:
    """Serves the zone that ``zone()`` gives at each query."""

    def __init__(self, zone: Callable[[], Zone], listen: Sequence[str], port: int) -> None:
        self.counters: Counter[str] = Counter()
        self._zone, self._listen, self._port = zone, tuple(listen), port
        self._limit = ResponseLimit()
        self._ports: list[UdpPort] = []
        self._servers: list[asyncio.Server] = []
        self._open = 0

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it is served (UDP and TCP)."""
        return tuple(port.local for port in self._ports)

    async def start(self) -> None:
        """Bind; Complaint if an address cannot be had."""
        try:
            for number, address in enumerate(self._listen):
                udp = UdpPort(number, address, self._port, self._datagram)
                self._ports.append(udp)
                await self._listen_tcp(address, udp.local.port)
        except Complaint:
            await self.stop()
            raise

    async def _listen_tcp(self, address: str, port: int) -> None:
        try:
            server = await asyncio.start_server(self._connection, address, port)
        except OSError as error:
            raise bind_complaint("TCP", address, port, error) from error
        self._servers.append(server)

    async def stop(self) -> None:
        """Close everything."""
        for server in self._servers:
            server.close()
        for port in self._ports:
            port.close()
        self._servers.clear()
        self._ports.clear()

    def _datagram(self, data: bytes, number: int, source: Endpoint) -> None:
        self.counters["udp"] += 1
        verdict = self._limit.verdict(source.host, boot_clock())
        if verdict == "drop":
            self.counters["limited"] += 1
            return
        reply = answer(data, self._zone()) if verdict == "answer" else truncated(data)
        if reply is None:
            self.counters["ignored"] += 1
        elif number < len(self._ports):
            self._ports[number].send(reply, source)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= TCP_CONNECTIONS:
            self.counters["tcp_refused"] += 1
            writer.close()
            return
        self._open += 1
        try:
            while True:
                length = await asyncio.wait_for(reader.readexactly(2), TCP_IDLE)
                size = int.from_bytes(length, "big")
                query = await asyncio.wait_for(reader.readexactly(size), TCP_IDLE)
                self.counters["tcp"] += 1
                reply = answer(query, self._zone(), size=TCP_SIZE)
                if reply is None:
                    break
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await asyncio.wait_for(writer.drain(), TCP_IDLE)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            self.counters["tcp_ended"] += 1
        finally:
            self._open -= 1
            writer.close()
