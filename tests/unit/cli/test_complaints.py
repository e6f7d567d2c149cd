"""Every complaint of the command line, provoked: exit code, cause, next step, no traceback."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ntmd.nodefiles import NodeFiles

TABLE = {
    entry["id"]: entry
    for entry in json.loads((Path(__file__).parent / "complaints.json").read_text())
}
NTMD = [
    sys.executable,
    "-c",
    "import sys; from ntmd.cli.main import run; sys.exit(run(sys.argv[1:]))",
]
PROVOKED: set[str] = set()
LIMIT = 10.0
NOBODY = 65534


def provokes(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks the test that provokes the complaint ``name`` of the table."""
    assert name in TABLE
    PROVOKED.add(name)
    return lambda function: function


def expect(name: str, *arguments: object, prefix: tuple[str, ...] = (), **env: str) -> None:
    """Run ``ntmd`` with these arguments and compare with the table."""
    entry = TABLE[name]
    begin = time.monotonic()
    done = subprocess.run(
        [*prefix, *NTMD, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT + 5,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env},
        check=False,
    )
    assert time.monotonic() - begin < LIMIT
    said = done.stderr
    assert done.returncode == entry["exit_code"], said
    assert entry["cause"] in said
    assert entry["next"] in said
    assert "Traceback" not in said + done.stdout


def unprivileged(path: Path) -> tuple[str, ...]:
    """Prefix that runs a command as nobody, who may look into ``path``."""
    for directory in (path, *path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something that listens at ``path`` and does ``answer`` with its first caller."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(LIMIT)


@provokes("not-running")
@pytest.mark.parametrize(
    "command",
    [["status"], ["ping", "x"], ["resolve", "x"], ["netcheck"], ["handovers"], ["why", "x"]],
)
def test_every_question_needs_a_daemon(tmp_path: Path, command: list[str]) -> None:
    expect("not-running", "--state", tmp_path, *command)


@provokes("unknown-option")
def test_an_unknown_option() -> None:
    expect("unknown-option", "status", "--colour")


@provokes("unknown-command")
def test_an_unknown_command() -> None:
    expect("unknown-command", "statsu")


@provokes("port-out-of-range")
def test_a_port_out_of_range() -> None:
    expect("port-out-of-range", "up", "--port", "99999")


@provokes("interface-name")
def test_an_impossible_interface_name(tmp_path: Path) -> None:
    expect("interface-name", "up", "--state", tmp_path, "--interface", "much/too-long-a-name")


@provokes("settings-syntax")
def test_a_settings_file_with_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "ntmd.toml").write_text("port = \n")
    expect("settings-syntax", "status", "--state", tmp_path)


@provokes("settings-unknown")
def test_a_settings_file_with_an_unknown_key(tmp_path: Path) -> None:
    (tmp_path / "ntmd.toml").write_text('colour = "red"\n')
    expect("settings-unknown", "status", NTMD_STATE=str(tmp_path))


@provokes("socket-path-too-long")
def test_a_state_directory_with_a_very_long_path() -> None:
    expect("socket-path-too-long", "status", "--state", "/tmp/" + "long/" * 25)


@provokes("socket-permission")
@pytest.mark.e2e
def test_a_user_who_may_not_use_the_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ntmd.sock"))
        listener.listen()
        (tmp_path / "ntmd.sock").chmod(0o600)
        expect("socket-permission", "status", "--state", tmp_path, prefix=unprivileged(tmp_path))


@provokes("socket-of-another-program")
def test_another_program_at_the_socket(tmp_path: Path) -> None:
    with answering(tmp_path / "ntmd.sock", lambda caller: caller.sendall(b"220 hello\r\n")):
        expect("socket-of-another-program", "status", "--state", tmp_path)


@provokes("daemon-hung-up")
def test_a_daemon_that_hangs_up(tmp_path: Path) -> None:
    with answering(tmp_path / "ntmd.sock", lambda caller: None):
        expect("daemon-hung-up", "status", "--state", tmp_path)


@provokes("daemon-stuck")
def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ntmd.sock"))
        listener.listen()
        expect("daemon-stuck", "up", "--state", tmp_path)


@provokes("state-is-a-file")
def test_a_state_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    expect("state-is-a-file", "up", "--state", tmp_path / "file")


@provokes("state-permission")
@pytest.mark.e2e
def test_a_state_directory_that_may_not_be_made(tmp_path: Path) -> None:
    prefix = unprivileged(tmp_path)
    expect("state-permission", "up", "--state", tmp_path / "sub", prefix=prefix)


@provokes("state-of-another-user")
@pytest.mark.e2e
def test_a_state_directory_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    expect("state-of-another-user", "up", "--state", tmp_path / "state")


@provokes("state-disk-full")
@pytest.mark.e2e
def test_a_full_disk(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=4k,nr_inodes=3 none {tmp_path} && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    expect("state-disk-full", "up", "--state", tmp_path / "a" / "b", prefix=prefix)


@provokes("not-joined")
def test_the_first_start_without_a_join_url(tmp_path: Path) -> None:
    expect("not-joined", "up", "--state", tmp_path / "new")


@provokes("leave-without-terminal")
def test_leaving_without_being_asked(tmp_path: Path) -> None:
    expect("leave-without-terminal", "leave", "--state", tmp_path)


@provokes("state-in-use")
def test_a_second_daemon_on_one_state_directory(tmp_path: Path) -> None:
    NodeFiles(tmp_path).lock()
    expect("state-in-use", "up", "--state", tmp_path)


def test_each_complaint_of_the_table_is_provoked() -> None:
    assert set(TABLE) == PROVOKED
