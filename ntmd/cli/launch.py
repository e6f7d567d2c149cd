"""Starting the daemon, and following its progress until the node is usable.

The daemon is ``python -m ntmd`` in a session of its own. It reports over a pipe, one JSON object a
line: ``{"step": text}``, ``{"note": text}``, then ``{"usable": {...}}`` or ``{"complaint": text,
"exit_code": n}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from ntmd.config import Settings
from ntmd.runtime.complaints import Complaint, Exit, file_complaint

LOG_MAX = 4 << 20  # a longer log is moved aside when the daemon starts
SILENCE_MAX = 60.0


def daemon_command(settings: Settings, *more: str) -> list[str]:
    """The command line of a daemon with these settings."""
    return [sys.executable, "-I", "-m", "ntmd", *settings.arguments(), *more]


def run_in_foreground(settings: Settings) -> NoReturn:
    """Become the daemon."""
    command = daemon_command(settings, "--foreground")
    sys.stdout.flush()
    os.execv(command[0], command)


def start(settings: Settings) -> dict[str, Any]:
    """Start a daemon in the background; returns what it says of itself once it is usable."""
    log = _open_log(settings)
    reading, writing = os.pipe()
    try:
        command = daemon_command(settings, f"--progress={writing}")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(writing)
        if log != subprocess.DEVNULL:
            os.close(log)
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        return _follow(pipe, process, settings)


def _open_log(settings: Settings) -> int:
    path = settings.log_file
    try:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_MAX:
            path.rename(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise Complaint(
            f"{settings.state} is not a directory.",
            "State cannot be kept there.",
            "Choose another directory with --state.",
        ) from error
    except OSError as error:
        raise file_complaint("write the log", path, error) from error


def _follow(pipe: Any, process: subprocess.Popen[bytes], settings: Settings) -> dict[str, Any]:
    for line in pipe:
        try:
            report = json.loads(line)
        except ValueError:
            continue
        if "step" in report and settings.verbosity >= 0:
            click.echo(f"  {report['step']}", err=True)
        if "note" in report:
            click.echo(f"note: {report['note']}", err=True)
        if "complaint" in report:
            raise Complaint(str(report["complaint"]), exit_code=int(report.get("exit_code", 1)))
        if "usable" in report:
            return dict(report["usable"])
    raise _died(process, settings.log_file)


def _died(process: subprocess.Popen[bytes], log: Path) -> Complaint:
    try:
        code: object = process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        code = "unknown"
    return Complaint(
        f"the daemon ended before it was usable (exit code {code}).",
        "The node is not up.",
        f"Its log says why: {log}",
    )


def run_helper(settings: Settings, mode: str) -> dict[str, Any]:
    """Run ``python -m ntmd --mode=MODE`` to its end; returns its last report.

    Modes: ``clean`` removes what a killed run left, ``forget`` removes the node for good.
    """
    result = subprocess.run(
        daemon_command(settings, f"--mode={mode}"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SILENCE_MAX,
        check=False,
    )
    last: dict[str, Any] = {}
    for line in result.stdout.decode("utf-8", "replace").splitlines():
        try:
            last = json.loads(line)
        except ValueError:
            continue
        if "step" in last and settings.verbosity >= 0:
            click.echo(f"  {last['step']}", err=True)
    if "complaint" in last:
        raise Complaint(str(last["complaint"]), exit_code=int(last.get("exit_code", Exit.FAILED)))
    if result.returncode:
        raise Complaint(
            f"cleaning up failed (exit code {result.returncode}).",
            result.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2],
            "Run the command again with -v; `ip link` and /etc/resolv.conf show what is left.",
        )
    return last


def wait_until_gone(pid: int, seconds: float) -> bool:
    """Whether the process ends within that time; one that nobody has reaped yet has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False
