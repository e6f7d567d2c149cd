"""Tailscale's clients with headscale and a DERP relay (and STUN) of their own, both in public.

The relay is a process beside headscale, so that the coordinator can die alone. All as documented;
``--netfilter-mode=off --accept-dns=false`` because a namespace has neither to give.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.e2e.actors import wait_for
from tests.e2e.lab.netns import Namespace, sh
from tests.survival.ground import SERVER4, SERVER6, Ground, Place
from tests.survival.products import Version
from tests.survival.products.common import go_build, go_install, module_version, reach, stopped

CLIENT, SERVER = "v1.102.5", "v0.29.2"  # the newest that today's Go builds
MODULES = {name: f"tailscale.com/cmd/{name}" for name in ("tailscaled", "tailscale", "derper")}
HEADSCALE = "github.com/juanfont/headscale"
RELAY = "derp.home.test"
URL = f"http://{SERVER4[0]}:8080"
SETTLE = 20  # seconds that both ends may take to find the direct way


class Tailscale:
    """headscale, derper, two nodes."""

    device = "tailscale0"

    def __init__(self, folder: Path) -> None:
        self._programs = {
            name: go_install(module, CLIENT, folder) for name, module in MODULES.items()
        }
        self._headscale = go_build(HEADSCALE, "cmd/headscale", SERVER, folder)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._addresses: dict[str, str] = {}

    def version(self) -> Version:
        """Of both modules."""
        client = module_version(self._programs["tailscaled"])
        return Version("tailscale", client, f"headscale {SERVER}, own DERP and STUN")

    def start(self, ground: Ground) -> None:
        """Servers, both ends, first contact, direct path where there can be one."""
        self._folder = folder = ground.folder / "tailscale"
        folder.mkdir()
        self._hosts = {"laptop": ground.laptop.host, "desk": ground.desk.host}
        self._certificates(folder)
        self._relay(ground.server)
        key = self._coordinator(ground.server)
        for name in self._hosts:
            self._launch(name)
            self._client(
                name, "up", f"--login-server={URL}", f"--authkey={key}", f"--hostname={name}",
                "--netfilter-mode=off", "--accept-dns=false", "--timeout=30s",
            )  # fmt: skip
            self._addresses[name] = self._client(name, "ip", "-4").strip()
        reach(ground.laptop.host, self._addresses["desk"])
        if ground.kind != "symmetric":
            self._client("laptop", "ping", f"--timeout={SETTLE}s", self._addresses["desk"])

    def _certificates(self, folder: Path) -> None:
        key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        files = f"-keyout {folder}/{RELAY}.key -out {folder}/{RELAY}.crt"
        name = f"-subj /CN={RELAY} -addext subjectAltName=DNS:{RELAY}"
        sh(f"openssl req -x509 {key} -days 2 {files} {name}")

    def _start(self, name: str, host: Namespace, *command: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._children[name] = host.start(
                *command, stdout=log, stderr=log,
                env={**os.environ, "SSL_CERT_FILE": str(self._folder / f"{RELAY}.crt")},
            )  # fmt: skip

    def _relay(self, host: Namespace) -> None:
        self._start(
            "derper", host, str(self._programs["derper"]), "-a", ":443", "-http-port", "-1",
            "-hostname", RELAY, "-certmode", "manual", "-certdir", str(self._folder),
            "-c", str(self._folder / "derper.json"),
        )  # fmt: skip

    def _coordinator(self, host: Namespace) -> str:
        """Starts headscale; returns a key for joining."""
        folder = self._folder
        node = {
            "name": "900a", "regionid": 900, "hostname": RELAY, "ipv4": SERVER4[0],
            "ipv6": SERVER6[0], "derpport": 443, "stunport": 3478,
        }  # fmt: skip
        region = {"regionid": 900, "regioncode": "lab", "regionname": "lab", "nodes": [node]}
        # A number as a key, which JSON does not have.
        (folder / "derp.yaml").write_text(f"regions: {{900: {json.dumps(region)}}}\n")
        config = folder / "headscale.yaml"
        config.write_text(json.dumps({
            "server_url": URL, "listen_addr": "0.0.0.0:8080", "metrics_listen_addr": "",
            "grpc_listen_addr": "127.0.0.1:50443",
            "noise": {"private_key_path": f"{folder}/noise.key"},
            "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48"},
            "derp": {"server": {"enabled": False}, "urls": [], "paths": [f"{folder}/derp.yaml"],
                     "auto_update_enabled": False},
            "disable_check_updates": True,
            "database": {"type": "sqlite", "sqlite": {"path": f"{folder}/headscale.db"}},
            "dns": {"magic_dns": False, "base_domain": "tail.test", "override_local_dns": False},
            "unix_socket": f"{folder}/headscale.sock",
        }))  # fmt: skip
        command = [str(self._headscale), "-c", str(config)]
        self._start("headscale", host, *command, "serve")
        wait_for(
            lambda: host.run(*command, "users", "create", "lab", check=False).returncode == 0, 20
        )
        said = host.run(
            *command, "preauthkeys", "create", "--user", "1", "--reusable", "-o", "json"
        ).stdout
        return str(json.loads(said)["key"])

    def _launch(self, name: str) -> None:
        state = self._folder / name
        state.mkdir(exist_ok=True)
        self._start(
            name, self._hosts[name], str(self._programs["tailscaled"]), f"--statedir={state}",
            f"--socket={state}/sock", f"--tun={self.device}", "--port=0", "--no-logs-no-support",
        )  # fmt: skip
        wait_for((state / "sock").exists, 20)

    def _client(self, name: str, *words: str) -> str:
        program, socket = str(self._programs["tailscale"]), self._folder / name / "sock"
        return self._hosts[name].run(program, f"--socket={socket}", *words, timeout=90).stdout

    def address(self, place: Place) -> str:
        """Inside the tunnel."""
        return self._addresses[place.host.label]

    def processes(self, place: Place) -> list[int]:
        """The one process."""
        return [self._children[place.host.label].pid]

    def restart(self, place: Place) -> None:
        """kill -9 and start."""
        stopped(self._children[place.host.label])
        (self._folder / place.host.label / "sock").unlink(missing_ok=True)
        self._launch(place.host.label)

    def kill_coordinators(self) -> None:
        """headscale; the relay lives."""
        stopped(self._children["headscale"])

    def notes(self) -> dict[str, object]:
        """Nothing."""
        return {}
