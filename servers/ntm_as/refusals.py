"""How the account server's core says no."""

from __future__ import annotations


class Refused(Exception):
    """A request was refused: HTTP ``status``, a short name for the reason, and a text.

    The text says what happened and what to do. ``retry_after`` is in seconds, 0 if unknown.
    """

    def __init__(self, status: int, error: str, text: str, retry_after: int = 0) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.text = text
        self.retry_after = retry_after
