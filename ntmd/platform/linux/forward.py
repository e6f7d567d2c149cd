"""Passing DNS questions on to the resolvers that the machine used before.

A question keeps its bytes but for a random id of our own, leaves from a socket of its own (so the
kernel draws the port), and an answer counts only if id and question match. A resolver that refuses
or stays silent is followed by the next one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable

from ntmd.platform.linux import dnswire

PORT = 53
PENDING_MAX = 256
WAIT = 2.0  # seconds for one resolver; the client asks again after 5
ANSWER_MAX = 65_535

Reply = Callable[[bytes], None]


class Forwarder:
    """Asks ``upstreams`` (addresses, in this order) on behalf of clients."""

    def __init__(self, counters: Counter[str], port: int = PORT) -> None:
        self.upstreams: tuple[str, ...] = ()
        self._counters = counters
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, data: bytes, question: dnswire.Question, back: Reply, stream: bool) -> None:
        """Forward one question; ``back`` gets the answer, or SERVFAIL if there is none."""
        if len(self._tasks) >= PENDING_MAX or not self.upstreams:
            self._counters["dns_no_upstream" if not self.upstreams else "dns_pending_full"] += 1
            back(dnswire.reply(question, dnswire.SERVFAIL))
            return
        task = asyncio.ensure_future(self._serve(data, question, back, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Forget everything that is under way."""
        for task in self._tasks:
            task.cancel()

    async def _serve(
        self, data: bytes, question: dnswire.Question, back: Reply, stream: bool
    ) -> None:
        number = os.urandom(2)
        exchange = self._by_tcp if stream else self._by_udp
        for upstream in self.upstreams:
            try:
                async with asyncio.timeout(WAIT):
                    answer = await exchange(upstream, number + data[2:], question.raw)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
            back(data[:2] + answer[2:])
            return
        self._counters["dns_upstreams_silent"] += 1
        back(dnswire.reply(question, dnswire.SERVFAIL))

    async def _by_udp(self, upstream: str, query: bytes, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in upstream else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as udp:
            await loop.sock_connect(udp, _where(upstream, self._port))
            await loop.sock_sendall(udp, query)
            while True:
                answer = await loop.sock_recv(udp, ANSWER_MAX)
                if answer[:2] == query[:2] and dnswire.answers_question(answer, question):
                    return answer
                self._counters["dns_foreign_answer"] += 1

    async def _by_tcp(self, upstream: str, query: bytes, question: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*_where(upstream, self._port)[:2])
        try:
            writer.write(struct.pack(">H", len(query)) + query)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
        finally:
            writer.close()
        if answer[:2] != query[:2] or not dnswire.answers_question(answer, question):
            raise OSError("the answer is for another question")
        return answer


def _where(upstream: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    host, _, scope = upstream.partition("%")
    if not scope:
        return host, port
    index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    return host, port, 0, index
