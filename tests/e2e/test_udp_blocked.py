"""Networks that let little pass: no UDP and no TCP but 443, or an HTTP proxy alone (rule S12)."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.e2e.actors import Node, wait_for
from tests.e2e.conftest import SERVER4, Town
from tests.e2e.lab import Nat
from tests.e2e.programs import Sshd, UdpFlow, ssh_session

DESK = "desk.home.test"
ONLY_443 = """
table inet strict {
  chain pass {
    type filter hook forward priority -5; policy drop;
    tcp dport 443 accept
    tcp sport 443 accept
  }
}
"""
NOTHING = "table inet strict { chain pass { type filter hook forward priority -5; policy drop; }; }"
NO_UDP = """
table inet strict {
  chain pass { type filter hook forward priority -5; meta l4proto udp counter drop; }
}
"""
PROXY = """
Port 8888
Timeout 600
ConnectPort 443
LogFile "{log}"
LogLevel Connect
MaxClients 50
"""


def guest(town: Town, name: str, rules: str) -> tuple[Node, Nat]:
    """A laptop behind a NAT box with these rules, not joined yet."""
    nat = town.lab.nat()
    nat.space.nft(rules)
    host = town.lab.space(name)
    town.lab.plug(host, "eth0", nat)
    return Node(host, town.folder / name, name), nat


def shown(node: Node) -> tuple[str, str, str]:
    """Kind, transport and relay of the path to the desk."""
    path = node.peer(DESK)["path"]
    return path["kind"], path["transport"], path["relay"]


def works_over_tls(laptop: Node, desk: Node, folder: Path) -> None:
    """ping and ssh through the tunnel, and the words that say how."""
    assert "3 received" in laptop.ping(DESK, "-c3", "-i0.2", "-W5")
    assert "3 received" in desk.ping("laptop.home.test", "-c3", "-i0.2", "-W5")
    assert shown(laptop) == ("relay", "tls", "rs1.home.test")
    sshd = Sshd(desk.host, folder)
    wait_for(lambda: "listening" in sshd.log.read_text() if sshd.log.exists() else False, 5)
    session = ssh_session(laptop.host, sshd, DESK)
    session.wait_line("tick", 15)
    status = laptop.status()
    assert status["state"] == "up"
    assert status["coordinator"]["transport"] == "tls"
    assert [relay["transport"] for relay in status["relays"]] == ["tls"]
    assert [item["code"] for item in status["health"]] == ["udp-blocked"]
    rows = json.loads(laptop.ntmd("netcheck", "--json").stdout)["underlay"]
    assert [row["udp"] for row in rows] == ["blocked"]
    said = laptop.ntmd("ping", DESK, "-c", "1").stdout
    assert "relay rs1.home.test over TLS" in said
    assert session.alive()


def test_only_tcp_443_passes(town: Town, tmp_path: Path) -> None:
    desk = town.node("desk", town.lab.nat())
    laptop, _ = guest(town, "laptop", ONLY_443)
    blocked = laptop.host.run(
        "curl", "-sk", "-m", "3", f"https://{SERVER4[0]}:8443/ca", check=False
    )
    assert blocked.returncode == 28  # the rules do what they say
    took = laptop.join(town.server.invite(), "--dns", "file")
    assert took < 10  # two processes start; the race itself is measured in tests/sim
    works_over_tls(laptop, desk, tmp_path)
    for alpn in ("ntm-rs/1", "ntm-dc/1", "http/1.1"):
        said = laptop.host.run(
            "openssl", "s_client", "-connect", f"{SERVER4[0]}:443", "-alpn", alpn, "-brief",
            check=False,
        )  # fmt: skip
        seen = said.stdout + said.stderr
        assert "Protocol version: TLSv1.3" in seen, seen
        assert f"ALPN protocol: {alpn}" in laptop.host.run(
            "openssl", "s_client", "-connect", f"{SERVER4[0]}:443", "-alpn", alpn, check=False
        ).stdout  # fmt: skip
    old = laptop.host.run(
        "openssl", "s_client", "-connect", f"{SERVER4[0]}:443", "-tls1_2", check=False
    )
    assert old.returncode != 0
    tls = json.loads(town.server.command("status", "--json").stdout)["tls"]
    assert tls["state"] == "open"
    assert tls["connections"] >= 2


def test_an_http_proxy_is_the_only_way(town: Town, tmp_path: Path) -> None:
    desk = town.node("desk", town.lab.nat())
    laptop, nat = guest(town, "laptop", NOTHING)
    log, config = tmp_path / "proxy.log", tmp_path / "tinyproxy.conf"
    config.write_text(PROXY.format(log=log))
    nat.space.start("tinyproxy", "-d", "-c", str(config))
    gateway = f"10.{nat.number}.2.1"
    refused = laptop.ntmd(
        "up", "--join", town.server.invite(), "--name", "laptop", check=False, timeout=40
    )
    assert refused.returncode == 4  # no way without the proxy
    laptop.state.mkdir(exist_ok=True)
    (laptop.state / "ntmd.toml").write_text(f'proxy = "http://{gateway}:8888"\n')
    laptop.join(town.server.invite(), "--dns", "file")
    works_over_tls(laptop, desk, tmp_path)
    wait_for(lambda: f"CONNECT {SERVER4[0]}:443" in log.read_text(), 5)


def test_udp_is_blocked_under_a_running_tunnel_and_comes_back(town: Town, tmp_path: Path) -> None:
    home, desk = town.lab.nat(), town.node("desk", town.lab.nat())
    laptop = town.node("laptop", home)
    laptop.ping(DESK, "-c1", "-W5")
    wait_for(lambda: laptop.path_kind(DESK) == "direct", 10)
    flow = UdpFlow(laptop.host, desk.host, tmp_path, DESK, seconds=12)
    time.sleep(3)
    home.space.nft(NO_UDP)
    wait_for(lambda: shown(laptop) == ("relay", "tls", "rs1.home.test"), 8)
    blocked = flow.finish()
    assert blocked["gap_ms"] < 2500
    assert "1 received" in laptop.ping(DESK, "-c1", "-W2")
    home.space.nft("delete table inet strict")
    wait_for(lambda: laptop.status()["coordinator"]["transport"] == "udp", 20)
    wait_for(lambda: [r["transport"] for r in laptop.status()["relays"]] == ["udp"], 20)
    assert "1 received" in laptop.ping(DESK, "-c1", "-W2")
    assert laptop.path_kind(DESK) in ("relay", "direct")
    assert "udp-blocked" not in [item["code"] for item in laptop.status()["health"]]
