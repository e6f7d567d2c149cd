"""The daemon's process: ``python -m ntmd``, started by ``ntmd up``.

It takes every setting as ``--key=value`` and a mode: ``run`` (the default), ``clean`` (remove what
a killed run left), ``forget`` (leave the platform), ``renew`` (fetch a new certificate). What needs
TLS happens in a process of its own, or before this one replaces itself by the daemon proper, so
that the daemon does not carry that memory around.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import NoReturn

from ntmd.config import Settings, load
from ntmd.nodefiles import NodeFiles
from ntmd.progress import Progress
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.journal import journal, start_logging
from ntmd.slim import begun, slim

LEVELS = {-1: "warning", 0: "info", 1: "debug"}
RESTARTS_MAX = 5  # restarts after a dead plane, each within a minute of the one before
RESTARTS_APART = 60.0

log = journal("ntmd")


class Invocation:
    """The parsed command line."""

    def __init__(self, arguments: list[str]) -> None:
        self.mode = "run"
        self.foreground = False
        self.progress: int | None = None
        self.restarts = 0
        given = {}
        for argument in arguments:
            key, _, value = argument.removeprefix("--").partition("=")
            if key == "foreground":
                self.foreground = True
            elif key == "mode":
                self.mode = value
            elif key in ("progress", "restarts"):
                setattr(self, key, int(value))
            else:
                given[key] = value
        # an abbreviated environment: the command that started us has merged it already
        self.settings: Settings = load(given, os.environ)

    def again(self, restarts: int, progress: int | None = None) -> NoReturn:
        """Replace this process by a fresh one with the same settings, without a join URL."""
        command = [sys.executable, "-I", "-m", "ntmd"]
        command += [a for a in self.settings.arguments() if not a.startswith("--join=")]
        command.append(f"--restarts={restarts}")
        if self.foreground:
            command.append("--foreground")
        if progress is not None:
            os.set_inheritable(progress, True)
            command.append(f"--progress={progress}")
        os.environ.pop("NTMD_JOIN", None)
        os.execv(command[0], command)


def main() -> int:
    """Run one mode; returns the exit code."""
    try:
        invocation = Invocation(sys.argv[1:])
    except (Complaint, ValueError) as error:
        print(f"ntmd: {error}", file=sys.stderr)
        return Exit.USAGE
    start_logging(LEVELS[invocation.settings.verbosity])
    if invocation.mode == "run":
        return run(invocation)
    code: int = Exit.DONE
    try:
        report = HELPERS[invocation.mode](invocation.settings)
    except Complaint as complaint:
        code = complaint.exit_code
        report = {"complaint": complaint.text, "exit_code": code}
    print(json.dumps(report), flush=True)
    return int(code)


def run(invocation: Invocation) -> int:
    """Be the daemon."""
    background = invocation.progress is None and not invocation.foreground
    progress = Progress(invocation.progress, quiet=background)
    begun = time.monotonic()
    try:
        files = NodeFiles(invocation.settings.state)
        files.lock()
        _join(invocation, files, progress)
        _serve(invocation, files, progress)
    except Complaint as complaint:
        log.warning("ended", why=complaint.what)
        progress.complain(complaint)
        return complaint.exit_code
    except _Restart:
        apart = time.monotonic() - begun > RESTARTS_APART
        restarts = 1 if apart else invocation.restarts + 1
        if restarts > RESTARTS_MAX:
            log.warning("the data plane fails again and again; giving up")
            return Exit.FAILED
        log.warning("starting afresh", restarts=restarts)
        invocation.again(restarts, progress.descriptor)
    except Exception as error:  # ours: it goes to the log in full, and to the user in words
        log.failure("the daemon failed", error)
        progress.complain(
            Complaint(
                f"ntmd failed: {type(error).__name__}: {error}.",
                "This is a defect of ntmd, not of your system.",
                f"Please report it with the log {invocation.settings.log_file}.",
            )
        )
        return Exit.FAILED
    return Exit.DONE


class _Restart(Exception):
    """The plane died."""


def _join(invocation: Invocation, files: NodeFiles, progress: Progress) -> None:
    """Enrol at the first start, then go on in a fresh process."""
    settings = invocation.settings
    if files.enrolled():
        if settings.join:
            progress.note("this node has joined already; the join URL is not used")
        return
    if not settings.join:
        raise Complaint(
            "this node has not joined a platform yet.",
            f"There is no enrolment in {settings.state}.",
            "Ask the operator for a join URL (`ntm-server invite`), then: ntmd up --join URL",
        )
    from ntmd.membership import enrol

    enrol(settings, files, progress)
    invocation.again(0, progress.descriptor)


def _serve(invocation: Invocation, files: NodeFiles, progress: Progress) -> None:
    if invocation.settings.plane == "native":
        raise Complaint(
            "the native data plane is not installed.",
            "--plane native was asked for, so nothing else is used in its place.",
            "Use --plane auto or --plane python.",
        )
    slim()
    import asyncio

    from ntmd.daemon import Daemon, PlaneDied
    from ntmd.membership import Membership

    daemon = Daemon(invocation.settings, files, Membership.read(files), progress)
    begun()
    try:
        asyncio.run(daemon.run())
    except PlaneDied:
        raise _Restart from None


def clean(settings: Settings) -> dict[str, object]:
    """Remove what a killed run left."""
    if not settings.state.exists():
        return {"removed": []}
    import asyncio

    from ntmd.platform.linux.device import give_back

    files = NodeFiles(settings.state)
    files.lock()
    return {"removed": asyncio.run(give_back(settings.state))}


def forget(settings: Settings) -> dict[str, object]:
    """Leave the platform: clean, tell the account server, delete the keys."""
    from ntmd.membership import leave

    clean(settings)
    return leave(settings, NodeFiles(settings.state))


def renewal(settings: Settings) -> dict[str, object]:
    """Fetch a new certificate into the state directory."""
    from ntmd.membership import fetch_renewal

    return fetch_renewal(settings, NodeFiles(settings.state))


HELPERS = {"clean": clean, "forget": forget, "renew": renewal}


if __name__ == "__main__":
    sys.exit(main())
