"""What happens to the laptop. Each scenario acts on the ground and says when what happened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.e2e.lab import Nat
from tests.e2e.lab.nats import LIFETIME, NatKind
from tests.survival.ground import FIRST, Ground
from tests.survival.measure import Span
from tests.survival.products import Product

Set = Literal["all", "peer", "idle"]
LOSS = 0.03
FADING_LOSS, FADING_STEPS = 0.32, 16  # at the end, each way; in steps of half a second
SMALL_MTU = 1300
WORSE = 200  # metric of a second link that is not the better one
QUIET = 12.0  # seconds in which an idle tunnel carries nothing
MAPPING = 30  # seconds that a NAT of the scaled scenario keeps an idle mapping
LONG = 65.0  # seconds of the scaled idle hours: more than two lifetimes of a mapping

NO_TOO_BIG = """
table inet mtuhole {
  chain out { type filter hook output priority 0;
    icmp type destination-unreachable icmp code frag-needed drop
    icmpv6 type packet-too-big drop
  }
}
"""


@dataclass
class Event:
    """When it began, and in which spans the laptop or the desk had no usable link at all."""

    start: float
    offline: list[Span] = field(default_factory=list)


@dataclass(frozen=True)
class Scenario:
    """One row of the matrix. ``set``: which programs run; see :mod:`tests.survival.run`."""

    name: str
    title: str
    words: str
    act: Callable[[Ground, Product], Event]
    set: Set = "all"
    kind: NatKind = "port-restricted"
    apart: bool = False  # account server, coordinator and relay on hosts of their own
    quiet: float = QUIET
    lifetime: int = LIFETIME  # seconds that a NAT keeps an idle mapping
    before: Callable[[Ground], None] | None = None


def hard(ground: Ground, product: Product) -> Event:
    """The old link is deleted, a new one appears behind another NAT."""
    return _switch(ground, ground.fresh())


def _switch(ground: Ground, nat: Nat, pause: float = 0.0) -> Event:
    began = ground.unplug(ground.laptop, "eth0")
    time.sleep(pause)
    usable = ground.plug(ground.laptop, "wlan0", nat)
    return Event(began, [(began, usable)])


def soft(ground: Ground, product: Product) -> Event:
    """The new link comes 3 s before the old one goes."""
    nat = ground.fresh()
    began = time.monotonic()
    ground.plug(ground.laptop, "wlan0", nat)
    time.sleep(3)
    ground.unplug(ground.laptop, "eth0")
    return Event(began)


def back_and_forth(ground: Ground, product: Product) -> Event:
    """Four hard moves, one each 2 s, between the same two NATs."""
    nats = {"eth0": ground.laptop.nats["eth0"], "wlan0": ground.fresh()}
    began, offline = time.monotonic(), []
    for old, new in [("eth0", "wlan0"), ("wlan0", "eth0")] * 2:
        gone = ground.unplug(ground.laptop, old)
        offline.append((gone, ground.plug(ground.laptop, new, nats[new])))
        time.sleep(2)
    return Event(began, offline)


def both(ground: Ground, product: Product) -> Event:
    """Laptop and desk lose their links together, and get new ones behind NATs never seen."""
    places = (ground.laptop, ground.desk)
    nats = [ground.fresh() for _ in places]
    began = time.monotonic()
    for place in places:
        ground.unplug(place, "eth0")
    for place, nat in zip(places, nats, strict=True):
        usable = ground.plug(place, "wlan0", nat)
    return Event(began, [(began, usable)])


def servers_dead(ground: Ground, product: Product) -> Event:
    """Account server and coordinator are killed, then a hard move. The relay lives."""
    nat = ground.fresh()
    product.kill_coordinators()
    time.sleep(1)
    return _switch(ground, nat)


def second_link(ground: Ground) -> None:
    """A second link that is up, but not the better one."""
    ground.plug(ground.laptop, "wlan0", ground.fresh(), metric=WORSE)


def silent(ground: Ground, product: Product) -> Event:
    """The first link passes nothing any more; the kernel sees no event. A second link is up."""
    shim = ground.laptop.nats["eth0"].shim
    assert shim is not None
    began = time.monotonic()
    shim.set(down=True)
    return Event(began)


def fading(ground: Ground, product: Product) -> Event:
    """Carried out of range: the first link loses ever more for 8 s, then everything."""
    shim = ground.laptop.nats["eth0"].shim
    assert shim is not None
    for step in range(1, FADING_STEPS + 1):
        shim.set(loss=FADING_LOSS * step / FADING_STEPS)
        time.sleep(0.5)
    began = time.monotonic()
    shim.set(down=True)
    return Event(began)


def to_v6_only(ground: Ground, product: Product) -> Event:
    """From IPv4 to a network that has only IPv6. The desk has only IPv4."""
    return _switch(ground, ground.fresh(v4=False, v6=True))


def sleep(ground: Ground, product: Product) -> Event:
    """The daemon's processes are stopped (SIGSTOP), the link changes, 5 s later they go on."""
    nat = ground.fresh()
    asleep = product.processes(ground.laptop)
    began = time.monotonic()
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    ground.unplug(ground.laptop, "eth0")
    ground.plug(ground.laptop, "wlan0", nat)
    time.sleep(5)
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    return Event(began, [(began, time.monotonic())])


