"""Files that must survive a power cut: written whole or not at all, read with clear errors.

A file is written beside its final name, synced, and renamed; so at any instant there is the old
content or the new one. Directories are made with mode 0700, files with 0600. A file that cannot be
understood is named in the complaint and never overwritten.

A *store* is a directory that keeps small values by key, one file each: a first line
``ntmd-value 1 <sha256 of the rest>`` and then the value as it is.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import quote, unquote

from ntmd.runtime.complaints import Complaint, file_complaint

MAGIC = b"ntmd-value 1 "
SUFFIX = ".value"
PARTIAL = ".partial"


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make ``path`` (and parents) unless it is there; complains if that is impossible."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except FileExistsError:
        raise Complaint(
            f"{path} is not a directory.",
            "State cannot be kept there.",
            "Choose another directory, or move that file away.",
        ) from None
    except OSError as error:
        raise file_complaint("make the directory", path, error) from error


class Room:
    """Room on the disk for ``size`` bytes of a file that gets its content later; a context.

    Taken beside ``path``, synced, and given back at the end; complains if there is none.
    """

    def __init__(self, path: Path, size: int, mode: int = 0o600) -> None:
        self.path = path
        self._partial = path.with_name(path.name + PARTIAL)
        self._open = -1
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._open = os.open(self._partial, flags, mode)
            os.fchmod(self._open, mode)
            if size:
                self._write(bytes(size))
        except OSError as error:
            self.__exit__()
            raise file_complaint("write", path, error) from error

    def put(self, data: bytes) -> None:
        """Make ``data`` the content of the file: write, sync, rename, sync the directory."""
        try:
            self._write(data)
            os.rename(self._partial, self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise file_complaint("write", self.path, error) from error

    def _write(self, data: bytes) -> None:
        os.lseek(self._open, 0, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(self._open, view) :]
        os.ftruncate(self._open, len(data))
        os.fsync(self._open)

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open >= 0:
            os.close(self._open)
            discard(self._partial)


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``: write beside it, sync, rename, sync the directory."""
    with Room(path, 0, mode) as room:
        room.put(data)


def read_file(path: Path, limit: int = 1 << 20) -> bytes:
    """Content of ``path``; complains, naming it, when it cannot be read or is too long."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise file_complaint("read", path, error) from error
    if len(data) > limit:
        raise damaged(path, f"it is longer than {limit} bytes")
    return data


def damaged(path: Path, why: str) -> Complaint:
    """The complaint about a file that is not what its name says."""
    return Complaint(
        f"{path} cannot be used: {why}.",
        "It was not written by this program, or was cut short; it is left as it is.",
        "Restore it from a backup, or move it away and try again.",
    )


def remove_file(path: Path) -> None:
    """Remove ``path`` for good; a file that is not there is fine."""
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise file_complaint("remove", path, error) from error


def discard(path: Path) -> None:
    """Remove a left-over without complaining."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def sync_directory(path: Path) -> None:
    """Make renames and removals in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileStore:
    """Small values by key in one directory, each in a file of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make_directory(directory)

    def path(self, key: str) -> Path:
        """File of ``key``; characters that a file name should not have become ``%xx``."""
        return self.directory / (quote(key, safe="") + SUFFIX)

    def put(self, key: str, value: bytes | None) -> None:
        """Keep ``value`` under ``key`` durably; None removes it."""
        if value is None:
            remove_file(self.path(key))
            return
        digest = hashlib.sha256(value).hexdigest().encode()
        write_file(self.path(key), MAGIC + digest + b"\n" + value)

    def read_all(self) -> dict[str, bytes]:
        """Every value; left-overs of interrupted writes are removed, damage is complained about."""
        values = {}
        for path in sorted(self.directory.iterdir()):
            if path.name.endswith(PARTIAL):
                discard(path)
            elif path.name.endswith(SUFFIX):
                values[_key_of(path)] = _checked(path)
        return values


def _key_of(path: Path) -> str:
    try:
        return unquote(path.name.removesuffix(SUFFIX), errors="strict")
    except UnicodeDecodeError:
        raise damaged(path, "its name is not one of ours") from None


def _checked(path: Path) -> bytes:
    head, newline, value = read_file(path, 4 << 20).partition(b"\n")
    if not newline or not head.startswith(MAGIC):
        raise damaged(path, "it has no proper first line")
    if head[len(MAGIC) :].decode("ascii", "replace") != hashlib.sha256(value).hexdigest():
        raise damaged(path, "its checksum is wrong")
    return value
