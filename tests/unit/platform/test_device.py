"""The real kernel: TUN providers, addresses, routes, take-over, cleaning up, and dead daemons."""

import asyncio
import errno
import os
import socket
import time
from pathlib import Path

import pytest

from ntmd.platform import Device
from ntmd.platform.linux import netlink, tun
from ntmd.platform.linux.device import LinuxPlatform, give_back
from ntmd.runtime.complaints import Complaint
from tests.unit.platform.conftest import Isolated, sh

pytestmark = pytest.mark.e2e

RTF_LOCAL = 0x80000000  # linux/ipv6_route.h
DEVICE = Device("fd5e:1:2:3::7", "fd5e:1:2:3::53", "fd5e:1:2::/48", 1420)
OTHER = Device("fd5e:9:9:9::7", "fd5e:9:9:9::53", "fd5e:9:9::/48", 1420)


def picture() -> tuple[str, ...]:
    """Everything about the TUN that must not change while it is taken over."""
    shown = sh("ip -6 addr show dev ntmt0"), sh("ip -6 route"), sh("ip -o link show ntmt0")
    # with a reader again, the operational state is UP where it had been UNKNOWN
    return tuple(text.replace("state UNKNOWN", "state UP") for text in shown)


async def up(state: Path, identity: str = "one", device: Device = DEVICE) -> LinuxPlatform:
    platform = LinuxPlatform(state, identity)
    await platform.open_tun("ntmt0")
    await platform.configure(device)
    return platform


@pytest.mark.parametrize("provider", [tun.with_pytun, tun.with_ioctl])
def test_both_providers_give_the_same_device(isolated: Isolated, provider: tun.Provider) -> None:
    def story() -> None:
        device = tun.open_tun("ntmt0", provider)
        assert (device.name, device.vnet_header, device.offload) == ("ntmt0", 10, True)
        assert not os.get_blocking(device.descriptor)
        assert not os.get_inheritable(device.descriptor)
        details = sh("ip -d link show ntmt0")
        assert "type tun pi off vnet_hdr on persist on" in details
        with pytest.raises(BlockingIOError):
            os.read(device.descriptor, 2000)

    isolated(story)


def test_a_descriptor_of_somebody_else_can_be_adopted(isolated: Isolated) -> None:
    def story() -> None:
        descriptor = tun.with_ioctl("ntmt0", tun.IFF_TUN | tun.IFF_NO_PI)
        os.set_blocking(descriptor, True)
        device = tun.adopt(descriptor)
        assert (device.name, device.vnet_header, device.offload) == ("ntmt0", 0, False)
        assert not os.get_blocking(descriptor)

    isolated(story)


def test_configured_it_routes_the_prefix_and_only_from_its_own_address(
    isolated: Isolated, tmp_path: Path
) -> None:
    async def story() -> None:
        platform = await up(tmp_path)
        route = sh("ip -6 route get fd5e:1:2:9::1")
        assert "dev ntmt0" in route
        assert "src fd5e:1:2:3::7" in route
        assert platform.tun is not None
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"hello", ("fd5e:1:2:9::1", 9))
        packet = os.read(platform.tun.descriptor, 2000)[10:]
        assert packet[0] >> 4 == 6
        assert packet[8:24] == socket.inet_pton(socket.AF_INET6, DEVICE.address)
        assert packet[-5:] == b"hello"
        with pytest.raises(BlockingIOError):
            os.read(platform.tun.descriptor, 2000)  # no router solicitation, no MLD

    isolated(lambda: asyncio.run(story()))


def test_when_the_tun_is_gone_nothing_leaves_another_way(
    isolated: Isolated, tmp_path: Path
) -> None:
    async def story() -> None:
        sh("ip link add v0 type veth peer name v1")
        sh("ip link set v0 up")
        sh("ip link set v1 up")
        sh("ip -6 addr add 2001:db8::2/64 dev v0 nodad")
        sh("ip -6 route add default via 2001:db8::1 dev v0")
        await up(tmp_path)
        sh("ip link del ntmt0")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
            assert udp.connect_ex(("fd5e:1:2:9::1", 9)) in (errno.EHOSTUNREACH, errno.ENETUNREACH)

    isolated(lambda: asyncio.run(story()))


def test_a_killed_runs_tun_is_taken_over_without_a_blink(
    isolated: Isolated, tmp_path: Path
) -> None:
    async def story() -> None:
        first = await up(tmp_path)
        before = picture()
        await first.close()  # as the kernel does for a killed process
        second = LinuxPlatform(tmp_path, "one")
        device = await second.open_tun("ntmt0")
        assert device.taken_over
        assert picture() == before
        await second.configure(DEVICE)
        assert picture() == before

    isolated(lambda: asyncio.run(story()))


def test_another_identity_starts_afresh(isolated: Isolated, tmp_path: Path) -> None:
    async def story() -> None:
        await (await up(tmp_path)).close()
        await up(tmp_path, "two", OTHER)
        addresses, routes, _ = picture()
        assert "fd5e:1:2:" not in addresses + routes
        assert "fd5e:9:9:9::7" in addresses

    isolated(lambda: asyncio.run(story()))


