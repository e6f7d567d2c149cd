"""The file of :mod:`ntm_rs.recall`: written beside the loop, and never a reason not to serve."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ntm_rs.recall import PLACES_KEY
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.journal import journal
from ntmd.runtime.statefiles import FileStore

DIRECTORY = "recall"  # below the relay's own: what is damaged here must not stop its store

log = journal(__name__)


class PlacesFile:
    """One value, replaced as a whole; whatever goes wrong with it is said, and that is all.

    A thread writes, because the disk may take longer than a datagram may wait; of values that come
    meanwhile the newest is written next.
    """

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._directory = directory / DIRECTORY
        self._loop = loop
        self._next: bytes | None = None
        self._writer: asyncio.Task[None] | None = None
        self._failed = False

    def read(self) -> dict[str, bytes]:
        """What was kept: one value, or none."""
        try:
            found = FileStore(self._directory).read_all()
        except (Complaint, OSError) as error:
            why = error.what if isinstance(error, Complaint) else str(error)
            log.warning("places of nodes cannot be read", why=why)
            return {}
        return {PLACES_KEY: found[PLACES_KEY]} if PLACES_KEY in found else {}

    def put(self, value: bytes) -> None:
        """Keep ``value`` soon."""
        self._next = value
        if self._writer is None:
            self._writer = self._loop.create_task(self._write())

    async def close(self) -> None:
        """Return when the last value is written."""
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        while self._next is not None:
            value, self._next = self._next, None
            try:
                await self._loop.run_in_executor(None, self._put, value)
            except (Complaint, OSError) as error:
                if not self._failed:
                    why = error.what if isinstance(error, Complaint) else str(error)
                    log.warning("places of nodes cannot be stored", why=why)
                self._failed = True
            else:
                self._failed = False
        self._writer = None

    def _put(self, value: bytes) -> None:
        FileStore(self._directory).put(PLACES_KEY, value)
