"""The TLS port of a server process (rule S12): bound first, opened once there is a certificate.

In ``all`` the account server's certificate is shown, and its HTTPS is offered here too; a
coordinator or relay alone has one of its own from the account server.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntm_server.membership import ServerFiles
from ntm_server.options import Settings, usage
from ntmd.proto.stream import ALPN_ACCOUNT
from ntmd.proto.types import Endpoint
from ntmd.runtime.account import ServerTls
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.journal import journal
from ntmd.runtime.stream_server import StreamListener

if TYPE_CHECKING:
    from ntm_as.shell import AsServer

log = journal(__name__)


class TlsPort:
    """``listener`` is None where there is none; ``error`` says why, if it was meant to be."""

    def __init__(self, settings: Settings, roles: tuple[str, ...]) -> None:
        self.listener: StreamListener | None = None
        self.error = ""
        self._settings = settings
        self._wanted = settings.tls_port != 0 and roles != ("as",)
        self._shared = "as" in roles
        self._certificate: Path | None = None

    def bind(self) -> None:
        """Take the port; what was not asked for by name may fail, with a warning."""
        settings = self._settings
        if not self._wanted:
            return
        try:
            if self._shared and settings.tls_port == settings.https_port:
                raise usage(
                    f"HTTPS and TLS cannot both have the port {settings.tls_port}. The TLS port "
                    "serves HTTPS as well: choose another --https-port, or --tls-port 0."
                )
            loop = asyncio.get_running_loop()
            self.listener = StreamListener(settings.listen, settings.tls_port, loop)
        except Complaint as complaint:
            if settings.tls_asked:
                raise
            self.error = complaint.what
            log.warning(
                "no TLS port: nodes in networks that block UDP cannot be served",
                port=settings.tls_port,
                why=complaint.what,
            )

    def own(self, files: ServerFiles) -> ServerTls:
        """What a coordinator or relay tells the account server."""
        if self.listener is None:
            return ServerTls()
        return ServerTls(self.listener.endpoints, b"" if self._shared else files.tls_key())

    def open(self, files: ServerFiles | None, accounts: AsServer | None) -> None:
        """Accept connections, with the certificate at hand; again after a renewal."""
        if self.listener is None:
            return
        if accounts is not None:
            self._certificate = accounts.tls_file
        elif files is not None:
            self._certificate = files.tls_file()
        if self._certificate is None:
            self.error = "the account server gave no TLS certificate (an older version?)"
            log.warning("no TLS port", why=self.error)
            self.close()
            return
        try:
            self.listener.open(self._certificate)
        except (ssl.SSLError, OSError) as error:
            raise Complaint(
                f"the TLS certificate in {self._certificate} cannot be used: {error}.",
                "Nodes in networks that block UDP could not be served.",
                "Remove that file and start again: a new certificate is fetched.",
            ) from error

    def offer_accounts(self, accounts: AsServer) -> None:
        """Serve the account server's HTTPS here too, where often nothing but 443 passes."""
        from ntm_server.http_bridge import HttpService

        if self.listener is not None:
            service = HttpService(accounts.http_protocol, self.listener.loop)
            self.listener.offer(ALPN_ACCOUNT, service)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens."""
        return self.listener.endpoints if self.listener is not None else ()

    def status(self) -> dict[str, Any]:
        """For ``ntm-server status``."""
        if self.listener is None:
            return {"state": "failed" if self.error else "off", "why": self.error}
        where = [str(endpoint) for endpoint in self.endpoints]
        return {"state": "open", "endpoints": where, **self.listener.metrics()}

    def close(self) -> None:
        """Stop listening."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
