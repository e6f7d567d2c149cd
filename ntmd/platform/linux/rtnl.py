"""The part of pyroute2 that the daemon needs (:mod:`ntmd.slim` keeps the rest out of it)."""

from __future__ import annotations

from pyroute2.iproute.linux import AsyncIPRoute, IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

__all__ = ["AsyncIPRoute", "IPRoute", "NetlinkDumpInterrupted", "NetlinkError"]
