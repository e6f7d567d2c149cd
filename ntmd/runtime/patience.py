"""A store of a server that goes on while the disk is full."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ntmd.runtime.complaints import Complaint
from ntmd.runtime.journal import journal
from ntmd.runtime.statefiles import FileStore

RETRY = 2.0  # seconds between attempts to write what could not be written

log = journal(__name__)


class PatientStore(FileStore):
    """What cannot be written is said once, kept in memory, and tried again until it can.

    For values that only a restart needs: a server that serves is worth more than one that ended.
    ``failures`` counts attempts; ``waiting`` is the number of keys not on disk.
    """

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(directory)
        self.failures = 0
        self._loop = loop
        self._waiting: dict[str, bytes | None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Keys whose last value is not on disk."""
        return len(self._waiting)

    def put(self, key: str, value: bytes | None) -> None:
        """Keep ``value`` under ``key``, now or as soon as it can be written; None removes it."""
        self._waiting[key] = value
        self._write()

    def close(self) -> None:
        """Try a last time, then give up."""
        if self._waiting:
            self._write()
        if self._timer is not None:
            self._timer.cancel()

    def _write(self) -> None:
        failed = self.failures
        for key, value in list(self._waiting.items()):
            try:
                super().put(key, value)
            except Complaint as complaint:
                if failed == 0 and self.failures == 0:
                    log.warning("state cannot be stored", why=complaint.what)
                self.failures += 1
                self._arm()
                return
            del self._waiting[key]
        if failed:
            log.info("state can be stored again")
        self.failures = 0

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(RETRY, self._write)
