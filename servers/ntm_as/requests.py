"""Strict, bounded readers of members of a decoded JSON object; :class:`Refused` (400) otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ntm_as.refusals import Refused
from ntmd.proto.types import Endpoint
from ntmd.runtime.enrolment import decode, parse_endpoint

SHORT = 256
ENDPOINTS = 16


def _bad(name: str, why: str) -> Refused:
    return Refused(400, "bad_request", f"the member {name!r} of the request is {why}.")


def texts(asked: Mapping[str, Any], name: str, longest: int, empty: bool = False) -> str:
    """A text of at most ``longest`` characters; absent counts as empty."""
    value = asked.get(name, "")
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        raise _bad(name, "not a text, or too long")
    if not value and not empty:
        raise _bad(name, "missing")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _bad(name, "not Unicode") from None
    return value


def short(asked: Mapping[str, Any], name: str, empty: bool = False) -> str:
    """A text of at most 256 characters."""
    return texts(asked, name, SHORT, empty)


def binary(asked: Mapping[str, Any], name: str, size: int | None = None) -> bytes:
    """Bytes given in base64, ``size`` of them."""
    try:
        return decode(asked.get(name), size)
    except ValueError as error:
        raise _bad(name, str(error)) from None


def endpoints(asked: Mapping[str, Any], name: str = "endpoints") -> tuple[Endpoint, ...]:
    """Up to 16 endpoints, each once; absent counts as none."""
    value = asked.get(name, [])
    if not isinstance(value, list) or len(value) > ENDPOINTS:
        raise _bad(name, "not a list, or too long")
    try:
        return tuple(dict.fromkeys(parse_endpoint(item) for item in value))
    except ValueError as error:
        raise _bad(name, f"wrong: {error}") from None
