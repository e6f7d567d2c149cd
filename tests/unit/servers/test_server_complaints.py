"""Every complaint of ntm-server, provoked: exit code, cause, next step, no traceback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.complaint_table import LIMIT, ComplaintTable, small_disk, unprivileged, written
from tests.unit.ports import free_port

TABLE = ComplaintTable(Path(__file__).with_name("complaints.json"), "ntm_server.main")
provokes, expect = TABLE.provokes, TABLE.expect
HERE = ("--listen", "127.0.0.1")
HOME = ("--domain", "home.test")


@contextmanager
def running(role: str, data: Path, *options: str) -> Iterator[int]:
    """A server that is ready; its HTTPS port."""
    port = free_port()
    ports = ["--udp-port", str(port)] + (["--tls-port", "0"] if role != "as" else [])
    if role != "rs":
        ports += ["--https-port", str(port), "--dns-port", "0"]
    complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(
        [*TABLE.command, role, "--data", str(data), *HERE, *ports, *options],
        stdout=subprocess.PIPE, stderr=complaints, text=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert "ready" in process.stdout.readline(), written(complaints)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT)
        process.stdout.close()
        complaints.close()


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """``ntm-server all``; its data directory and port."""
    data = tmp_path_factory.mktemp("all")
    with running("all", data, *HOME) as port:
        yield data, port


@provokes("unknown-option")
@provokes("unknown-command")
@provokes("domain-missing")
@provokes("domain-impossible")
@provokes("listen-missing")
@provokes("listen-any")
@provokes("listen-no-address")
@provokes("listen-foreign")
@provokes("duration")
@provokes("resolver")
@provokes("database-url")
@provokes("join-missing")
@provokes("join-malformed")
@provokes("join-unreachable")
@provokes("not-running")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unknown-option", ("status", "--colour")),
        ("unknown-command", ("statsu",)),
        ("domain-missing", ("all", *HERE)),
        ("domain-impossible", ("all", *HERE, "--domain", "no domain")),
        ("listen-missing", ("as",)),
        ("listen-any", ("all", "--listen", "0.0.0.0", *HOME)),
        ("listen-any", ("all", "--listen", "::", *HOME)),
        ("listen-no-address", ("all", "--listen", "nowhere", *HOME)),
        ("listen-foreign", ("as", "--listen", "192.0.2.1")),
        ("duration", ("invite", "--expires", "soon")),
        ("resolver", ("dc", *HERE, "--resolver", "nowhere:x")),
        ("database-url", ("as", *HERE, "--database", "no")),
        ("join-missing", ("dc", *HERE)),
        ("join-malformed", ("rs", *HERE, "--join", "https://x/")),
        ("join-unreachable", ("rs", *HERE, "--join", f"https://127.0.0.1:1/join#v=1&ca={'0' * 64}"
                              f"&k={'k' * 32}")),
        *(("not-running", words) for words in (
            ("invite",), ("status",), ("node", "list"), ("user", "list"),
            ("enrol", "dc", *HOME))),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_command(
    name: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    data = () if name.startswith("unknown") else ("--data", tmp_path)
    expect(name, *arguments, *data)


@provokes("settings-syntax")
@provokes("settings-unknown")
def test_a_settings_file_with_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("= =\n")
    expect("settings-syntax", "as", *HERE, "--data", tmp_path)
    file.write_text("colour = 3\n")
    expect("settings-unknown", "as", *HERE, "--data", tmp_path)


@provokes("socket-path-too-long")
def test_a_data_directory_with_a_very_long_path(tmp_path: Path) -> None:
    expect("socket-path-too-long", "as", *HERE, "--data", tmp_path / ("x" * 100))


@provokes("socket-of-another-program")
def test_another_program_at_the_admin_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "admin.sock"))
        listener.listen()
        if os.fork() == 0:
            caller, _ = listener.accept()
            caller.recv(4096)
            caller.sendall(b"220 hello\r\n")
            os._exit(0)
        expect("socket-of-another-program", "status", "--data", tmp_path)
        os.wait()


@provokes("no-permission")
@pytest.mark.e2e
def test_a_data_directory_that_may_not_be_made(tmp_path: Path) -> None:
    prefix = unprivileged(tmp_path)
    expect("no-permission", "as", *HERE, "--data", tmp_path / "x", prefix=prefix)


@provokes("data-is-a-file")
def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    expect("data-is-a-file", "as", *HERE, "--data", tmp_path / "file")


@provokes("disk-full")
@pytest.mark.e2e
@pytest.mark.parametrize("size", ["4k", "12k", "60k"])
def test_a_full_disk(tmp_path: Path, size: str) -> None:
    """Before the CA is made, between its files, and while the database is."""
    prefix = small_disk(tmp_path, size)
    data = ("--data", tmp_path / "d", "--https-port", free_port())
    expect("disk-full", "as", *HERE, *data, prefix=prefix)


@provokes("port-taken")
@provokes("tls-port-taken")
@provokes("tls-port-of-https")
@provokes("data-in-use")
def test_what_another_program_has_already(everything: tuple[Path, int], tmp_path: Path) -> None:
    data, port = everything
    expect("port-taken", "as", *HERE, "--data", tmp_path, "--https-port", port)
    expect("data-in-use", "as", *HERE, "--data", data)
    tls = ("all", *HERE, *HOME, "--data", tmp_path / "t", "--tls-port", port)
    expect("tls-port-taken", *tls, "--https-port", free_port())
    expect("tls-port-of-https", *tls, "--https-port", port)


@provokes("user-exists")
@provokes("user-unknown")
@provokes("user-impossible")
@provokes("password-short")
@provokes("node-unknown")
@provokes("enrol-impossible-domain")
@provokes("invitation-too-long")
def test_what_the_operator_cannot_have(everything: tuple[Path, int]) -> None:
    data = ("--data", everything[0])
    add = ("user", "add", "--password-stdin", *data)
    expect("password-short", *add, "ann", stdin="short\n")
    expect("user-impossible", *add, "an n", stdin="long enough\n")
    subprocess.run(
        [*TABLE.command, *map(str, add), "ann"], input="long enough\n", text=True, check=True,
        env={"PATH": os.environ["PATH"]}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    expect("user-exists", *add, "ann", stdin="long enough\n")
    expect("user-unknown", "user", "remove", "bob", *data)
    expect("node-unknown", "node", "show", "tablet", *data)
    expect("enrol-impossible-domain", "enrol", "dc", "--domain", "no domain", *data)
    expect("invitation-too-long", "invite", "--expires", "999d", *data)


@provokes("not-the-account-server")
@provokes("domain-changed")
@provokes("enrolment-damaged")
@provokes("ca-damaged")
@provokes("database-damaged")
def test_data_that_is_another_server_s_or_damaged(
    everything: tuple[Path, int], tmp_path: Path
) -> None:
    """A copy of the directory of a running server, as an unlucky backup would be."""
    url = subprocess.run(
        [*TABLE.command, "enrol", "rs", "--dc", "home.test", "--data", str(everything[0])],
        capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]},
    ).stdout.strip()  # fmt: skip
    with running("rs", tmp_path / "rs", "--join", url):
        expect("not-the-account-server", "invite", "--data", tmp_path / "rs")
    copy = tmp_path / "copy"
    shutil.copytree(everything[0], copy, ignore=shutil.ignore_patterns("*.sock"))
    ports = ("--https-port", port := free_port(), "--dns-port", 0, "--udp-port", port)
    start = ("all", *HERE, *ports, "--data", copy)
    expect("domain-changed", *start, "--domain", "lab.test")
    (copy / "dc/enrolment.json").write_text("{")
    expect("enrolment-damaged", *start, *HOME)
    (copy / "as/as.db").write_bytes(b"something else" * 400)
    expect("database-damaged", *start, *HOME)
    (copy / "as/ca.key").write_bytes(b"half")
    expect("ca-damaged", *start, *HOME)


def test_each_complaint_of_the_table_is_provoked() -> None:
    assert TABLE.complete()
