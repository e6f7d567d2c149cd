"""Values that more than one part of the system speaks of.

Everything here is immutable and carries no behaviour beyond its own encoding. What the node's
core and the data plane both need lives in :mod:`ntmd.proto.plane`; what every core receives and
wishes lives in :mod:`ntmd.proto.io`.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from typing import NamedTuple


class Role(enum.IntEnum):
    """What a certificate entitles its holder to be (``docs/protocol.md``, Identity)."""

    NODE = 1
    DC = 2
    RS = 3
    DC_SIGN = 4
    TLS = 5


class Suite(enum.IntEnum):
    """AEAD of a session; the number is byte 2 of a handshake datagram."""

    AES_GCM = 1
    CHACHA = 2


class PskKind(enum.IntEnum):
    """Where a pre-shared key comes from (rule C4)."""

    NONE = 0
    DIRECTION = 1
    RESUMPTION = 2
    POST_QUANTUM = 3  # reserved (rule N1)


class NatMapping(str, enum.Enum):
    """How a NAT maps, in the words of RFC 4787 section 4.1."""

    NONE = "none"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class NatFiltering(str, enum.Enum):
    """How a NAT filters, in the words of RFC 4787 section 5."""

    NONE = "none"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class CandidateKind(enum.IntEnum):
    """Where a candidate endpoint was learned from; smaller is preferred."""

    HOST = 1
    REFLEXIVE = 2
    MAPPED = 3
    NAT64 = 4
    PREDICTED = 5  # where a NAT that gives ports in a row will put the node, by its own count


class Endpoint(NamedTuple):
    """A UDP endpoint of the underlay: canonical textual address and port."""

    host: str
    port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.host else 4

    def pack(self) -> bytes:
        """Wire form: 6 bytes (IPv4) or 18 bytes (IPv6), address then big-endian port."""
        return ipaddress.ip_address(self.host).packed + self.port.to_bytes(2, "big")

    @classmethod
    def unpack(cls, data: bytes) -> Endpoint:
        """Inverse of :meth:`pack`; raises ``ValueError`` on any other length."""
        if len(data) not in (6, 18):
            raise ValueError("endpoint must be 6 or 18 bytes")
        return cls(str(ipaddress.ip_address(data[:-2])), int.from_bytes(data[-2:], "big"))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Path(NamedTuple):
    """A way out: own socket, where to send, and the leg id if ``remote`` is a relay.

    ``leg`` 0 means direct (0 is never allotted as an index, rule C5). The number of the own
    socket, modulo 255 plus 1, is the *path id* that control frames carry (rule C7).
    """

    socket: int
    remote: Endpoint
    leg: int = 0

    @property
    def relayed(self) -> bool:
        """Whether datagrams on this path pass a relay."""
        return self.leg != 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a datagram came in: own socket, observed source, and its index field as received."""

    socket: int
    source: Endpoint
    index: int


def path_id(socket: int) -> int:
    """Path id (u8, 1..255) of an own socket: one per own (socket, network), rule C7."""
    return (socket - 1) % 255 + 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint at which a node may be reached."""

    kind: CandidateKind
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a handshake is meant for: role, FQDN and static X25519 public key (32 bytes)."""

    role: Role
    name: str
    key: bytes


def format_address(address: bytes) -> str:
    """Text form of a 16-byte virtual address."""
    return str(ipaddress.IPv6Address(address))


def parse_address(text: str) -> bytes:
    """16 bytes of a virtual address given as text; raises ``ValueError``."""
    return ipaddress.IPv6Address(text).packed
