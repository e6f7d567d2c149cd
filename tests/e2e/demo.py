"""``make demo``: two laptops behind two NATs; one moves while programs run; what survived."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.actors import Node, Server, wait_for
from tests.e2e.capture import INNER_SYN, Capture, tun_bytes
from tests.e2e.lab import Lab
from tests.e2e.programs import MARK, Download, IdleTcp, Sshd, UdpFlow, ssh_session

BEGAN = time.monotonic()
BEFORE = (
    ("ping", "-6", "-c1", "-W2", "desk.home.test"),
    ("curl", "-6", "-sS", "-m5", "http://desk.home.test:8080/"),
    ("ssh", "-6", "-o", "BatchMode=yes", "root@desk.home.test", "true"),
)


def say(text: str) -> None:
    """One line of the story, with the time since the start."""
    print(f"[{time.monotonic() - BEGAN:5.1f} s] {text}", flush=True)


def picture() -> None:
    """Where everybody stands."""
    print(
        """
      laptop ──eth0── NAT 1 ──┐                       ┌── NAT 2 ── desk
        ·                     ├── public Internet ────┤
        ·····wlan0··· NAT 3 ──┘                       └── server (AS + DC + RS)
""",
        flush=True,
    )


def story(folder: Path, size: int, rate: str) -> bool:
    """The whole demo; whether everything survived."""
    with Lab("demo") as lab:
        picture()
        home, away, flat = lab.nat(), lab.nat(), lab.nat()
        public = lab.public("server", ["198.51.100.1", "198.51.100.2"])
        laptop = Node(lab.space("laptop"), folder / "laptop", "laptop")
        desk = Node(lab.space("desk"), folder / "desk", "desk")
        eth0 = lab.plug(laptop.host, "eth0", home)
        lab.plug(desk.host, "eth0", flat)

        say("before ntmd, the same programs fail:")
        for words in BEFORE:
            failed = laptop.host.run(*words, check=False)
            say(f"    {words[0]}: {(failed.stderr or failed.stdout).strip().splitlines()[-1]}")
            if failed.returncode == 0:
                return False

        server = Server(public, folder / "server", "home.test", ["198.51.100.1", "198.51.100.2"])
        say(f"ntm-server all --domain home.test: ready in {server.start():.1f} s")
        for node in (laptop, desk):
            took = node.join(server.invite(), "--dns", "file")
            me = node.status()["self"]
            say(f"ntmd up --join ... on {node.name}: {me['name']} is {me['address']}, {took:.1f} s")

        began = time.monotonic()
        laptop.ping("desk.home.test", "-c1", "-W5")
        say(f"ping desk.home.test from cold, never met: {(time.monotonic() - began) * 1000:.0f} ms")
        wait_for(lambda: laptop.path_kind("desk.home.test") == "direct", 10)
        before = laptop.peer("desk.home.test")["path"]
        say(f"path: {describe(before)}")

        sshd = Sshd(desk.host, folder)
        wires = [
            Capture(host, "eth0", folder / f"{host.label}.pcap")
            for host in (laptop.host, desk.host)
        ]
        say("starting ssh, curl, an idle TCP connection and 100 UDP datagrams a second")
        session = ssh_session(laptop.host, sshd, "desk.home.test")
        session.wait_line("tick", 15)
        download = Download(desk.host, laptop.host, folder, "desk.home.test", size, rate)
        idle = IdleTcp(desk.host, laptop.host, "desk.home.test")
        flow = UdpFlow(laptop.host, desk.host, folder, "desk.home.test", seconds=8)
        idle.speak(f"before-{MARK.decode()}")
        syn = Capture(laptop.host, "ntm0", folder / "syn.pcap", INNER_SYN)
        time.sleep(2)
        seen_by = [wires.pop(0)]
        datagrams = seen_by[0].stop()

        say("the laptop walks out of the house: eth0 is gone, wlan0 behind another NAT is there")
        lab.unplug(eth0)
        lab.plug(laptop.host, "wlan0", away)
        wires.append(Capture(laptop.host, "wlan0", folder / "wlan0.pcap"))
        time.sleep(3)
        seen = idle.speak(f"after-{MARK.decode()}")
        alive = session.alive() and time.monotonic() - session.at[-1][0] < 1
        moved = flow.finish()
        right, told = download.finish(60)
        after = laptop.peer("desk.home.test")["path"]
        say(f"path: {describe(after)}")
        ticks = f"{len(session.at)} lines"
        fetched = f"{size} bytes, sha256 equal, connects {told.split()[0]}"
        counted = f"{moved['sent']:.0f} sent, {moved['lost']:.0f} lost"
        whole = alive and sshd.connections() == 1
        rows = [
            ("ssh session", whole, f"{session.longest_gap() * 1000:.0f}", ticks),
            ("curl download", right, "-", fetched),
            ("idle TCP", idle.connections() == 1, f"{seen * 1000:.0f}", "echo after the move"),
            ("UDP 100/s", moved["lost"] < 50, f"{moved['gap_ms']:.0f}", counted),
        ]
        table(rows, before, after)
        datagrams += sum(wire.stop() for wire in wires)
        readable = [wire.file.stem for wire in seen_by + wires if wire.holds(MARK)]
        again = syn.stop()
        given, taken = tun_bytes(laptop.host)
        say(f"the laptop's TUN carried {given:,} bytes in, {taken:,} out")
        say(f"captures of all uplinks: {datagrams:,} packets, readable: {readable or 'nothing'}")
        say(f"new connections inside the tunnel since the start: {again}")
        session.stop()
        for node in (laptop, desk):
            node.ntmd("down")
        say(f"server ended with exit code {server.stop()}")
        return all(row[1] for row in rows) and not readable and not again and given > size


def describe(path: dict[str, object]) -> str:
    """A path in words."""
    via = f"relay {path['relay']}" if path["kind"] == "relay" else str(path["kind"])
    return f"{via} via {path['interface']} to {path['remote']}"


def table(
    rows: list[tuple[str, bool, str, str]], before: dict[str, object], after: dict[str, object]
) -> None:
    """What survived, measured in this run."""
    print(f"\n{'program':<15} {'survived':<9} {'longest gap, ms':<16} notes")
    for name, survived, gap, notes in rows:
        print(f"{name:<15} {'yes' if survived else 'NO':<9} {gap:<16} {notes}")
    print(f"\npath before: {describe(before)}\npath after:  {describe(after)}\n", flush=True)


def main() -> int:
    """Exit code 0 if everything survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16_000_000, help="bytes to download")
    parser.add_argument("--rate", default="2M", help="rate limit of the download")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ntmd-demo-") as folder:
        return 0 if story(Path(folder), options.size, options.rate) else 1


if __name__ == "__main__":
    sys.exit(main())
