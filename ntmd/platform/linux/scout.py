"""Asks networks what they offer: port mappings (PCP, then NAT-PMP, then UPnP) and NAT64.

One task per own socket. PCP and NAT-PMP are two datagrams to the gateway; UPnP, which is HTTP and
XML of a stranger, runs in a process of its own (:mod:`ntmd.platform.linux.igd`) and only where the
first two are silent. What is granted is renewed after half its life and given back at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ntmd.node.commands import EndScout, ScoutNetwork
from ntmd.node.inputs import Nat64Found, PortMapped
from ntmd.platform import portmap
from ntmd.platform.linux import dnswire
from ntmd.platform.portmap import Granted, Refused
from ntmd.proto import nat64
from ntmd.runtime.journal import journal

LADDER = (0.25, 0.5, 1.0)  # waits for a gateway's answer (RFC 6886 section 3.1), seconds
AGAIN = 600.0  # a network that offered nothing is asked again after this, seconds
SOONEST = 30.0  # between two renewals, seconds
IGD_PATIENCE = 12.0  # for discovery and one request, seconds
IGD_OUTPUT = 4096  # bytes
NAT64_LADDER = (0.0, 1.0, 4.0, 16.0)  # a resolver may come up after the address, seconds
NAT64_AGAIN = 3600.0
SO_BINDTODEVICE = 25

log = journal(__name__)


class Scouts:
    """All networks that are being looked at. ``resolve`` says whom to ask for DNS records."""

    def __init__(
        self,
        post: Callable[[Any], None],
        resolvers: Callable[[], tuple[str, ...]],
        *,
        ports: bool = True,
    ) -> None:
        self._post, self._resolvers, self._ports = post, resolvers, ports
        self._wishes: dict[int, ScoutNetwork] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._granted: dict[int, str] = {}  # by which protocol a socket's port was mapped
        self._blocked: dict[str, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def begin(self, wish: ScoutNetwork) -> None:
        """Look at the network of a socket; an earlier look at it ends."""
        self.end(EndScout(wish.socket))
        if wish.local.family == 6 or self._ports:
            self._wishes[wish.socket] = wish
            if wish.interface not in self._blocked:
                self._start(wish)

    def end(self, wish: EndScout) -> None:
        """The socket is gone; on a blocked interface the router's lease runs out by itself."""
        self._stop(wish.socket)
        begun = self._wishes.pop(wish.socket, None)
        protocol = self._granted.pop(wish.socket, "")
        if begun is not None and protocol and begun.interface not in self._blocked:
            with contextlib.suppress(OSError):
                _give_back(begun, protocol)

    def block(self, interface: str, seconds: float) -> None:
        """Ask nothing on ``interface`` for so long: a rehearsal; no time or less ends that."""
        timer = self._blocked.pop(interface, None)
        if timer is not None:
            timer.cancel()
        if seconds > 0:
            loop = asyncio.get_running_loop()
            self._blocked[interface] = loop.call_later(seconds, self.block, interface, 0.0)
        for wish in self._wishes.values():
            if wish.interface == interface:
                self._stop(wish.socket)
                if seconds <= 0:
                    self._start(wish)

    async def close(self) -> None:
        """Give every mapping back; bounded by what giving back takes."""
        for timer in self._blocked.values():
            timer.cancel()
        for number in list(self._wishes):
            self.end(EndScout(number))
        if self._ending:
            await asyncio.wait(self._ending, timeout=1.0)

    def _start(self, wish: ScoutNetwork) -> None:
        work = self._nat64(wish) if wish.local.family == 6 else self._map(wish)
        self._tasks[wish.socket] = asyncio.ensure_future(work)

    def _stop(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    # ------------------------------------------------------------------ port mappings

    async def _map(self, wish: ScoutNetwork) -> None:
        while True:
            granted, protocol = await self._ask(wish, self._granted.get(wish.socket, ""))
            if granted is None:
                self._granted.pop(wish.socket, None)
                self._post(PortMapped(wish.socket, None))
                await asyncio.sleep(AGAIN)
                continue
            self._granted[wish.socket] = protocol
            self._post(PortMapped(wish.socket, granted.outside, protocol))
            await asyncio.sleep(max(SOONEST, granted.lifetime / 2))

    async def _ask(self, wish: ScoutNetwork, known: str) -> tuple[Granted | None, str]:
        """Try the protocol that worked before, or all in order."""
        for protocol, ask in PROTOCOLS.items():
            if known not in ("", protocol):
                continue
            try:
                granted = await ask(wish, portmap.LIFETIME)
            except Refused as refused:
                log.debug("no port mapping", by=protocol, why=str(refused))
            except OSError as error:
                log.debug("no port mapping", by=protocol, why=error.strerror or str(error))
            else:
                if granted is not None:
                    return granted, protocol
        return (None, "") if not known else await self._ask(wish, "")

    # ------------------------------------------------------------------ NAT64

    async def _nat64(self, wish: ScoutNetwork) -> None:
        """RFC 7050: ask for ipv4only.arpa until a resolver answers, then now and then."""
        attempt = 0
        while True:
            wait = NAT64_LADDER[attempt] if attempt < len(NAT64_LADDER) else NAT64_AGAIN
            await asyncio.sleep(wait)
            attempt += 1
            for resolver in self._resolvers():
                prefix = await self._discover(resolver)
                if prefix is not None:
                    self._post(Nat64Found(wish.socket, prefix))
                    attempt = len(NAT64_LADDER)
                    break

    async def _discover(self, resolver: str) -> nat64.Prefix | None:
        number = os.urandom(2)
        question = dnswire.pack_name(nat64.NAME) + struct.pack(">HH", dnswire.AAAA, dnswire.IN)
        query = number + struct.pack(">HHHHH", dnswire.RD, 1, 0, 0, 0) + question
        try:
            with _udp(resolver, 53) as link:
                async for data in _replies(link, query):
                    if data[:2] == number and dnswire.answers_question(data, question):
                        return nat64.discover(dnswire.addresses(data))
        except OSError:
            pass
        return None


# ------------------------------------------------------------------ the three protocols


async def _pcp(wish: ScoutNetwork, lifetime: int) -> Granted | None:
    nonce = _nonce(wish)
    request = portmap.pcp_request(wish.local, nonce, lifetime)
    with _udp(wish.gateway, portmap.SERVER_PORT, wish) as link:
        async for data in _replies(link, request):
            granted = portmap.pcp_answer(data, wish.local, nonce)
            if granted is not None:
                return granted
    return None


async def _nat_pmp(wish: ScoutNetwork, lifetime: int) -> Granted | None:
    outside = None
    with _udp(wish.gateway, portmap.SERVER_PORT, wish) as link:
        async for data in _replies(link, portmap.pmp_address_request()):
            outside = portmap.pmp_address(data)
            if outside is not None:
                break
        if outside is None:
            return None
        async for data in _replies(link, portmap.pmp_request(wish.local.port, lifetime)):
            granted = portmap.pmp_answer(data, wish.local.port, outside)
            if granted is not None:
                return granted
    return None


async def _upnp(wish: ScoutNetwork, lifetime: int) -> Granted | None:
    quiet = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *_igd(wish, lifetime), stdin=quiet, stdout=asyncio.subprocess.PIPE, stderr=quiet
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(IGD_PATIENCE):
            said = await child.stdout.read(IGD_OUTPUT)
    except TimeoutError:
        raise Refused("the UPnP helper gave no answer") from None
    else:
        return portmap.upnp_answer(said)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


Ask = Callable[[ScoutNetwork, int], Any]
PROTOCOLS: dict[str, Ask] = {"pcp": _pcp, "nat-pmp": _nat_pmp, "upnp": _upnp}


def _igd(wish: ScoutNetwork, lifetime: int) -> list[str]:
    command = [sys.executable, "-I", "-m", "ntmd.platform.linux.igd"]
    return [*command, wish.local.host, str(wish.local.port), str(lifetime)]


def _give_back(wish: ScoutNetwork, protocol: str) -> None:
    """One datagram; UPnP takes seconds, so its helper is left to end by itself."""
    if protocol == "pcp":
        data = portmap.pcp_request(wish.local, _nonce(wish), 0)
    elif protocol == "nat-pmp":
        data = portmap.pmp_request(wish.local.port, 0)
    else:
        quiet = subprocess.DEVNULL
        subprocess.Popen(
            _igd(wish, 0), stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        return
    with _udp(wish.gateway, portmap.SERVER_PORT, wish) as link:
        link.send(data)


def _nonce(wish: ScoutNetwork) -> bytes:
    """The same for every request about one mapping, and nobody else's (RFC 6887 section 11.2)."""
    return _SECRET[:8] + struct.pack(">HH", wish.socket & 0xFFFF, wish.local.port)


_SECRET = os.urandom(8)


# ------------------------------------------------------------------ one datagram each way


def _udp(host: str, port: int, wish: ScoutNetwork | None = None) -> socket.socket:
    """A socket connected to ``host``, so that nobody else can answer; bound like ``wish``."""
    address, _, scope = host.partition("%")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    link = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if wish is not None:
            link.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, wish.interface.encode())
            link.bind((wish.local.host, 0))
        where: Any = (address, port)
        if scope:
            index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
            where = (address, port, 0, index)
        link.connect(where)
    except OSError:
        link.close()
        raise
    return link


async def _replies(link: socket.socket, request: bytes) -> Any:
    """Send ``request`` on the ladder; yields every datagram that comes back meanwhile."""
    loop = asyncio.get_running_loop()
    for wait in LADDER:
        link.send(request)
        until = loop.time() + wait
        while (left := until - loop.time()) > 0:
            try:
                # not wait_for: it forgets that it was cancelled if an answer comes just then
                async with asyncio.timeout(left):
                    data = await loop.sock_recv(link, 1500)
            except TimeoutError:
                break
            yield data