def test_give_back_removes_all_of_ours_and_nothing_else(isolated: Isolated, tmp_path: Path) -> None:
    async def story() -> None:
        sh("ip -6 route add unreachable fd5e:1:3::/48 metric 7")
        before = sh("ip -o link"), sh("ip -6 route"), sh("ip -6 rule")
        await (await up(tmp_path)).close()
        assert await give_back(tmp_path) == ["interface ntmt0", "routes"]
        assert await give_back(tmp_path) == []
        assert (sh("ip -o link"), sh("ip -6 route"), sh("ip -6 rule")) == before
        assert not (tmp_path / "run.json").exists()

    isolated(lambda: asyncio.run(story()))


def test_two_daemons_of_one_platform_share_a_host(isolated: Isolated, tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        await up(tmp_path / "a")
        second = LinuxPlatform(tmp_path / "b", "two")
        await second.open_tun("ntmt1")
        await second.configure(Device("fd5e:1:2:4::7", "fd5e:1:2:4::53", DEVICE.prefix, 1420))
        await second.give_back()
        assert "dev ntmt0" in sh("ip -6 route get fd5e:1:2:9::1")
        assert "unreachable fd5e:1:2::/48" in sh("ip -6 route")

    isolated(lambda: asyncio.run(story()))


def test_a_foreign_interface_of_that_name_is_left_alone(isolated: Isolated, tmp_path: Path) -> None:
    async def story() -> None:
        sh("ip tuntap add dev ntmt0 mode tun")
        with pytest.raises(Complaint, match="belongs to another program"):
            await LinuxPlatform(tmp_path, "one").open_tun("ntmt0")
        assert "ntmt0" in sh("ip -o link")

    isolated(lambda: asyncio.run(story()))


def test_without_the_driver_or_the_right_it_says_what_to_do(
    isolated: Isolated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tun, "CLONE", str(tmp_path / "absent"))
    with pytest.raises(Complaint, match="modprobe tun"):
        tun.open_tun("ntmt0", tun.with_ioctl)

    def unprivileged() -> None:
        os.setuid(65534)
        with pytest.raises(Complaint, match="CAP_NET_ADMIN") as caught:
            tun.open_tun("ntmt0", tun.with_pytun)
        assert caught.value.exit_code == 5

    isolated(unprivileged)


def test_the_stubs_address_refuses_at_once_when_no_daemon_serves_it(
    isolated: Isolated, tmp_path: Path
) -> None:
    def ask() -> float:
        begin = time.monotonic()
        refused: OSError | None = None
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
            udp.settimeout(5)
            try:
                udp.connect((DEVICE.dns_address, 53))
                udp.send(b"question")
                udp.recv(100)
            except OSError as error:
                refused = error
        assert refused is not None
        assert refused.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH), repr(refused)
        return time.monotonic() - begin

    def settled() -> bool:
        """Whether the address is the kernel's own by now: it takes an address in a work queue."""
        wanted = socket.inet_pton(socket.AF_INET6, DEVICE.dns_address).hex()
        rows = [row.split() for row in Path("/proc/net/ipv6_route").read_text().splitlines()]
        return any(row[0] == wanted and int(row[8], 16) & RTF_LOCAL for row in rows)

    async def story() -> None:
        await (await up(tmp_path)).close()
        end = time.monotonic() + 5
        while not settled():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert ask() < 1.0  # and not after its patience of 5 s
        tun.remove_tun("ntmt0")
        assert ask() < 1.0  # and not after its patience of 5 s

    isolated(lambda: asyncio.run(story()))


def test_aliases_name_only_our_tuns(isolated: Isolated, tmp_path: Path) -> None:
    async def story() -> None:
        await up(tmp_path)
        sh("ip link add v0 type veth peer name v1")
        sh("ip link set v0 alias somebody")
        assert await netlink.aliases() == {"ntmt0": f"one {tmp_path}"}

    isolated(lambda: asyncio.run(story()))


def test_a_mounted_resolv_conf_is_taken_and_given_back(isolated: Isolated, tmp_path: Path) -> None:
    def story() -> None:
        own = tmp_path / "resolv.conf"
        own.write_text("nameserver 192.0.2.53\n")
        sh(f"mount --bind {own} /etc/resolv.conf")
        state = tmp_path / "state"
        state.mkdir()
        platform = LinuxPlatform(state, "one")
        names = platform.intercept_names("auto", DEVICE.dns_address, ("home.test",))
        assert (names.mode, names.upstreams) == ("file", ("192.0.2.53",))
        assert own.read_text().splitlines()[1:] == [
            f"nameserver {DEVICE.dns_address}",
            "nameserver 192.0.2.53",
        ]
        assert asyncio.run(give_back(state)) == ["resolver settings"]
        assert own.read_text() == "nameserver 192.0.2.53\n"

    isolated(story)


def test_in_a_foreign_namespace_the_hosts_resolv_conf_is_not_touched(
    isolated: Isolated, tmp_path: Path
) -> None:
    def story() -> None:
        before = Path("/etc/resolv.conf").read_bytes()
        names = LinuxPlatform(tmp_path, "one").intercept_names("auto", DEVICE.dns_address, ())
        assert names.mode == "off"
        assert "resolv.conf" in names.note
        assert Path("/etc/resolv.conf").read_bytes() == before

    isolated(story)
