"""Keeps out of the daemon's memory what it never uses: 11 MiB of a budget of 80.

``asyncio`` imports ``ssl`` if it can, but the daemon speaks no TLS (joining and renewing run in
processes of their own). The package ``pyroute2`` imports everything it has (a database of
interfaces, conntrack, WireGuard, WiFi ...), but its modules work without that. Both are arranged
here, once, before the daemon's own imports; nothing else may call this.
"""

from __future__ import annotations

import importlib.util
import sys
import types


def slim() -> None:
    """Arrange the imports of this process; without effect on what is imported already."""
    if "asyncio" not in sys.modules and "ssl" not in sys.modules:
        sys.modules["ssl"] = None  # type: ignore[assignment]  # makes `import ssl` fail
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        if spec is not None and spec.submodule_search_locations is not None:
            package = types.ModuleType("pyroute2")
            package.__path__ = list(spec.submodule_search_locations)
            package.__spec__ = spec
            sys.modules["pyroute2"] = package
