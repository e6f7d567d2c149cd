"""Several addresses of one server: the first that answers wins (Happy Eyeballs, RFC 8305)."""

from __future__ import annotations

import errno
import ipaddress
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

STAGGER = 0.25  # seconds until the next address gets its chance (RFC 8305 section 5)
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Closable(Protocol):
    """What an attempt makes."""

    def close(self) -> None:
        """Give it up."""


Made = TypeVar("Made", bound=Closable)


def interleaved(hosts: Sequence[str]) -> tuple[str, ...]:
    """The hosts without repetitions, families in turn, beginning with the first one's."""
    rest, ordered = list(dict.fromkeys(hosts)), list[str]()
    while rest:
        last = _family(ordered[-1]) if ordered else 0
        other = next((host for host in rest if _family(host) != last), rest[0])
        rest.remove(other)
        ordered.append(other)
    return tuple(ordered)


def race(hosts: Sequence[str], connect: Callable[[str], Made]) -> tuple[str, Made]:
    """Run ``connect(host)`` for each host until one succeeds; the host and what it made.

    The next attempt begins :data:`STAGGER` after the one before, or when that failed; attempts
    that come too late are closed. If all fail, the OSError that says most is raised.
    """
    if len(hosts) == 1:
        return hosts[0], connect(hosts[0])
    results: queue.SimpleQueue[tuple[str, Made | None, OSError | None]] = queue.SimpleQueue()
    over, claim = threading.Event(), threading.Lock()

    def attempt(host: str) -> None:
        try:
            made = connect(host)
        except OSError as error:
            results.put((host, None, error))
            return
        with claim:
            late = over.is_set()
            over.set()
        if late:
            made.close()
        else:
            results.put((host, made, None))

    untried, errors = list(hosts), list[OSError]()
    while len(errors) < len(hosts):
        if untried:
            threading.Thread(target=attempt, args=(untried.pop(0),), daemon=True).start()
        try:
            host, made, error = results.get(timeout=STAGGER if untried else None)
        except queue.Empty:
            continue
        if made is not None:
            return host, made
        if error is not None:
            errors.append(error)
    raise min(errors, key=_dullness)


def _dullness(error: OSError) -> int:
    """A refused certificate says more than a refused connection, and that more than no route."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return 0
    return 2 if error.errno in NO_ROUTE else 1


def _family(host: str) -> int:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 4
