"""Logs and traces.

A log line is a constant message and ``key=value`` fields; info is what a user would notice, warning
what an operator should look at; no addresses, names or keys above debug. Under systemd
(``JOURNAL_STREAM``) lines carry the ``<N>`` priority prefix and no time of their own.

A trace is a file with one JSON object a line for each input and command of a core; key material is
left out of it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from ntmd.runtime.complaints import file_complaint

PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
OURS = ("ntmd", "ntm_as", "ntm_dc", "ntm_rs", "ntm_server")
SHOWN = 32  # bytes of a datagram or certificate that a trace shows
SECRET = frozenset({"key", "psk", "secret", "resume_psk", "private_key", "token_key", "password"})


class Journal:
    """One module's logger: ``log.info("constant message", field=value)``."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, what: str, **fields: Any) -> None:
        """For whoever looks into a fault."""
        self._say(logging.DEBUG, what, fields)

    def info(self, what: str, **fields: Any) -> None:
        """What a user would notice."""
        self._say(logging.INFO, what, fields)

    def warning(self, what: str, **fields: Any) -> None:
        """What an operator should look at."""
        self._say(logging.WARNING, what, fields)

    def tell(self, level: str, what: str, fields: dict[str, Any]) -> None:
        """A core's ``Tell`` command."""
        self._say(LEVELS.get(level, logging.INFO), what, fields)

    def failure(self, what: str, error: BaseException) -> None:
        """A defect of ours, with its traceback."""
        self._logger.error(what, exc_info=error)

    def _say(self, level: int, what: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            # %-formatting is not used: a name from the network may contain a percent sign
            self._logger.log(level, "%s", _line(what, fields))


def journal(name: str) -> Journal:
    """The journal of a module: ``log = journal(__name__)``."""
    return Journal(name)


def start_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send everything of ``level`` ("debug", "info", "warning") and above to ``stream``."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Lines("JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # of libraries only what matters
    for name in OURS:
        logging.getLogger(name).setLevel(LEVELS[level])


class _Lines(logging.Formatter):
    """``2026-01-01T00:00:00.000 info ntmd.runtime.driver message field=value``."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03d"

    def __init__(self, systemd: bool) -> None:
        super().__init__()
        self._systemd = systemd

    def format(self, record: logging.LogRecord) -> str:
        """One line; control characters from outside cannot make it two."""
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in record.getMessage())
        line = f"{record.levelname.lower()} {record.name} {text}"
        prefix = (
            f"<{PRIORITY.get(record.levelno, 3)}>" if self._systemd else self.formatTime(record)
        )
        line = prefix + line if self._systemd else f"{prefix} {line}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _line(what: str, fields: dict[str, Any]) -> str:
    return " ".join([what, *(f"{key}={_value(value)}" for key, value in fields.items())])


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return json.dumps(text) if not text or " " in text or '"' in text else text


class Trace:
    """``--trace FILE``: JSON lines, one per input and command."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise file_complaint("write the trace", path, error) from error

    def write(self, kind: str, event: Any, now: float) -> None:
        """One line; a full disk ends the trace, never the daemon."""
        if self._file.closed:
            return
        line = {"at": round(now, 6), kind: type(event).__name__, **_fields(event)}
        try:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        except OSError:
            self.close()

    def close(self) -> None:
        """Flush and close."""
        try:
            self._file.close()
        except OSError:
            return


def _fields(event: Any) -> dict[str, Any]:
    value = plain(event, secrets=False, shown=SHOWN)
    return value if isinstance(value, dict) else {"value": value}


def plain(value: Any, secrets: bool = True, shown: int | None = None) -> Any:
    """``value`` as JSON types: bytes in hex, dataclasses as objects.

    Keys only with ``secrets``; of bytes only ``shown``, then how many there are.
    """
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        whole = shown is None or len(value) <= shown
        return bytes(value).hex() if whole else f"{bytes(value[:shown]).hex()}...{len(value)}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = str(value) if "__str__" in type(value).__dict__ else value._asdict()
    if isinstance(value, dict):
        return {
            str(key): "..." if key in SECRET and not secrets else plain(item, secrets, shown)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, secrets, shown) for item in value]
    return str(value)
