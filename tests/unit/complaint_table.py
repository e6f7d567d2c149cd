"""A committed table of complaints, and the check that each of them is provoked by a test.

The tables are ``complaints.json`` beside the tests: id, exit code, words that name the cause, words
that name the next step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

LIMIT = 10.0  # seconds that a complaint may take
NOBODY = 65534


class ComplaintTable:
    """One table, and the command whose complaints are in it."""

    def __init__(self, path: Path, module: str) -> None:
        entries = json.loads(path.read_text(encoding="utf-8"))
        self.entries: dict[str, dict[str, Any]] = {entry["id"]: entry for entry in entries}
        assert len(entries) == len(self.entries)
        self.provoked: set[str] = set()
        program = f"import sys; from {module} import run; sys.exit(run(sys.argv[1:]))"
        self.command = [sys.executable, "-c", program]

    def provokes(self, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Marks the test that provokes the complaint ``name`` of the table."""
        assert name in self.entries
        self.provoked.add(name)
        return lambda function: function

    def expect(
        self,
        name: str,
        *arguments: object,
        prefix: tuple[str, ...] = (),
        stdin: str | None = None,
        **env: str,
    ) -> None:
        """Run the command with these arguments and compare with the table."""
        entry = self.entries[name]
        begin = time.monotonic()
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        done = subprocess.run(
            [*prefix, *self.command, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=LIMIT + 5,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env},
            check=False,
            **given,
        )
        took = time.monotonic() - begin
        said = done.stderr
        assert done.returncode == entry["exit_code"], said
        assert entry["cause"] in said, said
        assert entry["next"] in said, said
        assert "Traceback" not in said + done.stdout
        assert took < LIMIT, f"{took:.1f} s"

    def complete(self) -> bool:
        """Whether every complaint of the table is provoked."""
        return set(self.entries) == self.provoked


def unprivileged(path: Path) -> tuple[str, ...]:
    """Prefix that runs a command as nobody, who may look into ``path``."""
    for directory in (path, *path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def small_disk(path: Path, size: str) -> tuple[str, ...]:
    """Prefix that runs a command where ``path`` is a disk of that size (tmpfs)."""
    script = f'mount -t tmpfs -o size={size} none {path} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def written(file: IO[str]) -> str:
    """All that a program has written to this file of ours."""
    file.seek(0)
    return file.read()
