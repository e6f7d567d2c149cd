"""The lab's internet: a core router, public hosts, NAT boxes and hosts behind them.

Addresses: public IPv4 from 198.51.100.0/24 (servers) and 203.0.113.0/24 (NAT boxes), public IPv6
from 2001:db8::/32, private IPv4 from 10.0.0.0/8. Every link to the core is a veth pair, or a
:class:`~tests.e2e.lab.shim.Shim` where delay or loss is wanted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.lab.nats import LIFETIME, NatKind, ruleset
from tests.e2e.lab.netns import Namespace
from tests.e2e.lab.shim import Shim

_runs = itertools.count()


@dataclass
class Nat:
    """A NAT box (or, without IPv4, a stateful IPv6 firewall) and the subnets behind it."""

    space: Namespace
    number: int
    kind: NatKind
    public4: str | None
    public6: str | None
    shim: Shim | None = None
    carrier: bool = False
    lifetime: int = LIFETIME
    hairpin: bool = False
    hosts: int = 1


@dataclass
class Uplink:
    """One interface of a host, plugged into a NAT box or into the core."""

    host: Namespace
    interface: str
    address4: str | None
    address6: str | None
    gateway4: str | None
    gateway6: str | None


class Lab:
    """Builds and removes one lab. Use as a context manager."""

    def __init__(self, label: str = "lab") -> None:
        self.prefix = f"nt{os.getpid() % 100000}x{next(_runs)}{label}"[:40]
        self._spaces: list[Namespace] = []
        self._shims: list[Shim] = []
        self._numbers = itertools.count(1)
        self.core = self.space("core")
        self.core.sysctl("ipv4/ip_forward", 1)
        self.core.sysctl("ipv6/conf/all/forwarding", 1)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything the lab made."""
        for shim in self._shims:
            with contextlib.suppress(OSError):
                shim.close()
        for space in reversed(self._spaces):
            space.close()

    def space(self, label: str, nameservers: Sequence[str] = ()) -> Namespace:
        """A new, unconnected host."""
        made = Namespace(self.prefix, label, nameservers)
        self._spaces.append(made)
        return made

    # ------------------------------------------------------------------ links to the core

    def _to_core(
        self, space: Namespace, interface: str, v4: Sequence[str], v6: Sequence[str], shim: bool
    ) -> Shim | None:
        number = next(self._numbers)
        far = f"c{number}"
        link: Shim | None = None
        if shim:
            link = Shim((space.name, interface), (self.core.name, far), seed=number)
            self._shims.append(link)
        else:
            self.core.ip(f"link add {far} type veth peer name {interface} netns {space.name}")
        self.core.ip(f"link set {far} up")
        space.ip(f"link set {interface} up")
        for address in v4:
            space.ip(f"addr add {address}/32 dev {interface}")
            self.core.ip(f"route add {address}/32 dev {far}")
        for address in v6:
            space.ip(f"addr add {address}/128 dev {interface} nodad")
            self.core.ip(f"-6 route add {address}/128 dev {far}")
        # One well-known address of the core on every link serves as everybody's gateway.
        if v4:
            self.core.ip(f"addr add 192.0.2.1/32 dev {far}")
            space.ip(f"route add 192.0.2.1/32 dev {interface}")
            space.ip(f"route add default via 192.0.2.1 dev {interface} metric 100")
        if v6:
            self.core.ip(f"addr add 2001:db8::1/128 dev {far} nodad")
            space.ip(f"-6 route add 2001:db8::1/128 dev {interface}")
            space.ip(f"-6 route add default via 2001:db8::1 dev {interface} metric 100")
        return link

    def public(
        self,
        label: str,
        v4: Sequence[str] = (),
        v6: Sequence[str] = (),
        *,
        shim: bool = False,
        nameservers: Sequence[str] = (),
    ) -> Namespace:
        """A host with public addresses on its interface ``eth0``."""
        host = self.space(label, nameservers)
        self._to_core(host, "eth0", v4, v6, shim)
        return host

    def nat(
        self,
        kind: NatKind = "port-restricted",
        *,
        v4: bool = True,
        v6: bool = False,
        shim: bool = False,
        behind: Nat | None = None,
        carrier: bool = False,
        hairpin: bool = False,
        lifetime: int = LIFETIME,
        block: str = "203.0.113",
    ) -> Nat:
        """A NAT box whose outer address was never used before in this lab.

        ``carrier``: the addresses behind it are from 100.64.0.0/10; ``behind``: the box is plugged
        into another one. ``lifetime`` is that of an unused UDP mapping, seconds;
        ``block`` what a public address is taken from.
        """
        number = next(self._numbers)
        box = self.space(f"nat{number}")
        link = None
        if behind is not None:
            outer4 = self.plug(box, "wan", behind).address4
            outer6 = None
        else:
            outer4 = f"{block}.{number}" if v4 else None
            outer6 = f"2001:db8:f::{number:x}" if v6 else None
            link = self._to_core(
                box, "wan", [outer4] if outer4 else [], [outer6] if outer6 else [], shim
            )
        if outer4:
            box.sysctl("ipv4/ip_forward", 1)
        if outer6:
            box.sysctl("ipv6/conf/all/forwarding", 1)
            wan = self.core_interface(box)
            self.core.ip(f"-6 route add 2001:db8:{number:x}::/64 via {outer6} dev {wan} onlink")
        box.nft(ruleset(kind, outer4, lifetime, hairpin=hairpin))
        for name in ("udp_timeout", "udp_timeout_stream"):
            box.sysctl(f"netfilter/nf_conntrack_{name}", lifetime)
        return Nat(box, number, kind, outer4, outer6, link, carrier, lifetime, hairpin)

    def rebind(self, nat: Nat) -> None:
        """The box gets another public IPv4 address and forgets every mapping; no host is told.

        What is on its way to the old address vanishes. It must not meet the old rules after the
        connections are forgotten: it would be translated once more, and what leaves towards its
        source would then go on under the old address, as the answer to it.
        """
        old, nat.public4 = nat.public4, f"203.0.113.{100 + nat.number}"
        far = self.core_interface(nat.space)
        self.core.ip(f"route add {nat.public4}/32 dev {far}")
        nat.space.ip(f"addr add {nat.public4}/32 dev wan")
        self.core.ip(f"route replace blackhole {old}/32")  # an error from the core would tell
        nat.space.ip(f"addr del {old}/32 dev wan")
        rules = ruleset(nat.kind, nat.public4, nat.lifetime, hairpin=nat.hairpin)
        nat.space.nft(f"flush ruleset\n{rules}")
        nat.space.run("conntrack", "-F")

    def core_interface(self, space: Namespace) -> str:
        """Name of the core's end of the link to ``space`` (the one that routes its address)."""
        for line in self.core.ip("-o route show table main").splitlines():
            words = line.split()
            if words[0] in space.ip("-o -4 addr show").replace("/32", "").split():
                return words[words.index("dev") + 1]
        for line in self.core.ip("-6 -o route show").splitlines():
            words = line.split()
            if words[0] in space.ip("-o -6 addr show").replace("/128", "").split():
                return words[words.index("dev") + 1]
        raise LookupError(space.label)

    # ------------------------------------------------------------------ hosts behind NATs

    def plug(
        self,
        host: Namespace,
        interface: str,
        nat: Nat,
        *,
        metric: int = 100,
        dad: bool = False,
        route_after: float = 0.0,
    ) -> Uplink:
        """Plug a new interface of ``host`` into the network behind ``nat``: address, then route.

        ``route_after``: seconds between the two, beside what the commands take.
        """
        nat.hosts += 1
        lan = f"lan{nat.hosts}"
        nat.space.ip(f"link add {lan} type veth peer name {interface} netns {host.name}")
        nat.space.ip(f"link set {lan} up")
        host.ip(f"link set {interface} up")
        four = six = gate4 = gate6 = None
        if nat.public4:
            net = f"100.{64 + nat.number}" if nat.carrier else f"10.{nat.number}"
            four, gate4 = f"{net}.{nat.hosts}.2", f"{net}.{nat.hosts}.1"
            nat.space.ip(f"addr add {gate4}/24 dev {lan}")
            host.ip(f"addr add {four}/24 dev {interface}")
            time.sleep(route_after)
            host.ip(f"route add default via {gate4} dev {interface} metric {metric}")
        if nat.public6:
            base = f"2001:db8:{nat.number:x}::{nat.hosts:x}"
            six, gate6 = f"{base}:2", f"{base}:1"
            nat.space.ip(f"addr add {gate6}/112 dev {lan} nodad")
            if dad:
                host.sysctl(f"ipv6/conf/{interface}/accept_dad", 1)
            host.ip(f"addr add {six}/112 dev {interface}" + ("" if dad else " nodad"))
            host.ip(f"-6 route add default via {gate6} dev {interface} metric {metric}")
        return Uplink(host, interface, four, six, gate4, gate6)

    def unplug(self, uplink: Uplink) -> None:
        """Take the interface away, as if the cable or the Wi-Fi adapter were pulled."""
        uplink.host.ip(f"link del {uplink.interface}", check=False)
