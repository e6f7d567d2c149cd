"""The HTTP proxy that connections to servers may have to pass (CONNECT, RFC 9110 section 9.3.6).

Who is reached without it is what ``NO_PROXY`` means to curl(1) and to Go's ``httpproxy``: a
list of names (each with all names below it), addresses, networks in CIDR notation, each perhaps
with ``:PORT``; ``*`` is every host.
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, the value of ``Proxy-Authorization`` (empty: none), and who needs none."""

    host: str
    port: int
    authorization: str = ""
    exempt: str = ""

    def headers(self) -> dict[str, str]:
        """What goes with CONNECT."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}

    def serves(self, host: str, port: int) -> bool:
        """Whether a connection to ``host`` has to pass it."""
        words = self.exempt.replace(",", " ").lower().split()
        return not any(_covers(word, host.lower().rstrip("."), port) for word in words)


def parse_proxy(url: str, exempt: str = "") -> Proxy | None:
    """The proxy in ``http://[USER:PASSWORD@]HOST[:PORT]``; None for an empty text or ``none``.

    ``exempt`` lists the hosts that need none. ValueError, saying why, for anything else.
    """
    from urllib.parse import unquote, urlsplit  # the command line must start quickly

    if url in ("", "none"):
        return None
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("a proxy is given as http://HOST:PORT")
    login = ""
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = "Basic " + base64.b64encode(login.encode()).decode()
    return Proxy(parts.hostname, parts.port or 80, login, exempt)


def _covers(word: str, host: str, port: int) -> bool:
    """Whether one word of the list means this host."""
    if word == "*":
        return True
    head, colon, last = word.rpartition(":")
    if colon and last.isdecimal() and (":" not in head or head.endswith("]")):
        if last.lstrip("0") != str(port):  # not read as a number: it may have any length
            return False
        word = head
    word = word.strip("[]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(word, strict=False)
    except ValueError:  # one of the two is a name
        name = word.lstrip("*.").rstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
