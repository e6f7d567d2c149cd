"""OpenVPN from Debian: a server in public, both ends are its clients and may float.

``keepalive 10 60``, ``client-to-client``, ``explicit-exit-notify`` off: what a roaming client's
profile holds. A client's new address is followed by its peer id.
"""

from __future__ import annotations

import re
import subprocess

from tests.e2e.lab.netns import sh
from tests.survival.ground import SERVER4, SERVER6, Ground
from tests.survival.products import Version
from tests.survival.products.common import Trio, reach

ADDRESSES = {"server": "10.98.0.1", "laptop": "10.98.0.2", "desk": "10.98.0.3"}
PORT = 1194
COMMON = """
dev {device}
dev-type tun
topology subnet
ca {folder}/ca.crt
cert {folder}/{name}.crt
key {folder}/{name}.key
persist-tun
persist-key
verb 3
"""
SERVER = """
proto udp6
multihome
port {port}
dh none
server 10.98.0.0 255.255.255.0
client-to-client
keepalive 10 60
client-config-dir {folder}/ccd
"""
CLIENT = """
client
nobind
remote {four} {port} udp
remote {six} {port} udp6
connect-timeout 5
remote-cert-tls server
"""


class Openvpn(Trio):
    """Server and two clients."""

    device = "ovpn0"
    addresses = ADDRESSES
    unfit = "no coordinator: the server is the relay"

    def version(self) -> Version:
        """Of the package."""
        try:
            told = subprocess.run(["openvpn", "--version"], capture_output=True, text=True).stdout
        except OSError as error:
            raise SystemExit("openvpn is missing: apt-get install openvpn") from error
        found = re.search(r"OpenVPN (\S+)", told)
        return Version("openvpn", found[1] if found else "?", "server is relay; keepalive 10 60")

    def start(self, ground: Ground) -> None:
        """Certificates, server, clients."""
        self._settle(ground, "openvpn")
        folder = self._folder
        (folder / "ccd").mkdir()
        key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        sh(f"openssl req -x509 {key} -keyout {folder}/ca.key -out {folder}/ca.crt -subj /CN=lab")
        for name, address in ADDRESSES.items():
            usage = folder / f"{name}.ext"
            usage.write_text(
                f"extendedKeyUsage={'serverAuth' if name == 'server' else 'clientAuth'}\n"
                "keyUsage=digitalSignature\n"
            )
            sh(f"openssl req {key} -keyout {folder}/{name}.key -out {folder}/{name}.csr "
               f"-subj /CN={name}")  # fmt: skip
            sh(f"openssl x509 -req -in {folder}/{name}.csr -CA {folder}/ca.crt -days 2 "
               f"-CAkey {folder}/ca.key -CAcreateserial -extfile {usage} "
               f"-out {folder}/{name}.crt")  # fmt: skip
            (folder / "ccd" / name).write_text(f"ifconfig-push {address} 255.255.255.0\n")
            text = COMMON + (SERVER if name == "server" else CLIENT)
            (folder / f"{name}.conf").write_text(
                text.format(
                    device=self.device, folder=folder, name=name, port=PORT,
                    four=SERVER4[0], six=SERVER6[0],
                )
            )  # fmt: skip
            self._launch(name)
        reach(ground.laptop.host, ADDRESSES["desk"])

    def _launch(self, name: str) -> None:
        self._start(name, "openvpn", "--config", str(self._folder / f"{name}.conf"))
