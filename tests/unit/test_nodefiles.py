"""The state directory: one daemon, one key, and clear words about damage."""

import os
from pathlib import Path

import pytest

from ntmd.nodefiles import NodeFiles
from ntmd.runtime.complaints import Complaint


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    files = NodeFiles(tmp_path / "state")
    key = files.key_or_new(os.urandom)
    assert len(key) == 32
    assert NodeFiles(tmp_path / "state").key_or_new(os.urandom) == key
    assert files.key_file.stat().st_mode & 0o777 == 0o600
    assert files.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("cut", [0, 5, 11, 30, 43, 74, 80])
def test_a_damaged_key_is_named_and_never_replaced(tmp_path: Path, cut: int) -> None:
    files = NodeFiles(tmp_path)
    files.key_or_new(os.urandom)
    whole = files.key_file.read_bytes()
    damaged = whole[:cut] if cut < len(whole) else whole + b"x"
    files.key_file.write_bytes(damaged)
    with pytest.raises(Complaint, match="does not hold a node key") as caught:
        files.key_or_new(os.urandom)
    assert str(files.key_file) in caught.value.text
    assert files.key_file.read_bytes() == damaged


def test_a_second_daemon_is_refused_and_told_which_one_runs(tmp_path: Path) -> None:
    first = NodeFiles(tmp_path)
    first.lock()
    with pytest.raises(Complaint, match=f"process {os.getpid()}"):
        NodeFiles(tmp_path).lock()


def test_the_lock_of_a_dead_daemon_holds_nobody_up(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        NodeFiles(tmp_path).lock()
        os._exit(0)
    os.waitpid(child, 0)
    NodeFiles(tmp_path).lock()
    assert (tmp_path / "ntmd.lock").read_text() == f"{os.getpid()}\n"


def test_a_directory_open_to_others_is_closed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    NodeFiles(state)
    assert state.stat().st_mode & 0o777 == 0o700


def test_forgetting_keeps_the_settings_only(tmp_path: Path) -> None:
    files = NodeFiles(tmp_path)
    files.key_or_new(os.urandom)
    files.store().put("self", b"x")
    files.enrolment_file.write_text("{}")
    (tmp_path / "ntmd.toml").write_text("port = 1\n")
    files.forget()
    assert [path.name for path in tmp_path.iterdir()] == ["ntmd.toml"]
    assert not files.enrolled()


@pytest.mark.e2e
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 12345, 12345)
    with pytest.raises(Complaint, match="belongs to another user"):
        NodeFiles(state)
