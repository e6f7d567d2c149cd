"""The HTTP proxy that connections to servers may have to pass (CONNECT, RFC 9110 section 9.3.6)."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, and the value of ``Proxy-Authorization`` (empty: none)."""

    host: str
    port: int
    authorization: str = ""

    def headers(self) -> dict[str, str]:
        """What goes with CONNECT."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


def parse_proxy(url: str) -> Proxy | None:
    """The proxy in ``http://[USER:PASSWORD@]HOST[:PORT]``; None for an empty text or ``none``.

    ValueError, saying why, for anything else.
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
    return Proxy(parts.hostname, parts.port or 80, login)
