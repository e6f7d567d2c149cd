"""Keeps out of the daemon's memory what it never uses: 11 MiB of a budget of 80.

``asyncio`` imports ``ssl`` if it can, and one module of ``pyroute2`` (HTTPS probes) does, but the
daemon speaks no TLS: joining and renewing run in processes of their own. The package ``pyroute2``
imports everything it has (a database of interfaces, conntrack, WireGuard, WiFi ...), but its
modules work without that. Both are arranged here, once, before the daemon's own imports; nothing
else may call this.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import sys
import types

THRESHOLDS = 700, 5, 2  # objects, young collections, middle ones (the usual: 700, 10, 10)


def slim() -> None:
    """Import asyncio and the netlink modules lean; without effect once asyncio is imported."""
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # makes `import ssl` fail
    import asyncio  # noqa: F401 - it takes the failure for a Python without OpenSSL

    sys.modules["ssl"] = types.ModuleType("ssl")  # an empty one satisfies the HTTPS probe
    _bare_package("pyroute2")
    import ntmd.platform.linux.rtnl  # noqa: F401

    del sys.modules["ssl"]


def _bare_package(name: str) -> None:
    """Put a package into the table of modules without running its ``__init__``."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        package = types.ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules[name] = package


def begun() -> None:
    """What is there now stays to the end; what comes later is soon looked through for cycles.

    A dump of the kernel's state is cycles of objects. With the usual thresholds those of many
    changes wait together for a full collection, with what is kept for longer between them: holes in
    Python's arenas, which no ``malloc_trim`` gives back. Full collections leave out what is frozen
    and are cheap (0.2 ms for 10,000 objects); where much is held they stay rare, for CPython also
    waits until a quarter is new.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def give_back() -> None:
    """Return to the system what the allocator keeps for later; without effect but with glibc.

    Reading the kernel's state after each of many changes leaves holes in the heap: 5 MiB of RSS
    after a hundred moves (malloc_trim(3)).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    gc.collect()
    if trim is not None:
        trim(0)
