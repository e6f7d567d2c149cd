"""kill -9 of each role as a process of its own, and start again: no assignment is lost."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from ntmd.proto import certs
from ntmd.proto import messages as m
from ntmd.proto.certs import Anchor, Trust
from ntmd.proto.events import Established, Identity, OpenPolicy, Replied
from ntmd.proto.io import SendDatagram
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Path as Way
from ntmd.proto.types import Peer, Role
from ntmd.runtime import account
from ntmd.runtime.account_api import AccountError
from ntmd.runtime.clock import boot_clock, wall_ms
from ntmd.runtime.enrolment import Enrolment
from tests.unit.complaint_table import written
from tests.unit.ports import free_port
from tests.unit.servers.test_server_process import COMMAND, LIMIT, ask, environment


class Process:
    """``ntm-server`` with one role, killed and started at will."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, *self._arguments], stdout=subprocess.PIPE, stderr=self._complaints,
            text=True, env=environment(),
        )  # fmt: skip
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert "ready" in ready, written(self._complaints)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def register(enrolment: Enrolment, key: bytes) -> m.Registered:
    """A node's registration on a real socket, in a session of its own."""
    assert enrolment.dc is not None
    (at,) = enrolment.dc.endpoints
    trust = Trust((Anchor(enrolment.platform_id, (certs.ca_key_of(enrolment.ca),)),))
    offset = wall_ms() - int(boot_clock() * 1000)
    engine = SessionEngine(
        Identity(Role.NODE, enrolment.name, key, enrolment.certificates),
        trust,
        OpenPolicy((Role.DC,)),
        random=os.urandom,
        platform_ms=lambda now: offset + int(now * 1000),
        sequencer=Sequencer(0, lambda mark: None),
    )
    peer = Peer(Role.DC, enrolment.dc.name, certs.parse_leaf(enrolment.dc.certificate).key)
    handle = engine.call(peer, [Way(1, at)], boot_clock())
    engine.ask(handle, m.Register(0, (), m.NatView()), boot_clock(), timeout=LIMIT)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(at)
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            for output in engine.take_outputs():
                if isinstance(output, SendDatagram):
                    udp.send(output.data)
                elif isinstance(output, Established):
                    engine.set_primary(output.handle, output.path)
                elif isinstance(output, Replied) and isinstance(output.reply, m.Registered):
                    return output.reply
            if select.select([udp], [], [], 0.02)[0]:
                engine.receive(udp.recv(65_536), 1, at, boot_clock())
            elif (engine.deadline() or 0) <= boot_clock():
                engine.handle_deadline(boot_clock())
    raise AssertionError("the coordinator does not answer")


def test_killed_roles_come_back_with_all_assignments(tmp_path: Path) -> None:
    port = free_port()
    listen = ("--listen", "127.0.0.1", "--https-port")
    folders = {name: str(tmp_path / name) for name in ("as", "dc", "rs")}
    running = [Process("as", "--data", folders["as"], *listen, str(port))]
    try:
        enrol = ("enrol", "--data", folders["as"])
        url = ask(*enrol[:1], "dc", *enrol[1:], "--domain", "home.test").stdout.strip()
        dc = ("dc", "--data", folders["dc"], *listen, str(port + 10), "--udp-port", str(port))
        running.append(Process(*dc, "--dns-port", "0", "--join", url))
        url = ask(*enrol[:1], "rs", *enrol[1:], "--dc", "home.test").stdout.strip()
        rs = ("rs", "--data", folders["rs"], *listen, str(port + 20), "--udp-port", str(port))
        running.append(Process(*rs, "--join", url))
        invitation = ask("invite", "--data", folders["as"]).stdout.strip()
        key = os.urandom(32)
        given = account.enrol_node(invitation, "laptop", key)
        first = register(given, key)
        assert first.status == m.Status.OK
        for process in running:
            process.kill()
            process.start()
            again = register(given, key)
            assert (again.status, again.address) == (m.Status.OK, first.address)
            assert [relay.name for relay in again.relays] == ["rs1.home.test"]
        assert account.renew_node(given, key).name == "laptop.home.test"
        with pytest.raises(AccountError) as caught:
            account.enrol_node(invitation, "desk", os.urandom(32))
        assert caught.value.error == "used_invitation"
        told = ask("drain", "--data", folders["rs"])
        assert told.returncode == 0
        assert ask("drain", "--data", folders["rs"]).stdout.startswith("draining: ")
        assert ask("drain", "--undo", "--data", folders["rs"]).returncode == 0
        assert ask("drain", "--data", folders["dc"]).returncode == 1
    finally:
        for process in running:
            process.kill()
