"""All programs of a journey at once: ssh, curl, an idle TCP connection and UDP both ways.

Started before a move, judged after it: *survived* means the same TCP connections with the same
ports at both ends, no new SYN inside the tunnel, and every byte right.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.e2e.actors import Node, wait_for
from tests.e2e.capture import INNER_SYN, Capture, tun_bytes
from tests.e2e.programs import MARK, Download, IdleTcp, Sshd, UdpFlow, ssh_session

WORD = MARK.decode()


class Journey:
    """What runs between ``laptop`` and ``desk`` of home.test while one of them moves."""

    def __init__(self, laptop: Node, desk: Node, folder: Path, seconds: float = 7.0) -> None:
        self.laptop, self.desk, self.folder = laptop, desk, folder
        there, back = f"{desk.name}.home.test", f"{laptop.name}.home.test"
        self.size = int(seconds * 700_000)
        self.sshd = Sshd(desk.host, folder)
        self.idle = IdleTcp(desk.host, laptop.host, there)
        self.idle.speak(f"before-{WORD}")
        self.session = ssh_session(laptop.host, self.sshd, there)
        self.session.wait_line("tick", 15)
        self.download = Download(desk.host, laptop.host, folder, there, self.size, "700k")
        wait_for(lambda: self.download.copy.exists() and self.download.copy.stat().st_size > 0, 15)
        self.syn = Capture(laptop.host, "ntm0", folder / "syn.pcap", INNER_SYN)
        self.out = UdpFlow(laptop.host, desk.host, folder, there, seconds=seconds, port=9991)
        self.back = UdpFlow(desk.host, laptop.host, folder, back, seconds=seconds, port=9992)
        time.sleep(1)

    def survived(self) -> None:
        """Wait for the end of everything and judge it; leaves the flows' figures behind."""
        self.idle.speak(f"after-{WORD}")
        self.sent, self.came = self.out.finish(), self.back.finish()
        assert self.session.alive()
        assert time.monotonic() - self.session.at[-1][0] < 1
        right, said = self.download.finish(60)
        assert right, said
        assert said.split()[0] == "1", f"curl connected again: {said}"
        self._same_connections()
        assert self.syn.stop() == 0, "a program connected again through the tunnel"
        to_host, from_host = tun_bytes(self.laptop.host)
        assert to_host > self.size, "the download did not come through the TUN"
        assert from_host > self.sent["sent"] * 200, "the datagrams did not leave by the TUN"
        self.session.stop()

    def _same_connections(self) -> None:
        """The same ports at both ends, told by both ends."""
        accepted = [line.split()[1] for _, line in self.idle.server.at if "accepted" in line]
        assert accepted == [self.idle.port.split()[1]]
        told = self.session.wait_line("via", 1).split()
        log = self.sshd.log.read_text()
        ports = re.findall(r"Accepted publickey for root from \S+ port (\d+)", log)
        assert ports == [told[2]], "sshd tells of another connection"
        assert "Disconnected" not in log
