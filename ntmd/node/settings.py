"""What a node is told once, before it starts: its settings and where its home is."""

from __future__ import annotations

from dataclasses import dataclass

from ntmd.proto.timing import REKEY_AFTER, TUN_MTU
from ntmd.proto.types import Endpoint, Peer


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How this node behaves.

    ``port`` is the UDP port of every own socket (0: any free one); ``mtu`` that of the TUN;
    ``rekey_after`` the age in seconds at which the initiator replaces a data key in use, at most
    120 (rule C1); the other end follows at 150/120 of it; ``metered`` are interfaces that cost by
    the byte.
    """

    interface: str = "ntm0"
    port: int = 0
    mtu: int = TUN_MTU
    rekey_after: float = REKEY_AFTER
    metered: tuple[str, ...] = ()
    plane: str = "python"
    version: str = "0.1.0"


@dataclass(frozen=True, slots=True)
class Home:
    """The node's own domain: its coordinator, as handed out by the account server at join.

    ``endpoints`` are the coordinator's addresses of both families; ``dc_sign`` is the certificate
    (DER) that verifies this domain's node records, empty while unknown; ``domains`` are the
    suffixes that the stub resolver answers for. ``tls`` is where the coordinator listens for TLS.
    """

    domain: str
    dc: Peer
    endpoints: tuple[Endpoint, ...]
    dc_sign: bytes = b""
    domains: tuple[str, ...] = ()
    tls: tuple[Endpoint, ...] = ()
