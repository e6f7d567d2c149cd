"""A port mapping by UPnP IGD, in a process of its own: ``python -m ntmd.platform.linux.igd``.

``igd LOCAL_ADDRESS PORT LIFETIME`` maps the UDP port (``LIFETIME`` 0: gives it back) and prints one
line of JSON: ``host``, ``port``, ``lifetime``, or ``why`` there is none. miniupnpc parses what any
device of the local network sends; here it can at most end this process.
"""

from __future__ import annotations

import json
import sys
from typing import Any

DISCOVERY_MS = 2000
DESCRIPTION = "ntmd"
TRIES = 4  # outside ports, if the wished one is taken


def main() -> None:
    """Print what came of it."""
    local, port, lifetime = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    try:
        answer = ask(local, port, lifetime)
    except Exception as error:  # a C library of many moods: whatever it says is the reason
        answer = {"why": str(error) or type(error).__name__}
    print(json.dumps(answer), flush=True)


def ask(local: str, port: int, lifetime: int) -> dict[str, Any]:
    """Find the router and ask it; raises whatever the library raises."""
    try:
        import miniupnpc
    except ImportError:
        return {"why": "miniupnpc is not installed"}
    router = miniupnpc.UPnP(local)
    router.discoverdelay = DISCOVERY_MS
    if not router.discover():
        return {"why": "no UPnP device answers"}
    router.selectigd()
    if router.lanaddr != local:
        return {"why": f"the router answers to {router.lanaddr}, not to {local}"}
    ports = [port, *(1024 + (port * 7919 + n * 104_729) % 64_000 for n in range(1, TRIES))]
    if lifetime == 0:
        for wished in ports:
            if _owner(router, wished) == (local, port):
                router.deleteportmapping(wished, "UDP")
        return {"why": "given back"}
    outside = router.externalipaddress()
    for wished in ports:
        if _owner(router, wished) in (None, (local, port)) and _map(
            router, wished, (local, port), lifetime
        ):
            return {"host": outside, "port": wished, "lifetime": lifetime}
    return {"why": "the router has no free port"}


def _owner(router: Any, port: int) -> tuple[str, int] | None:
    """Whom an outside port is mapped to."""
    entry = router.getspecificportmapping(port, "UDP")
    return None if not entry else (entry[0], entry[1])


def _map(router: Any, wished: int, inside: tuple[str, int], lifetime: int) -> bool:
    try:
        return bool(router.addportmapping(wished, "UDP", *inside, DESCRIPTION, "", lifetime))
    except Exception as error:
        if "OnlyPermanentLeases" not in str(error):  # error 725 of WANIPConnection:1
            raise
        return bool(router.addportmapping(wished, "UDP", *inside, DESCRIPTION, "", 0))


if __name__ == "__main__":
    main()
