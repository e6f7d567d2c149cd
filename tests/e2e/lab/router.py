"""What better home routers and carriers offer: port mappings (miniupnpd) and NAT64 (tayga)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.lab.netns import Namespace
from tests.e2e.lab.topology import Nat

PUBLIC_BLOCK = "100.1.113"  # miniupnpd refuses to serve behind an address kept for documentation
CHAINS = """
table inet filter {
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain forward { type filter hook forward priority -5; jump miniupnpd; }
  chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority 90; jump postrouting_miniupnpd; }
}
"""
MINIUPNPD = """
ext_ifname=wan
listening_ip={lan}
enable_natpmp={pcp}
enable_upnp={upnp}
secure_mode=yes
system_uptime=yes
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 10.0.0.0/8 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


def grant_ports(nat: Nat, lan: str, folder: Path, *, pcp: bool, upnp: bool) -> None:
    """Let hosts on interface ``lan`` of the NAT box ask for port mappings."""
    nat.space.nft(CHAINS)
    word = {True: "yes", False: "no"}
    config = folder / f"miniupnpd{nat.number}.conf"
    config.write_text(MINIUPNPD.format(lan=lan, pcp=word[pcp], upnp=word[upnp]))
    nat.space.start(
        "miniupnpd", "-d", "-f", str(config), "-P", str(config.with_suffix(".pid")),
        stdout=subprocess.DEVNULL, stderr=(folder / f"miniupnpd{nat.number}.log").open("wb"),
    )  # fmt: skip


def is_mapped(nat: Nat, port: int) -> bool:
    """Whether the router maps this outside port now."""
    return f" {port} " in nat.space.run("nft", "list", "ruleset").stdout


TAYGA = """
tun-device nat64
ipv4-addr 192.168.255.1
ipv6-addr 2001:db8:64::1
prefix 2001:db8:64:ff9b::/96
dynamic-pool 192.168.255.0/24
data-dir {folder}
"""
UNBOUND = """
server:
  interface: {address}
  access-control: ::/0 allow
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{folder}"
  module-config: "dns64 iterator"
  dns64-prefix: 2001:db8:64:ff9b::/96
  local-zone: "ipv4only.arpa." static
  local-data: "ipv4only.arpa. AAAA 2001:db8:64:ff9b::c000:aa"
  local-data: "ipv4only.arpa. AAAA 2001:db8:64:ff9b::c000:ab"
remote-control:
  control-enable: no
"""


def nat64(space: Namespace, address: str, folder: Path) -> None:
    """Make a router with a public IPv4 address a NAT64 (RFC 6146) with DNS64 at ``address``."""
    folder.mkdir()
    config = folder / "tayga.conf"
    config.write_text(TAYGA.format(folder=folder))
    space.run("tayga", "-c", str(config), "--mktun")
    space.ip("link set nat64 up")
    space.ip("addr add 192.168.255.254/32 dev nat64")
    space.ip("route add 192.168.255.0/24 dev nat64")
    space.ip("-6 route add 2001:db8:64:ff9b::/96 dev nat64")
    space.start("tayga", "-c", str(config), "-d", stdout=subprocess.DEVNULL,
                stderr=(folder / "tayga.log").open("wb"))  # fmt: skip
    resolver = folder / "unbound.conf"
    resolver.write_text(UNBOUND.format(address=address, folder=folder))
    space.start("unbound", "-d", "-c", str(resolver), stdout=subprocess.DEVNULL,
                stderr=(folder / "unbound.log").open("wb"))  # fmt: skip
