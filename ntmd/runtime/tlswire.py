"""TLS 1.3 without sockets: ciphertext in and out, plaintext in and out (rule S12).

The same engine serves both ends. It pins the platform's CA and knows no other root; a server's
certificate serves this alone.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from ntmd.proto.errors import ProtocolError

READ = 65_536
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: judged by platform time instead (rule S8)


def server_context(certificate: Path) -> ssl.SSLContext:
    """For a listener; ``certificate`` is a PEM file with key and certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # nothing is resumed
    context.load_cert_chain(certificate)
    return context


def client_context(ca: bytes, service: str) -> ssl.SSLContext:
    """For a connection to ``service``; ``ca`` (DER) is the only root."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([service])
    context.load_verify_locations(cadata=ca)
    context.verify_flags |= NO_CHECK_TIME
    return context


def check_time(certificate: object, platform_ms: int, slack_ms: int) -> None:
    """ProtocolError if a peer's certificate (``getpeercert()``) is not valid at platform time."""
    if not isinstance(certificate, dict):
        raise ProtocolError("tls_no_certificate")
    begin, end = (
        ssl.cert_time_to_seconds(certificate[key]) * 1000 for key in ("notBefore", "notAfter")
    )
    if not begin - slack_ms <= platform_ms <= end + slack_ms:
        raise ProtocolError("tls_expired", "its certificate is not valid now")


class TlsWire:
    """One end of a connection. ``server_name`` is given at the client's end only.

    All methods raise ssl.SSLError when the other end breaks the protocol or is not who it must be.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._in, self._out, server_side=server_name is None, server_hostname=server_name
        )
        self.ready = False
        self.ended = False
        self._shake_hands()

    def receive(self, data: bytes) -> list[bytes]:
        """Take ciphertext; returns plaintext. ``ended`` says whether the peer said goodbye."""
        self._in.write(data)
        if not self.ready and not self._shake_hands():
            return []
        found: list[bytes] = []
        try:
            while chunk := self._object.read(READ):
                found.append(chunk)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.ended = True
        return found

    def _shake_hands(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.ready = True
        return True

    def send(self, data: bytes) -> None:
        """Seal plaintext."""
        self._object.write(data)

    def outgoing(self) -> bytes:
        """Ciphertext for the other end."""
        return self._out.read()

    @property
    def service(self) -> str:
        """The ALPN name that was agreed on, or empty."""
        return self._object.selected_alpn_protocol() or ""

    def certificate(self) -> object:
        """The other end's certificate as ``getpeercert()`` tells it."""
        return self._object.getpeercert()
