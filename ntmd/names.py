"""Names of the platform on this machine: the stub resolver and resolv.conf, as one part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ntmd.node.commands import NameAnswered
from ntmd.node.inputs import NameAsked
from ntmd.platform import Names, Platform
from ntmd.platform.linux.names import StubResolver
from ntmd.platform.linux.resolvconf import system_resolvers
from ntmd.runtime.clock import wall_ms
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.journal import journal

log = journal(__name__)


class Resolver:
    """Starts once the TUN has its addresses; keeps resolv.conf right while up."""

    def __init__(self, mode: str, platform: Platform, asked: Callable[[NameAsked], None]) -> None:
        self.note = ""
        self._since = 0
        self._mode = mode
        self._platform = platform
        self._asked = asked
        self._stub: StubResolver | None = None
        self._names = Names("off")
        self._domains: tuple[str, ...] = ()

    async def start(self, address: str, domains: tuple[str, ...]) -> None:
        """Serve ``domains`` at ``address``; a port that is taken is a note, not a failure."""
        self._domains = domains
        if self._mode != "off" and (self._stub is None or self._stub.address != address):
            self.close()
            try:
                stub = StubResolver(address, self._asked)
                await stub.start()
            except Complaint as complaint:
                self.note = f"names of the platform do not resolve: {complaint.text}"
                log.warning("no stub resolver", why=complaint.what)
                return
            self._stub = stub
        self.refresh()

    def refresh(self) -> None:
        """Look at resolv.conf again: another program may have written it."""
        if self._stub is None:
            return
        try:
            self._names = self._platform.intercept_names(
                self._mode, self._stub.address, self._domains
            )
            self.note = self._names.note
        except Complaint as complaint:
            self._names = Names("off")
            self.note = f"names of the platform do not resolve: {complaint.text}"
            log.warning("resolv.conf is not ours", why=complaint.what)
        self._stub.serve(self._domains, self._names.upstreams)

    def answered(self, command: NameAnswered) -> None:
        """The core's answer."""
        if self._stub is not None:
            self._stub.answered(command)

    @property
    def counters(self) -> Mapping[str, int]:
        """What the stub resolver counted as lost; questions served are no drops."""
        if self._stub is None:
            return Counter()
        served = ("dns_forwarded", "dns_own")
        return {key: n for key, n in self._stub.counters.items() if key not in served}

    def resolvers(self) -> tuple[str, ...]:
        """The system's own resolvers, without the stub."""
        return self._names.upstreams or system_resolvers()

    def status(self) -> dict[str, Any]:
        """The ``dns`` part of the status."""
        address = None if self._stub is None else self._stub.address
        return {"mode": self._names.mode, "address": address, "domains": list(self._domains)}

    def health(self) -> list[dict[str, Any]]:
        """A note if names do not resolve although they should."""
        if not self.note:
            self._since = 0
            return []
        self._since = self._since or wall_ms() // 1000
        return [{"code": "names", "severity": "warning", "text": self.note, "since": self._since}]

    def close(self) -> None:
        """Stop serving."""
        if self._stub is not None:
            self._stub.close()
            self._stub = None
