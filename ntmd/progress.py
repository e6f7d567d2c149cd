"""How the daemon reports while it starts: to the command that started it, or to a terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ntmd.runtime.complaints import Complaint


class Progress:
    """Reports over a pipe (``descriptor``), or, without one, as text on stderr and stdout."""

    def __init__(self, descriptor: int | None = None, quiet: bool = False) -> None:
        self._descriptor = descriptor
        self._quiet = quiet
        self.pending = True  # whether the last report is still to come
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    @property
    def descriptor(self) -> int | None:
        """The pipe, while somebody may still read it."""
        return self._descriptor

    def step(self, text: str) -> None:
        """Something was done."""
        self._report({"step": text}, f"  {text}")

    def note(self, text: str) -> None:
        """Something that the user should know although it goes on."""
        self._report({"note": text}, f"note: {text}")

    def usable(self, node: dict[str, Any]) -> None:
        """The node is usable; the last report."""
        self._report({"usable": node}, "")
        if self._descriptor is None and not self._quiet:
            print(f"up: {node['name']} {node['address']} on {node['interface']}", flush=True)
        self.close()

    def complain(self, complaint: Complaint) -> None:
        """The node cannot be brought up; the last report."""
        report = {"complaint": complaint.text, "exit_code": complaint.exit_code}
        self._report(report, f"ntmd: {complaint.text}", loud=True)
        self.close()

    def close(self) -> None:
        """Nobody is told anything any more."""
        self.pending = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._quiet = True

    def _report(self, report: dict[str, Any], text: str, loud: bool = False) -> None:
        if self._descriptor is not None:
            try:
                os.write(self._descriptor, json.dumps(report).encode() + b"\n")
            except OSError:  # the command was interrupted; the daemon goes on
                self.close()
        elif text and (loud or not self._quiet):
            print(text, file=sys.stderr, flush=True)
