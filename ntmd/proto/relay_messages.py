"""Messages of the relay: between an RS and its DC, and between a node and an RS.

Re-exported by :mod:`ntmd.proto.messages`, which everybody else imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ntmd.proto.fields import (
    U8,
    U16,
    U32,
    U64,
    GrantBytes,
    Id16,
    OptionalCertificate,
    Size,
    Text,
)
from ntmd.proto.structs import (
    Endpoints8,
)
from ntmd.proto.types import Endpoint


@dataclass(frozen=True, slots=True)
class RelayRegister:
    """A relay reports to its DC: where it listens and how busy it is."""

    tag: ClassVar[int] = 60
    id: U32
    endpoints: Endpoints8
    legs: U32
    kbit_s: U32
    draining: bool = False
    tls: Endpoints8 = ()


@dataclass(frozen=True, slots=True)
class RelayRegistered:
    """Answer to RelayRegister; ``dc_sign`` verifies the grants."""

    tag: ClassVar[int] = 61
    id: U32
    status: U8
    retry_after_ms: U32
    platform_ms: U64
    dc_sign: OptionalCertificate
    lease_s: U32 = 60


@dataclass(frozen=True, slots=True)
class LegOpen:
    """Open my leg of a granted pair; I will know its datagrams by ``delivery_index`` (rule C5)."""

    tag: ClassVar[int] = 62
    id: U32
    grant: GrantBytes
    delivery_index: U32


@dataclass(frozen=True, slots=True)
class LegOpened:
    """The leg id to put into the index of datagrams sent to this relay; idempotent."""

    tag: ClassVar[int] = 63
    id: U32
    status: U8
    retry_after_ms: U32
    leg: U32
    reset_token: Annotated[bytes, Size(0, 16)]
    observed: Endpoint | None
    text: Text = ""


@dataclass(frozen=True, slots=True)
class LegMove:
    """My primary source is where this comes from (greatest ``seq`` wins); moves all my legs."""

    tag: ClassVar[int] = 64
    id: U32
    seq: U32
    also: U8 = 0  # path id to duplicate towards for ``for_ms`` (rule C7)
    for_ms: U16 = 0


@dataclass(frozen=True, slots=True)
class LegMoved:
    """Answer to LegMove; ``legs`` are (old, fresh) leg ids (rule S3), old ones hold for 10 s."""

    tag: ClassVar[int] = 65
    id: U32
    seq: U32
    observed: Endpoint | None
    legs: Annotated[tuple[tuple[U32, U32], ...], Size(0, 256)] = ()


@dataclass(frozen=True, slots=True)
class LegClose:
    """Forget my leg of this grant id; answered by Done."""

    tag: ClassVar[int] = 66
    id: U32
    grant_id: Id16


@dataclass(frozen=True, slots=True)
class Draining:
    """A relay is about to leave (or stays after all): carry traffic elsewhere; answered by Done."""

    tag: ClassVar[int] = 67
    id: U32
    draining: bool
