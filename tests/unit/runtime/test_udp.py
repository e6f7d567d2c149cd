"""UDP ports: batches, addresses, errors as values, and complaints that help."""

import asyncio
import errno
import socket

import pytest

from ntmd.proto.types import Endpoint
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.udp import BATCH, UdpPort


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_arrive_with_their_socket_number_and_source(host: str) -> None:
    async def story() -> None:
        got: list[tuple[bytes, int, Endpoint]] = []
        done = asyncio.Event()

        def take(data: bytes, number: int, source: Endpoint) -> None:
            got.append((data, number, source))
            if len(got) == 3 * BATCH:
                done.set()

        one = UdpPort(7, host, 0, take)
        two = UdpPort(8, host, 0, take)
        for number in range(3 * BATCH):
            assert two.send(number.to_bytes(2, "big"), one.local) == 0
        await asyncio.wait_for(done.wait(), 10)
        expected = [(number.to_bytes(2, "big"), 7, two.local) for number in range(3 * BATCH)]
        assert got == expected
        assert one.received == 3 * BATCH
        one.close()
        one.close()
        two.close()

    asyncio.run(story())


def test_what_the_kernel_refuses_is_an_errno() -> None:
    async def story() -> None:
        port = UdpPort(1, "127.0.0.1", 0, lambda *_: None)
        assert port.send(b"x" * 70_000, port.local) == errno.EMSGSIZE
        assert port.send(b"x", Endpoint("::1", 9)) != 0
        assert port.send_errors == 2
        port.close()

    asyncio.run(story())


def test_an_icmp_error_does_not_stop_the_port() -> None:
    async def story() -> None:
        got = asyncio.get_running_loop().create_future()
        port = UdpPort(1, "127.0.0.1", 0, lambda data, *_: got.set_result(data))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            closed = Endpoint(*gone.getsockname())
        port.send(b"to nobody", closed)
        port.send(b"to me", port.local)
        assert await asyncio.wait_for(got, 10) == b"to me"
        port.close()

    asyncio.run(story())


def test_a_taken_port_and_a_foreign_address_are_complained_about() -> None:
    async def story() -> None:
        port = UdpPort(1, "127.0.0.1", 0, lambda *_: None)
        with pytest.raises(Complaint, match="taken by another program") as caught:
            UdpPort(2, "127.0.0.1", port.local.port, lambda *_: None)
        assert str(port.local.port) in caught.value.text
        with pytest.raises(Complaint, match="is not an address of this machine"):
            UdpPort(3, "192.0.2.77", 0, lambda *_: None)
        port.close()

    asyncio.run(story())
