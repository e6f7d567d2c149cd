"""What a node keeps in its state directory, and the lock that makes it one daemon's.

====================== =========================================================================
``node.key``           the static X25519 key (32 bytes, checked), mode 0600, never leaves the node
``enrolment.json``     what the account server answered at join: name, certificates, coordinator
``store/``             what the core remembers: peers, relays, own record, the high-water mark of
                       initiation sequences (rule C10); one file per key
``run.json``           what the present run made in the kernel (:mod:`ntmd.platform.linux.device`)
``resolv.conf.saved``  the resolv.conf from before
``ntmd.lock``          held while a daemon runs; contains its process id
``ntmd.log``           log of a daemon in the background
``ntmd.toml``          settings, if the user wrote any
====================== =========================================================================
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ntmd.runtime.complaints import Complaint, file_complaint
from ntmd.runtime.statefiles import (
    FileStore,
    damaged,
    make_directory,
    read_file,
    remove_file,
    write_file,
)

KEY_SIZE = 32
KEY_MAGIC = b"ntmd-key 1\n"


class NodeFiles:
    """The state directory ``state``; made with mode 0700 if it is not there."""

    def __init__(self, state: Path) -> None:
        self.state = state
        make_directory(state)
        self._check_owner()
        self.key_file = state / "node.key"
        self.enrolment_file = state / "enrolment.json"
        self._lock = -1

    def _check_owner(self) -> None:
        status = self.state.stat()
        if status.st_uid not in (0, os.geteuid()):
            raise Complaint(
                f"{self.state} belongs to another user (uid {status.st_uid}).",
                "Whoever owns it could replace the keys of this node.",
                f"Choose another directory with --state, or: chown -R root {self.state}",
            )
        if status.st_mode & 0o077:
            try:
                self.state.chmod(0o700)
            except OSError as error:
                raise file_complaint("protect", self.state, error) from error

    def lock(self) -> None:
        """Make this process the only daemon of the directory, until it ends."""
        path = self.state / "ntmd.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise file_complaint("open", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise Complaint(
                f"another ntmd (process {owner}) uses {self.state}.",
                "Two daemons cannot share one state directory.",
                "`ntmd down` ends that one; or choose another directory with --state.",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def enrolled(self) -> bool:
        """Whether this node has joined a platform."""
        return self.enrolment_file.exists()

    def key(self) -> bytes:
        """The node's private key; complains about a file that holds none."""
        data = read_file(self.key_file)
        body = data.removeprefix(KEY_MAGIC)
        key, check = body[:KEY_SIZE], body[KEY_SIZE:]
        if not data.startswith(KEY_MAGIC) or check != hashlib.sha256(key).digest():
            raise damaged(self.key_file, "it does not hold a node key")
        return key

    def key_or_new(self, random: Callable[[int], bytes]) -> bytes:
        """The node's private key, made now if there is none. A damaged one is never replaced."""
        if not self.key_file.exists():
            key = random(KEY_SIZE)
            write_file(self.key_file, KEY_MAGIC + key + hashlib.sha256(key).digest())
        return self.key()

    def store(self) -> FileStore:
        """The core's memory."""
        return FileStore(self.state / "store")

    def forget(self) -> None:
        """Delete everything that makes this directory a node, keys first; keep the settings."""
        remove_file(self.key_file)
        for name in ("enrolment.json", "ntmd.log", "ntmd.log.1"):
            remove_file(self.state / name)
        shutil.rmtree(self.state / "store", ignore_errors=True)