def small_mtu(ground: Ground, product: Product) -> Event:
    """The line's MTU falls to 1300, and no Packet Too Big is ever heard."""
    lab, box = ground.lab, ground.laptop.nats["eth0"].space
    far = lab.core_interface(box)
    for space in (box, lab.core):
        space.nft(NO_TOO_BIG)
    began = time.monotonic()
    box.ip(f"link set wan mtu {SMALL_MTU}")
    lab.core.ip(f"link set {far} mtu {SMALL_MTU}")
    return Event(began)


def kill_nine(ground: Ground, product: Product) -> Event:
    """kill -9 of the laptop's daemon, which its service manager starts again at once."""
    began = time.monotonic()
    product.restart(ground.laptop)
    return Event(began)


def rebind(ground: Ground, product: Product) -> Event:
    """The laptop's NAT gets another public address and forgets all mappings. No host sees it."""
    began = time.monotonic()
    ground.lab.rebind(ground.laptop.nats["eth0"])
    return Event(began)


def lossy_line(ground: Ground) -> None:
    """The first link loses packets."""
    shim = ground.laptop.nats["eth0"].shim
    assert shim is not None
    shim.set(loss=LOSS, reorder=0.01)


def lossy(ground: Ground, product: Product) -> Event:
    """A hard move from one bad line to another."""
    return _switch(ground, ground.fresh(loss=LOSS))


def outage(ground: Ground, product: Product) -> Event:
    """No network for 10 s, then a new link."""
    return _switch(ground, ground.fresh(), pause=10)


def nothing(ground: Ground, product: Product) -> Event:
    """Nothing happens but time."""
    return Event(time.monotonic())


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("hard", "hard move", "old link deleted, new one appears", hard),
        Scenario("soft", "soft move", "new link up 3 s before the old one is deleted", soft),
        Scenario("both", "both ends move", "both links deleted and replaced together", both),
        Scenario(
            "silent", "silent link", "link goes dead without any event, a second one is up", silent,
            before=second_link,
        ),
        Scenario(
            "fading", "fading link",
            "link loses more and more for 8 s, then goes dead; a second one is up", fading,
            before=second_link,
        ),
        Scenario(
            "hard-peer", "hard move, only the peer sends", "one-way UDP from the desk", hard, "peer"
        ),
        Scenario(
            "hard-idle", "idle tunnel moved", "12 s of silence, hard move, then the desk speaks",
            hard, "idle",
        ),
        Scenario(
            "relay", "relay only", "symmetric NATs everywhere, hard move", hard, kind="symmetric"
        ),
        Scenario(
            "relay-peer", "relay only, only the peer sends", "symmetric NATs, one-way UDP", hard,
            "peer", "symmetric",
        ),
        Scenario(
            "relay-idle", "relay only, idle tunnel moved", "symmetric NATs, then the desk speaks",
            hard, "idle", "symmetric",
        ),
        Scenario(
            "servers-dead", "servers dead", "account server and coordinator killed, hard move",
            servers_dead, apart=True,
        ),
        Scenario(
            "back-and-forth", "back and forth", "four hard moves in 8 s between two networks",
            back_and_forth,
        ),
        Scenario("v6-only", "IPv4 to IPv6 only", "hard move to a network without IPv4", to_v6_only),
        Scenario("sleep", "sleep", "daemon stopped 5 s (SIGSTOP), link changed meanwhile", sleep),
        Scenario("mtu", "MTU shrinks", "line MTU 1500 to 1300, ICMP black-holed", small_mtu),
        Scenario("kill", "kill -9", "daemon killed and started again", kill_nine),
        Scenario(
            "rebind", "NAT rebinding, busy", "the NAT gets another address, no event", rebind
        ),
        Scenario(
            "rebind-idle", "NAT rebinding, idle", "the same under an idle tunnel, the desk speaks",
            rebind, "idle",
        ),
        Scenario(
            "lossy", "lossy link", "3 % loss each way and reordering, hard move", lossy,
            before=lossy_line,
        ),
        Scenario("outage", "outage of 10 s", "no link for 10 s, then a new one", outage),
        Scenario(
            "long-idle", "idle for hours (scaled)",
            "65 s of silence behind NATs that forget after 30 s; then the desk speaks",
            nothing, "idle", quiet=LONG, lifetime=MAPPING,
        ),
    )
}  # fmt: skip
assert FIRST < WORSE
