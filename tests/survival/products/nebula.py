"""Nebula: a lighthouse in public that is also the relay; both ends punch.

As its documentation advises for nodes behind NATs: ``punchy: punch, respond``, ``relays``,
``lighthouse.interval`` 60 (default).
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.lab.netns import sh
from tests.survival.ground import SERVER4, Ground
from tests.survival.products import Version
from tests.survival.products.common import Trio, go_install, module_version, reach

MODULES = ("github.com/slackhq/nebula/cmd/nebula", "github.com/slackhq/nebula/cmd/nebula-cert")
WANTED = "v1.10.3"  # later ones want a newer Go, or a dependency that cannot be had
ADDRESSES = {"server": "10.99.0.1", "laptop": "10.99.0.2", "desk": "10.99.0.3"}
PORT = 4242
WARM = 10  # seconds: it begins on the relay, and goes direct about that much later


class Nebula(Trio):
    """Lighthouse and two nodes."""

    device = "nebula1"
    addresses = ADDRESSES
    unfit = "the lighthouse is the relay"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._nebula, self._cert = (go_install(module, WANTED, folder) for module in MODULES)

    def version(self) -> Version:
        """Of the module."""
        return Version(
            "nebula", module_version(self._nebula), "lighthouse is relay; punch, respond"
        )

    def start(self, ground: Ground) -> None:
        """Certificates, lighthouse, both ends; then traffic until it has had time to go direct."""
        self._settle(ground, "nebula")
        cert, folder = self._cert, self._folder
        sh(f"{cert} ca -name lab -out-crt {folder}/ca.crt -out-key {folder}/ca.key")
        for name, address in ADDRESSES.items():
            sh(
                f"{cert} sign -ca-crt {folder}/ca.crt -ca-key {folder}/ca.key -name {name} "
                f"-networks {address}/24 -out-crt {folder}/{name}.crt -out-key {folder}/{name}.key"
            )
            (folder / f"{name}.yml").write_text(json.dumps(self._config(name)))
            self._launch(name)
        reach(ground.laptop.host, ADDRESSES["desk"])
        ground.desk.host.run(
            "ping", "-c", str(WARM * 5), "-i", "0.2", ADDRESSES["laptop"], check=False
        )

    def _config(self, name: str) -> dict[str, object]:
        """YAML is a superset of JSON."""
        hub, folder = name == "server", self._folder
        return {
            "pki": {
                "ca": f"{folder}/ca.crt", "cert": f"{folder}/{name}.crt",
                "key": f"{folder}/{name}.key",
            },
            "static_host_map": {ADDRESSES["server"]: [f"{SERVER4[0]}:{PORT}"]},
            "lighthouse": {
                "am_lighthouse": hub, "interval": 60,
                "hosts": [] if hub else [ADDRESSES["server"]],
            },
            "listen": {"host": "::", "port": PORT if hub else 0},
            "punchy": {"punch": True, "respond": True},
            "relay": {
                "am_relay": hub, "use_relays": True, "relays": [] if hub else [ADDRESSES["server"]]
            },
            "tun": {"dev": self.device, "mtu": 1300},
            "logging": {"level": "warning"},
            "firewall": {
                way: [{"port": "any", "proto": "any", "host": "any"}]
                for way in ("inbound", "outbound")
            },
        }  # fmt: skip

    def _launch(self, name: str) -> None:
        self._start(name, str(self._nebula), "-config", str(self._folder / f"{name}.yml"))
