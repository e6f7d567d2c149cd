"""The lab of one repetition: a server in public, laptop and desk behind NATs, and delay."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.lab import Lab, Nat, Uplink
from tests.e2e.lab.nats import NatKind
from tests.e2e.lab.netns import Namespace

DELAY = 0.010  # seconds of each NAT's line, each way: 40 ms between the nodes, 20 to the server
RTT = 4 * DELAY
PATIENCE = 60.0  # seconds after an event in which a program may come back
SERVER4 = ["198.51.100.1", "198.51.100.2"]
SERVER6 = ["2001:db8:100::1"]
FIRST, LATER = 100, 50  # route metrics: a link that comes later is the better one


def machine() -> str:
    """What the figures belong to."""
    return f"{os.cpu_count()} cores for everything, Linux {platform.release()}"


@dataclass
class Place:
    """A node's host and the uplinks that it has now."""

    host: Namespace
    uplinks: dict[str, Uplink] = field(default_factory=dict)
    nats: dict[str, Nat] = field(default_factory=dict)


class Ground:
    """Two places, and uplinks that come and go; each behind a NAT that was never used before."""

    def __init__(self, lab: Lab, folder: Path, kind: NatKind, lifetime: int) -> None:
        self.lab, self.folder, self.kind, self.lifetime = lab, folder, kind, lifetime
        self.server = lab.public("server", SERVER4, SERVER6)
        self.laptop = Place(lab.space("laptop"))
        self.desk = Place(lab.space("desk"))
        for place in (self.laptop, self.desk):
            self.plug(place, "eth0", self.fresh(), metric=FIRST)

    def fresh(self, *, v4: bool = True, v6: bool = False, loss: float = 0.0) -> Nat:
        """A NAT box with a new public address, on a line with delay."""
        nat = self.lab.nat(self.kind, v4=v4, v6=v6, shim=True, lifetime=self.lifetime)
        assert nat.shim is not None
        nat.shim.set(delay=DELAY, loss=loss)
        return nat

    def plug(self, place: Place, interface: str, nat: Nat, *, metric: int = LATER) -> float:
        """A new uplink; returns the instant at which its address was usable."""
        place.uplinks[interface] = self.lab.plug(place.host, interface, nat, metric=metric)
        place.nats[interface] = nat
        return time.monotonic()

    def unplug(self, place: Place, interface: str) -> float:
        """Take an uplink away; returns the instant before."""
        began = time.monotonic()
        self.lab.unplug(place.uplinks.pop(interface))
        place.nats.pop(interface)
        return began
