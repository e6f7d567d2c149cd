"""Reads what was kept as JSON over a restart: a damaged row is refused, not believed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ntmd.proto.types import Endpoint

UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading a row that somebody else wrote may raise."""


def endpoints_of(rows: Iterable[Any]) -> tuple[Endpoint, ...]:
    """Endpoints from pairs of address and port; raises one of :data:`UNREADABLE`."""
    return tuple(Endpoint.unpack(Endpoint(str(host), int(port)).pack()) for host, port in rows)
