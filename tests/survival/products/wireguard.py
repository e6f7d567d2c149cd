"""wireguard-go (newest that ``go install`` builds), by way of a hub.

Both ends stand behind NATs, and WireGuard has no way to punch them; its users give the server in
public the role of a hub: a peer of both, which forwards. PersistentKeepalive 25 at both ends.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

from tests.bench.wireguard import build
from tests.e2e.lab.netns import Namespace
from tests.survival.ground import SERVER4, Ground
from tests.survival.products import Version
from tests.survival.products.common import Trio, reach

ADDRESSES = {"server": "fd00:77::1", "laptop": "fd00:77::2", "desk": "fd00:77::3"}
PORT, MTU, KEEPALIVE = 51820, 1420, 25
SOCKETS = Path("/var/run/wireguard")


built = functools.cache(build)


class Wireguard(Trio):
    """Hub and two peers of it."""

    addresses = ADDRESSES
    unfit = "no coordinator: the hub is the relay"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        # Control sockets have one folder for the whole host: the names are unique to the run.
        self._devices = {name: f"w{os.getpid() % 100_000}{name[0]}" for name in ADDRESSES}
        self.device = self._devices["laptop"]
        self._binary, self._version = built(folder)
        self._keys: dict[str, str] = {}

    def version(self) -> Version:
        """Of the module."""
        return Version("wireguard-go", self._version, f"hub, keepalive {KEEPALIVE} s")

    def start(self, ground: Ground) -> None:
        """Hub, then both ends."""
        self._settle(ground)
        self._keys = {name: host.run("wg", "genkey").stdout for name, host in self._hosts.items()}
        ground.server.sysctl("ipv6/conf/all/forwarding", 1)
        for name in self._hosts:
            self._launch(name)
        reach(ground.laptop.host, ADDRESSES["desk"])
        reach(ground.desk.host, ADDRESSES["laptop"])

    def _public(self, name: str) -> str:
        return self._hosts[name].run("wg", "pubkey", text=self._keys[name]).stdout.strip()

    def _launch(self, name: str) -> None:
        """What ``wg-quick up`` would do."""
        host, device = self._hosts[name], self._devices[name]
        socket = SOCKETS / f"{device}.sock"
        socket.unlink(missing_ok=True)
        self._start(name, str(self._binary), "-f", device)
        until = time.monotonic() + 10
        while not socket.exists():
            if self._children[name].poll() is not None or time.monotonic() > until:
                raise RuntimeError("wireguard-go did not start")
            time.sleep(0.01)
        self._configure(name, host)
        host.ip(f"link set {device} up mtu {MTU}")
        host.ip(f"addr add {ADDRESSES[name]}/64 dev {device} nodad")

    def _configure(self, name: str, host: Namespace) -> None:
        words = f"set {self._devices[name]} private-key /dev/stdin".split()
        if name == "server":
            words += ["listen-port", str(PORT)]
            for other in ("laptop", "desk"):
                words += f"peer {self._public(other)} allowed-ips {ADDRESSES[other]}/128".split()
        else:
            words += f"peer {self._public('server')} allowed-ips fd00:77::/64".split()
            words += f"endpoint {SERVER4[0]}:{PORT} persistent-keepalive {KEEPALIVE}".split()
        host.run("wg", *words, text=self._keys[name])
