"""What the coordinator's core is built from, and the inputs and commands that only it has.

Shared ones (``DatagramReceived``, ``SendDatagram``, ``Store``, ``Tell``, ``UserAsked`` ...) are in
:mod:`ntmd.proto.io`. Socket numbers: 1, 2, ... are the listening addresses in order, 101, 102, ...
the same addresses at the port of the mapping test.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ntmd.proto import timing
from ntmd.proto.types import Endpoint

PROBE_SOCKETS = 100  # the mapping-test twin of socket n has the number 100 + n
LISTEN_MAX = 4  # addresses of which the mapping test is announced (eight endpoints in all)


@dataclass(frozen=True, slots=True)
class DcSettings:
    """How a coordinator behaves.

    ``listen`` are its announced endpoints by socket 1, 2, ...; ``probe`` those of sockets
    101, 102, ... (may be empty: no mapping test); ``tls`` is where it listens for TLS.
    ``relay_kbit_s`` is written into grants (0: no limit). Rates are per second: direction requests
    of one node, information requests for one caller of one foreign coordinator, and of one foreign
    coordinator in all (rule S7).
    """

    domain: str
    listen: tuple[Endpoint, ...]
    probe: tuple[Endpoint, ...] = ()
    tls: tuple[Endpoint, ...] = ()
    relay_kbit_s: int = 0
    keepalive_s: int = int(timing.KEEPALIVE_FIRST)
    recall_rate: int = timing.DC_RECALL_RATE
    directions_per_node: float = 10.0
    information_per_caller: float = 10.0
    information_per_dc: float = 1000.0

    def sockets(self) -> dict[int, Endpoint]:
        """All own endpoints by socket number."""
        main = dict(enumerate(self.listen, 1))
        return main | {PROBE_SOCKETS + n: at for n, at in enumerate(self.probe, 1)}


@dataclass(frozen=True, slots=True)
class StoredNode:
    """What is kept of a node over a restart.

    ``address`` is bound to ``name`` for ever; ``key``, ``certificate`` and the rest are of its last
    session. ``socket`` and ``endpoint`` say where it was last heard; ``last_seen_ms`` is
    platform time; ``online`` is False after it took leave.
    """

    name: str
    address: bytes
    key: bytes = b""
    certificate: bytes = b""
    record: bytes = b""
    socket: int = 0
    endpoint: Endpoint | None = None
    last_seen_ms: int = 0
    home_relay: str = ""
    online: bool = False


@dataclass(frozen=True, slots=True)
class DcState:
    """Everything that was stored, as handed to a new core."""

    nodes: tuple[StoredNode, ...] = ()
    values: dict[str, bytes] = field(default_factory=dict)


# ------------------------------------------------------------------ commands


@dataclass(frozen=True, slots=True)
class StoreNode:
    """Keep ``node`` in place of what was stored under its name; may be batched with others."""

    node: StoredNode


@dataclass(frozen=True, slots=True)
class ForgetNode:
    """The node was removed from the platform: delete its row."""

    name: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Answer with :class:`Flushed` once every :class:`StoreNode` before this one is durable."""

    ticket: int


@dataclass(frozen=True, slots=True)
class LookupDomain:
    """Ask the DNS for ``_ntm._udp.<suffix>``, first suffix first; the first that exists counts."""

    token: int
    suffixes: tuple[str, ...]


# ------------------------------------------------------------------ inputs


@dataclass(frozen=True, slots=True)
class Flushed:
    """Everything up to this :class:`Flush` is durable. ``error`` says why it is not."""

    ticket: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class DomainTarget:
    """A target of an SRV record: its name, addresses, and the key hint of its TXT record.

    Nothing in it is authenticated (rule C3). ``key`` is empty without a hint.
    """

    name: str
    key: bytes
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class DomainResolved:
    """What the DNS said: ``domain`` owns the SRV record. No targets: ``error`` says why.

    ``error`` is "no such domain" when the DNS answered, else what went wrong with asking it.
    """

    token: int
    domain: str
    targets: tuple[DomainTarget, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A coordinator of the platform as the account server knows it: certificate (DER), and where
    it was enrolled from, if known."""

    certificate: bytes
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class DirectoryUpdated:
    """The account server's list of coordinators, whole. ``revoked`` are SHA-256 of keys."""

    entries: tuple[DirectoryEntry, ...]
    revoked: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificatesRenewed:
    """New certificates from the account server for the keys we have."""

    certificates: tuple[bytes, ...]
    dc_sign: bytes
