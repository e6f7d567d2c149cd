"""``--keylog FILE``: data keys for reading captures. Nothing is written without that option.

One line a key: ``ntm-data <tunnel> <session> <slot> <suite> <in|out> <key in hex>``.
"""

from __future__ import annotations

import os
from pathlib import Path

from ntmd.proto.plane import InstallTunnel
from ntmd.runtime.complaints import file_complaint

KEYS_REMEMBERED = 4096


class KeyLog:
    """Appends each data key once; the file has mode 0600."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise file_complaint("write the key log", path, error) from error
        self._written: dict[tuple[int, bool], None] = {}

    def installed(self, command: InstallTunnel) -> None:
        """Write the keys of a tunnel's entry that were not written before."""
        entry = command.entry
        keys = [(key, False) for key in entry.receive]
        if entry.send is not None:
            keys.append((entry.send, True))
        for key, out in keys:
            if (key.session, out) in self._written:
                continue
            self._written[key.session, out] = None
            direction = "out" if out else "in"
            line = (
                f"ntm-data {entry.tunnel} {key.session} {key.slot} {int(key.suite)} "
                f"{direction} {key.key.hex()}\n"
            )
            try:
                os.write(self._file, line.encode())
            except OSError:
                return  # a full disk ends the key log, never the daemon
        while len(self._written) > KEYS_REMEMBERED:
            del self._written[next(iter(self._written))]
