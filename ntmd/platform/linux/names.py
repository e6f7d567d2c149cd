"""The stub resolver on the TUN: names of the platform from the core, the rest from the upstreams.

A question for an address (AAAA) of a platform name is held until the core knows the way
(``NameAsked``, ``NameAnswered``); other types of such a name exist but are empty, so that programs
that ask for IPv4 as well go on at once. Questions about anything else go to the resolvers that the
machine used before, in their order, over UDP or TCP as they came. Malformed packets get FORMERR or
nothing. Every table here is bounded.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ntmd.node.commands import NameAnswered
from ntmd.node.inputs import NameAsked
from ntmd.platform.linux import dnswire
from ntmd.platform.linux.forward import Forwarder
from ntmd.proto.types import Endpoint
from ntmd.runtime.udp import UdpPort, bind_complaint

PORT = 53
HELD_MAX = 512
HELD_SECONDS = 6.0  # the core answers before; this only bounds what a defect could leave behind
KNOWN_MAX = 1024
TCP_CLIENTS = 32
TCP_IDLE = 15.0

Reply = Callable[[bytes], None]


@dataclass(slots=True)
class Held:
    """Questions for one name that wait for the core."""

    name: str
    waiting: list[tuple[dnswire.Question, Reply]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class StubResolver:
    """Serves ``address`` port 53. ``asked`` hands a NameAsked to the core."""

    def __init__(self, address: str, asked: Callable[[NameAsked], None], port: int = PORT) -> None:
        self.address = address
        self.domains: tuple[str, ...] = ()
        self.counters: Counter[str] = Counter()
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._forward = Forwarder(self.counters)
        self._tokens = itertools.count(1)
        self._held: dict[int, Held] = {}
        self._token_of: dict[str, int] = {}
        self._known: dict[bytes, str] = {}  # virtual address to name, for PTR
        self._udp = UdpPort(0, address, port, self._datagram)
        self.port = self._udp.local.port
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Serve TCP as well."""
        try:
            self._server = await asyncio.start_server(self._client, self.address, self.port)
        except OSError as error:
            raise bind_complaint("TCP", self.address, self.port, error) from error

    def serve(self, domains: tuple[str, ...], upstreams: tuple[str, ...]) -> None:
        """From now on answer for ``domains`` and forward the rest to ``upstreams``."""
        self.domains = tuple(domain.lower().strip(".") for domain in domains if domain)
        self._forward.upstreams = tuple(up for up in upstreams if up != self.address)

    def answered(self, answer: NameAnswered) -> None:
        """The core's answer to a NameAsked; an unknown token is ignored."""
        held = self._held.pop(answer.token, None)
        if held is None:
            return
        self._token_of.pop(held.name, None)
        if held.timer is not None:
            held.timer.cancel()
        code, records = _outcome(answer)
        if answer.address is not None:
            self._remember(answer.address, held.name)
        for question, reply in held.waiting:
            mine = () if question.kind == dnswire.A else records
            reply(dnswire.reply(question, code, mine))

    def close(self) -> None:
        """Stop serving; what is held is not answered."""
        self._udp.close()
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        for held in self._held.values():
            if held.timer is not None:
                held.timer.cancel()
        self._held.clear()
        self._token_of.clear()
        self._forward.close()

    # ------------------------------------------------------------------ questions

    def _datagram(self, data: bytes, _socket: int, source: Endpoint) -> None:
        def back(answer: bytes) -> None:
            self._udp.send(answer, source)

        self._question(data, back, stream=False)

    def _question(self, data: bytes, back: Reply, stream: bool) -> None:
        try:
            question = dnswire.parse_query(data)
        except ValueError:
            self.counters["dns_malformed"] += 1
            answer = dnswire.error_reply(data, dnswire.FORMERR)
            if answer is not None:
                back(answer)
            return
        if question.flags & dnswire.OPCODE:
            back(dnswire.reply(question, dnswire.NOTIMP))
        elif question.kind_class == dnswire.IN and self._ours(question.name):
            self._platform_name(question, back)
        elif question.kind == dnswire.PTR and self._reverse(question, back):
            return
        else:
            self.counters["dns_forwarded"] += 1
            self._forward.ask(data, question, back, stream)

    def _ours(self, name: str) -> bool:
        return any(name == domain or name.endswith("." + domain) for domain in self.domains)

    def _platform_name(self, question: dnswire.Question, back: Reply) -> None:
        self.counters["dns_own"] += 1
        # Programs ask A and AAAA together, and an empty answer to one hides the other's failure:
        # so both wait for the same verdict, although there never is an A record.
        held_kinds = (dnswire.AAAA, dnswire.ANY, dnswire.A)
        if question.kind not in held_kinds or question.name in self.domains:
            back(dnswire.reply(question, dnswire.NOERROR))
            return
        token = self._token_of.get(question.name)
        if token is not None:
            if len(self._held[token].waiting) < HELD_MAX:
                self._held[token].waiting.append((question, back))
            return
        if len(self._held) >= HELD_MAX:
            self.counters["dns_held_full"] += 1
            back(dnswire.reply(question, dnswire.SERVFAIL))
            return
        token = next(self._tokens)
        held = Held(question.name, [(question, back)])
        held.timer = self._loop.call_later(HELD_SECONDS, self._give_up, token)
        self._held[token] = held
        self._token_of[question.name] = token
        self._asked(NameAsked(token, question.name))

    def _give_up(self, token: int) -> None:
        self.counters["dns_unanswered"] += 1
        self.answered(NameAnswered(token, None))

    def _reverse(self, question: dnswire.Question, back: Reply) -> bool:
        address = dnswire.reverse_address(question.name)
        name = self._known.get(address) if address is not None else None
        if name is None:
            return False
        data = dnswire.record(dnswire.PTR, 30, dnswire.pack_name(name))
        back(dnswire.reply(question, dnswire.NOERROR, (data,)))
        return True

    def _remember(self, address: bytes, name: str) -> None:
        self._known.pop(address, None)
        self._known[address] = name
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    # ------------------------------------------------------------------ TCP

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= TCP_CLIENTS:
            writer.close()
            return
        self._clients.add(task)
        try:
            while True:
                async with asyncio.timeout(TCP_IDLE):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    data = await reader.readexactly(length)
                self._question(data, _framed(writer), stream=True)
        except (TimeoutError, asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(task)
            writer.close()


def _framed(writer: asyncio.StreamWriter) -> Reply:
    def back(answer: bytes) -> None:
        if not writer.is_closing():
            writer.write(struct.pack(">H", len(answer)) + answer)

    return back


def _outcome(answer: NameAnswered) -> tuple[int, tuple[bytes, ...]]:
    if answer.address is not None:
        return dnswire.NOERROR, (dnswire.record(dnswire.AAAA, answer.ttl, answer.address),)
    return (dnswire.SERVFAIL if answer.exists else dnswire.NXDOMAIN), ()
