"""The command ntm-server as a process: ready, invite while it runs, signals, complaints."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ntm_server.health import render
from ntm_server.main import run
from ntmd.proto.types import Endpoint
from ntmd.runtime import account
from ntmd.runtime.account import parse_join_url
from tests.unit.ports import free_port

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from ntm_server.main import run; sys.exit(run(sys.argv[1:]))",
]
LIMIT = 20.0


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    before = os.umask(0o077)
    os.umask(before)
    yield
    os.umask(before)


def environment() -> dict[str, str]:
    roots = [str(Path(__file__).parents[3] / part) for part in ("", "servers")]
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(roots)}


def ask(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=LIMIT, input=stdin,
        check=False, env=environment(),
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its ready line; it must end cleanly on SIGTERM."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert "ready" in line, process.stderr.read()
        yield process, line
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(LIMIT) == 0, said
        assert "Traceback" not in said, said
        assert process.stdout.read() == ""
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def account_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """``ntm-server as`` for real; its data directory and HTTPS port."""
    data, port = str(tmp_path_factory.mktemp("data")), free_port()
    arguments = ("--data", data, "--listen", "127.0.0.1,::1", "--https-port", str(port))
    with serving("as", *arguments):
        yield data, port


def test_invite_prints_one_join_url_while_it_runs(account_server: tuple[str, int]) -> None:
    data, port = account_server
    for extra in ((), ("--reusable", "--expires", "7d")):
        done = ask("invite", "--data", data, *extra)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1
        assert " " not in done.stdout.strip()
        url = parse_join_url(done.stdout)
        assert (url.host, url.port) == ("127.0.0.1", port)
        assert url.token
    done = ask("invite", "--data", data, "--json", "--expires", "90s")
    assert set(json.loads(done.stdout)) == {"url", "expires_ms"}


def test_enrol_prints_a_url_that_enrols(account_server: tuple[str, int]) -> None:
    data, _ = account_server
    url = ask("enrol", "dc", "--data", data, "--domain", "lab.test").stdout
    given = account.enrol_server(
        url, "dc", "lab.test", [Endpoint("192.0.2.1", 4330)], os.urandom(32),
        os.urandom(32),
    )  # fmt: skip
    assert given.name == "dc1.lab.test"
    url = ask("enrol", "rs", "--data", data, "--dc", "lab.test").stdout
    given = account.enrol_server(
        url, "rs", "lab.test", [Endpoint("192.0.2.1", 4331)], os.urandom(32)
    )
    assert given.name == "rs1.lab.test"
    listed = json.loads(ask("node", "list", "--data", data, "--json").stdout)
    assert [each["name"] for each in listed] == ["dc1.lab.test", "rs1.lab.test"]
    assert "rs1.lab.test" in ask("node", "show", "rs1", "--data", data).stdout
    assert ask("node", "remove", "rs1.lab.test", "--data", data).returncode == 0
    gone = ask("node", "remove", "rs1.lab.test", "--data", data)
    assert gone.returncode == 1
    assert "node list" in gone.stderr
    done = ask("enrol", "dc", "--data", data, "--domain", "no domain")
    assert done.returncode == 1
    assert "home.test" in done.stderr


def test_accounts(account_server: tuple[str, int]) -> None:
    data, _ = account_server
    add = ("user", "add", "ann", "--data", data, "--password-stdin")
    assert "8 characters" in ask(*add, stdin="short\n").stderr
    assert ask(*add, stdin="long enough\n").returncode == 0
    again = ask(*add, stdin="long enough\n")
    assert again.returncode == 1
    assert "user passwd" in again.stderr
    done = ask("user", "passwd", "ann", "--data", data, "--password-stdin", stdin="even longer\n")
    assert done.returncode == 0, done.stderr
    users = json.loads(ask("user", "list", "--data", data, "--json").stdout)
    assert [(each["user"], each["password"]) for each in users] == [("ann", True)]
    assert ask("invite", "--user", "nobody", "--data", data).returncode == 1
    assert ask("user", "remove", "ann", "--data", data).returncode == 0
    assert ask("user", "remove", "ann", "--data", data).returncode == 1


def test_status_health_and_metrics(account_server: tuple[str, int]) -> None:
    data, port = account_server
    found = json.loads(ask("status", "--data", data, "--json").stdout)
    assert found["state"] == "ready"
    assert found["roles"]["as"]["url"] == f"https://127.0.0.1:{port}"
    assert ask("status", "--data", data).stdout.startswith("ready")
    base = f"http://127.0.0.1:{port + 1}"
    for path, part in (("/healthz", "ok"), ("/readyz", "ready"), ("/metrics", "ntm_as_counters")):
        with urllib.request.urlopen(base + path, timeout=5) as answer:
            assert part in answer.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(base + "/other", timeout=5)
    with socket.create_connection(("127.0.0.1", port + 1), 5) as rubbish:
        rubbish.sendall(b"\0\xff\r\n\r\n")
        assert b"405" in rubbish.recv(100)


def test_the_platform_survives_a_restart(tmp_path: Path) -> None:
    data, port = str(tmp_path / "data"), free_port()
    arguments = ("--data", data, "--listen", "127.0.0.1", "--https-port", str(port))
    urls = []
    for _ in range(2):
        with serving("as", *arguments):
            urls.append(parse_join_url(ask("invite", "--data", data).stdout))
    assert urls[0].platform_id == urls[1].platform_id
    assert urls[0].token != urls[1].token
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(data, "as").iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert Path(data).stat().st_mode & 0o777 == 0o700


def test_settings_from_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "server.toml").write_text('listen = ["192.0.2.1"]\nhttps-port = 9\n')
    monkeypatch.setenv("NTM_SERVER_DATA", str(tmp_path))
    assert run(["as"]) == 1
    assert "192.0.2.1:9" in capsys.readouterr().err
    monkeypatch.setenv("NTM_SERVER_HTTPS_PORT", "10")
    assert run(["as"]) == 1
    assert "192.0.2.1:10" in capsys.readouterr().err
    assert run(["as", "--https-port", "11"]) == 1
    assert "192.0.2.1:11" in capsys.readouterr().err


@pytest.mark.parametrize("command", [(), ("all",), ("invite",), ("user", "add"), ("node", "list")])
def test_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "bash"]) == 0
    assert "_NTM_SERVER_COMPLETE" in capsys.readouterr().out


def test_metrics_text() -> None:
    text = render({"rs": {"legs": 3, "drops": {"unknown_leg": 2, "odd": "x"}, "name": "rs1"}})
    assert b"ntm_rs_legs 3.0" in text
    assert b'ntm_rs_drops{kind="unknown_leg"} 2.0' in text
    assert b"rs1" not in text
