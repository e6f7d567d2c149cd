"""Requests to the account server over HTTPS: which address answers, and whom to believe.

Its addresses are raced (:mod:`ntmd.runtime.eyeballs`), through a proxy where there is one, through
the network's NAT64 where there is no IPv4. Standard library only, imported on first use.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from ntmd.proto.timing import CLOCK_COMPLAINT
from ntmd.proto.types import Endpoint
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.eyeballs import NO_ROUTE, interleaved, race
from ntmd.runtime.nat64 import find_nat64, is_ipv4
from ntmd.runtime.proxy import Proxy

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPSConnection

CONNECT_TIMEOUT = 5.0  # seconds
HTTPS = 443
ANSWER_MAX = 8 << 20


class AccountError(Complaint):
    """The account server refused, or cannot be used. ``error`` is its short name for the reason."""

    def __init__(
        self,
        what: str,
        means: str = "",
        do: str = "",
        exit_code: int = Exit.FAILED,
        error: str = "",
    ) -> None:
        super().__init__(what, means, do, exit_code)
        self.error = error


def base_of(host: str, port: int) -> str:
    """``https://HOST:PORT``, IPv6 addresses in brackets."""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class Api:
    """Requests to one account server; ``ca`` (DER) is the only root once it is set.

    ``hosts`` are its addresses, each tried at ``port`` and then at 443, which more networks let
    pass; the one that answered first serves the requests that follow.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        platform_id: bytes,
        ca: bytes,
        proxy: Proxy | None = None,
    ) -> None:
        self.hosts = interleaved(hosts)
        self.ca = ca
        self.platform_id = platform_id
        self.server_ms = 0  # the server's clock at its last answer
        ports = dict.fromkeys((port, HTTPS))
        self._places = {base_of(host, at): (host, at) for at in ports for host in self.hosts}
        self._tried = tuple(self._places)
        self._port = port
        self._proxy = proxy
        self._behind: dict[str, str] | None = None  # place: its address behind a NAT64
        self.base = self._tried[0]  # https://HOST:PORT of the place in use

    def give_up_host(self) -> bool:
        """The place in use is somebody else's here; whether there are others to try."""
        del self._places[self.base]
        self._tried = tuple(self._places)
        self.hosts = tuple(dict.fromkeys(host for host, _ in self._places.values())) or self.hosts
        return bool(self._tried)

    def fetch_ca(self) -> bytes:
        """``GET /ca`` without any check of who answers."""
        status, body = self._request("GET", "/ca", None, {}, checked=False)
        return body if status == 200 else b""

    def post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """Send a JSON object; the object of the answer, or AccountError."""
        return self.call("POST", path, json.dumps(content).encode())

    def call(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Like :meth:`post`, with the exact bytes of the body."""
        given = {"Content-Type": "application/json", **(headers or {})}
        status, data = self._request(method, path, body, given, checked=True)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise not_understood(self)
        if status != 200:
            text = str(answer.get("text") or f"the account server answered {status}.")
            raise AccountError(text, error=str(answer.get("error") or "refused"))
        return answer

    def check_clock(self) -> None:
        """Complain if this machine's clock is wrong by more than an hour."""
        off = time.time() - self.server_ms / 1000 if self.server_ms else 0.0
        if abs(off) > CLOCK_COMPLAINT:
            way = "ahead" if off > 0 else "behind"
            raise AccountError(
                f"this machine's clock is {abs(off) / 3600:.1f} hours {way} of the server's.",
                "Certificates cannot be judged with a wrong clock.",
                "Set the clock (timedatectl set-ntp true), then try again.",
                Exit.FAILED,
                "clock",
            )

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], checked: bool
    ) -> tuple[int, bytes]:
        import http.client
        import ssl

        connection: HTTPSConnection | None = None
        try:
            try:
                self.base, connection = race(self._tried, lambda at: self._connect(at, checked))
            except OSError as error:
                if error.errno not in NO_ROUTE or not self._look_for_nat64():
                    raise
                self.base, connection = race(self._tried, lambda at: self._connect(at, checked))
            self._tried = (self.base,)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            self._note_date(answer.getheader("Date"))
            return answer.status, answer.read(ANSWER_MAX)
        except ssl.SSLCertVerificationError as error:
            raise self._untrusted(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            if connection is not None:
                connection.close()

    def _connect(self, place: str, checked: bool) -> HTTPSConnection:
        from http.client import HTTPSConnection

        context, proxy = self._context(checked), self._proxy
        host, port = self._places[place]
        if proxy is not None and proxy.serves(host, port):
            made = HTTPSConnection(proxy.host, proxy.port, timeout=CONNECT_TIMEOUT, context=context)
            made.set_tunnel(host, port, proxy.headers())
            made.connect()
            return made
        made = HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT, context=context)
        via = (self._behind or {}).get(place, host)
        plain = socket.create_connection((via, port), CONNECT_TIMEOUT)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.sock = context.wrap_socket(plain, server_hostname=host)
        except OSError:
            plain.close()
            raise
        return made

    def _look_for_nat64(self) -> bool:
        """There is no IPv4 here: whether its addresses can be reached through a NAT64."""
        if self._behind is None:
            self._behind = {}
            prefix = find_nat64()
            for place, (host, port) in self._places.items():
                if prefix is not None and is_ipv4(host):
                    self._behind[place] = prefix.synthesise(Endpoint(host, port)).host
            self._tried = (*self._behind,) or self._tried
            return bool(self._behind)
        return False

    def _context(self, checked: bool) -> ssl.SSLContext:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if checked:
            context.load_verify_locations(cadata=self.ca)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _note_date(self, text: str | None) -> None:
        try:
            self.server_ms = int(parsedate_to_datetime(text or "").timestamp() * 1000)
        except (ValueError, TypeError, OverflowError):
            return

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> AccountError:
        return AccountError(
            f"the certificate of {self.base} is not accepted: {error.verify_message}.",
            "Whoever answers there is not the account server of this platform, or serves another"
            " address, or this machine's clock is wrong.",
            "Check the clock (`date`) and the address; the operator lists addresses with --listen.",
            Exit.FAILED,
            "untrusted",
        )

    def _unreachable(self, error: Exception) -> AccountError:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return AccountError(
            f"the account server at {self._everywhere()} cannot be reached: {why}.",
            "Nothing was changed.",
            "Check the network, that `ntm-server` runs there, and that a firewall lets TCP port"
            f" {self._port} pass.",
            Exit.UNREACHABLE,
            "unreachable",
        )

    def _everywhere(self) -> str:
        given = [base for base in self._tried if self._places[base][1] == self._port]
        through = f" through the proxy {self._proxy.host}" if self._proxy else ""
        return " or ".join(given or self._tried) + through


def not_understood(api: Api) -> AccountError:
    """An answer that makes no sense."""
    return AccountError(
        f"the answer of the account server at {api.base} is not understood.",
        "Both sides may be of different versions.",
        "Install the same version on both, then try again.",
        Exit.FAILED,
        "answer",
    )
