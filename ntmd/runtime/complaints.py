"""A complaint: what went wrong, what that means, and what the user can do about it.

It is the only exception that is shown to a user as it is; everything else that reaches the top is
a defect of ours. Exit codes are those of ``docs/operations.md``.
"""

from __future__ import annotations

import enum
import errno


class Exit(enum.IntEnum):
    """Exit codes of all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    UNREACHABLE = 4
    NO_PERMISSION = 5


class Complaint(Exception):
    """Something the user has to know. Three sentences, each may be empty but the first.

    ``what`` happened, what that ``means``, what to ``do``; ``exit_code`` ends the command.
    """

    def __init__(
        self, what: str, means: str = "", do: str = "", exit_code: int = Exit.FAILED
    ) -> None:
        self.what = what
        self.means = means
        self.do = do
        self.exit_code = int(exit_code)
        super().__init__(self.text)

    @property
    def text(self) -> str:
        """All three, one a line."""
        return "\n".join(part for part in (self.what, self.means, self.do) if part)


REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space there, then run the command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space there, then try again"),
    errno.EROFS: ("the file system is read-only", "choose a writable directory"),
    errno.EACCES: ("permission denied", "run the command as root, or as the files' owner"),
    errno.EPERM: ("operation not permitted", "run the command as root, or as the files' owner"),
    errno.ENOENT: ("it does not exist", "check the path for typing errors"),
    errno.EIO: ("the device reports an input/output error", "check the disk (see dmesg)"),
}


def file_complaint(doing: str, path: object, error: OSError) -> Complaint:
    """The complaint about a failed file operation, naming the file."""
    reason, advice = REASONS.get(
        error.errno or 0, (error.strerror or str(error), "look at the file and its directory")
    )
    code = Exit.NO_PERMISSION if isinstance(error, PermissionError) else Exit.FAILED
    return Complaint(
        f"cannot {doing} {path}: {reason}.", "Nothing was changed.", f"To go on: {advice}.", code
    )
