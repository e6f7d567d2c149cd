"""What ICMP says of a datagram reaches the owner as a hint, and hurts no other datagram."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from ntmd.dataplane.underlay import Underlay
from ntmd.proto.plane import OpenSocket
from ntmd.proto.types import Endpoint

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
SIZE = 100
TURNS = 200


class Own(Underlay):
    """A socket on the loopback interface, and what it heard."""

    def __init__(self, family: int) -> None:
        self.heard: list[tuple[int, Endpoint, int]] = []
        wish = OpenSocket(1, "", family, LOOPBACK[family], 0)
        super().__init__(wish, 0, lambda *each: self.heard.append(each))

    def wait_for_error(self) -> None:
        waiter = select.poll()
        waiter.register(self.socket, 0)
        assert waiter.poll(5000), "no ICMP error came"


@pytest.fixture(params=[4, 6])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def own(family: int) -> Iterator[Own]:
    found = Own(family)
    with closing(found.socket):
        yield found


def somebody(family: int) -> socket.socket:
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    there = socket.socket(kind, socket.SOCK_DGRAM)
    there.bind((LOOPBACK[family], 0))
    there.settimeout(5.0)
    return there


def nobody(family: int) -> Endpoint:
    """Where nobody listens; the kernel says so by ICMP."""
    with somebody(family) as gone:
        return Endpoint(*gone.getsockname()[:2])


def test_a_refusal_names_who_was_sent_to(own: Own, family: int) -> None:
    closed = nobody(family)
    assert own.send(memoryview(bytes(SIZE)), SIZE, closed) == 0
    own.wait_for_error()
    assert own.hear_errors()
    assert own.heard == [(1, closed, errno.ECONNREFUSED)]
    assert not own.hear_errors()
    with pytest.raises(BlockingIOError):
        own.socket.recv(1)


@pytest.mark.parametrize("count", [1, 3], ids=["one", "a run"])
def test_refusals_of_one_destination_cost_another_nothing(
    own: Own, family: int, count: int
) -> None:
    """Each error is pending when the next datagram, to somebody else, is sent."""
    closed = nobody(family)
    run = memoryview(bytes(SIZE * count))
    with somebody(family) as there:
        to = Endpoint(*there.getsockname()[:2])
        for _ in range(TURNS):
            assert own.send(run[:SIZE], SIZE, closed) == 0
            own.wait_for_error()
            assert own.send(run, SIZE, to) == 0
            for _ in range(count):
                assert len(there.recv(2 * SIZE)) == SIZE
    assert own.heard == [(1, closed, errno.ECONNREFUSED)] * TURNS
    assert own.segments, "the kernel still cuts runs"


def test_what_the_own_kernel_refuses_is_still_an_error(own: Own, family: int) -> None:
    elsewhere = {4: "192.0.2.1", 6: "2001:db8::1"}[family]  # out of reach from the loopback address
    with pytest.raises(OSError, match=r"Errno") as failed:
        own.send(memoryview(bytes(SIZE)), SIZE, Endpoint(elsewhere, 9))
    assert failed.value.errno in (errno.EINVAL, errno.ENETUNREACH, errno.EADDRNOTAVAIL)
    assert own.heard == []
