"""The resolver shell against a real name server on loopback, and without one."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntm_dc.dns import Zone, ZoneFacts
from ntm_dc.dns_server import DnsServer
from ntm_dc.resolver import DomainResolver, key_hint
from ntm_dc.values import DomainResolved, DomainTarget, LookupDomain
from ntmd.proto.types import Endpoint
from ntmd.runtime.complaints import Complaint

KEY = bytes(range(32))
ENDPOINTS = (Endpoint("198.51.100.1", 4330), Endpoint("2001:db8::1", 4330))
FACTS = ZoneFacts("lab.test", "dc1.lab.test", KEY, ENDPOINTS, {})


def with_server(
    facts: ZoneFacts, use: Callable[[DomainResolver], Awaitable[list[DomainResolved]]]
) -> list[DomainResolved]:
    async def run() -> list[DomainResolved]:
        server = DnsServer(lambda: Zone(facts), ("127.0.0.1",), 0)
        await server.start()
        try:
            return await use(DomainResolver(f"127.0.0.1:{server.endpoints[0].port}"))
        finally:
            await server.stop()

    return asyncio.run(run())


def test_service_addresses_and_hint_are_found_and_kept() -> None:
    async def use(resolver: DomainResolver) -> list[DomainResolved]:
        found = [await resolver.lookup(LookupDomain(n, ("x.lab.test", "lab.test"))) for n in (1, 2)]
        assert resolver.asked == 1
        return found

    first, second = with_server(FACTS, use)
    assert first == DomainResolved(1, "lab.test", (DomainTarget("dc1.lab.test", KEY, ENDPOINTS),))
    assert second == DomainResolved(2, first.domain, first.targets)


def test_a_domain_that_is_not_there_is_asked_for_again_soon() -> None:
    now = [0.0]

    async def use(resolver: DomainResolver) -> list[DomainResolved]:
        resolver._clock = lambda: now[0]
        found = []
        for at in (0.0, 1.0, 10.0):
            now[0] = at
            found.append(await resolver.lookup(LookupDomain(1, ("none.lab.test",))))
        assert resolver.asked == 2
        return found

    for each in with_server(FACTS, use):
        assert (each.targets, each.error) == ((), "no such domain")


def test_a_refusing_server_is_not_a_missing_domain() -> None:
    async def use(resolver: DomainResolver) -> list[DomainResolved]:
        return [await resolver.lookup(LookupDomain(1, ("far.example",)))]

    (found,) = with_server(FACTS, use)
    assert (found.targets, found.error) == ((), "the DNS cannot resolve it")


def test_a_silent_server_is_said_in_time() -> None:
    mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mute.bind(("127.0.0.1", 0))

    async def run() -> tuple[DomainResolved, float]:
        resolver = DomainResolver(f"127.0.0.1:{mute.getsockname()[1]}")
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await resolver.lookup(LookupDomain(1, ("lab.test", "test")))
        return found, loop.time() - began

    found, took = asyncio.run(run())
    mute.close()
    assert found.error == "the DNS does not answer"
    assert took < 3.3


def test_a_stopped_server_is_said() -> None:
    closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    closed.bind(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    resolver = DomainResolver(f"127.0.0.1:{port}")
    found = asyncio.run(resolver.lookup(LookupDomain(1, ("lab.test",))))
    assert found.error == "the DNS does not answer"


@pytest.mark.parametrize("text", ["nowhere", "1.2.3.4:0", "1.2.3.4:x", "[::1]:99999"])
def test_what_is_no_resolver_is_refused(text: str) -> None:
    with pytest.raises(Complaint, match="not an address of a DNS resolver"):
        DomainResolver(text)


def test_hints() -> None:
    good = b"v=ntm1 k=" + base64.b64encode(KEY)
    assert key_hint(good) == KEY
    assert key_hint(b"v=ntm1 x=1 k=" + base64.b64encode(KEY)) == KEY
    for bad in (b"", b"v=ntm2 k=" + base64.b64encode(KEY), b"v=ntm1", b"v=ntm1 k=AAAA", b"\xff"):
        assert key_hint(bad) == b""


@given(st.binary(max_size=200))
def test_any_hint_is_a_key_or_nothing(data: bytes) -> None:
    assert len(key_hint(data)) in (0, 32)
