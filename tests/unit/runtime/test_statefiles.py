"""State files are written whole or not at all, and damage is named, never overwritten."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.runtime import statefiles
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.statefiles import FileStore, Room, read_file, write_file


def test_written_files_have_their_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_file(tmp_path / "key", b"secret")
        store = FileStore(tmp_path / "store")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert store.directory.stat().st_mode & 0o777 == 0o700


def test_a_full_disk_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Complaint, match="disk is full") as caught:
        write_file(path, b"new content")
    assert str(path) in caught.value.text
    assert "free some space" in caught.value.text
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_room_is_taken_before_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with Room(path, 5000) as room:
        (partial,) = tmp_path.iterdir()
        assert partial.stat().st_blocks * 512 >= 5000
        room.put(b"content")
    assert path.read_bytes() == b"content"
    with pytest.raises(KeyError), Room(path, 5000):
        raise KeyError
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"content"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Complaint, match="does not exist") as caught:
        read_file(tmp_path / "absent")
    assert str(tmp_path / "absent") in caught.value.text


def test_a_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(Complaint, match="is not a directory"):
        FileStore(tmp_path / "x")


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=200), max_size=6))
def test_what_is_stored_comes_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, bytes]
) -> None:
    store = FileStore(tmp_path_factory.mktemp("store"))
    for key, value in values.items():
        store.put(key, value)
    assert FileStore(store.directory).read_all() == values


def test_a_key_is_one_file_and_can_be_removed(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put("peer/desk.home.test", b"1")
    store.put("peer/desk.home.test", b"2")
    assert len(list(tmp_path.iterdir())) == 1
    store.put("peer/desk.home.test", None)
    store.put("never there", None)
    assert store.read_all() == {}


@pytest.mark.parametrize(
    "damage",
    [b"", b"ntmd-value 1 ", b"#!/bin/sh\necho", b"ntmd-value 1 " + b"0" * 64 + b"\nvalue"],
)
def test_a_damaged_value_is_named_and_left_alone(tmp_path: Path, damage: bytes) -> None:
    store = FileStore(tmp_path)
    store.put("self", b"value")
    path = store.path("self")
    path.write_bytes(damage)
    with pytest.raises(Complaint, match="cannot be used") as caught:
        store.read_all()
    assert str(path) in caught.value.text
    assert path.read_bytes() == damage


def test_the_left_over_of_an_interrupted_write_is_cleared_away(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put("self", b"value")
    left = tmp_path / (store.path("self").name + statefiles.PARTIAL)
    left.write_bytes(b"half")
    assert store.read_all() == {"self": b"value"}
    assert not left.exists()
