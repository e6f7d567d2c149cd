"""A disk that is full: clear words, nothing half done, and it goes on once there is room again."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ntmd.runtime import account, patience, statefiles
from ntmd.runtime.account_api import AccountError
from ntmd.runtime.patience import PatientStore
from tests.unit.ports import free_port
from tests.unit.servers.test_server_process import COMMAND, LIMIT, ask, environment

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")


class Small:
    """``ntm-server all`` whose data is on a file system of 4 MB of its own."""

    def __init__(self, data: Path) -> None:
        self.port = free_port()
        mount = f'mount -t tmpfs -o size=4m none {data} && exec "$@"'
        server = [
            *COMMAND, "all", "--data", str(data), "--listen", "127.0.0.1", "--domain", "home.test",
            "--https-port", str(self.port), "--udp-port", str(self.port), "--dns-port", "0",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", *server],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        self.data = Path(f"/proc/{self.process.pid}/root{data}")
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        assert "ready" in line, self.process.stderr.read()

    def fill(self) -> None:
        """Use up every byte."""
        with (self.data / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def invite(self) -> subprocess.CompletedProcess[str]:
        return ask("invite", "--data", str(self.data))

    def end(self) -> str:
        """Stop it cleanly; what it said."""
        assert self.process.stderr is not None
        self.process.send_signal(signal.SIGTERM)
        said = self.process.stderr.read()
        assert self.process.wait(LIMIT) == 0, said
        return said


@contextmanager
def small(data: Path) -> Iterator[Small]:
    running = Small(data)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def test_a_full_disk_is_named_and_the_server_lives_on(tmp_path: Path) -> None:
    with small(tmp_path) as server:
        spare = [server.invite().stdout for _ in range(2)]
        server.fill()
        refused = server.invite()
        assert refused.returncode == 1
        assert "The disk is full" in refused.stderr
        with pytest.raises(AccountError, match="cannot use its database") as caught:
            account.enrol_node(spare[0], "laptop", os.urandom(32))
        assert caught.value.error == "database"
        assert ask("status", "--data", str(server.data)).returncode == 0
        (server.data / "filler").unlink()
        given = account.enrol_node(spare[0], "laptop", os.urandom(32))
        assert given.name == "laptop.home.test"
        said = server.end()
    assert "a request failed in the database" in said
    assert "full" in said
    assert "Traceback" not in said


def test_what_cannot_be_written_is_kept_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "RETRY", 0.05)
    full = True
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    async def story() -> None:
        nonlocal full
        store = PatientStore(tmp_path, asyncio.get_running_loop())
        store.put("a", b"1")
        store.put("b", b"2")
        store.put("a", b"3")
        assert (store.waiting, store.failures) == (2, 3)
        await asyncio.sleep(0.2)
        assert store.waiting == 2
        full = False
        async with asyncio.timeout(5):
            while store.waiting:
                await asyncio.sleep(0.02)
        assert store.failures == 0
        store.close()

    asyncio.run(story())
    assert statefiles.FileStore(tmp_path).read_all() == {"a": b"3", "b": b"2"}
    assert caplog.text.count("state cannot be stored") == 1
    assert "the disk is full" in caplog.text
