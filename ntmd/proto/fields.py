"""The vocabulary of message fields: types with bounds, read by codec, documentation and tests.

A message is a frozen dataclass whose annotations are taken from here. On the wire it is a
MessagePack array ``[tag, field, field, ...]`` (a nested struct: without the tag) in the subset of
rule S11: arrays, unsigned integers, bin, str, bool, nil; shortest form; depth at most 6 (decision
0001). Fields may only be added at the end and must have a default; unknown trailing fields are
ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of an unsigned integer, inclusive."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Size:
    """Bounds of a bin, str (in UTF-8 bytes) or array (in items), inclusive."""

    low: int
    high: int


U8 = Annotated[int, Range(0, 0xFF)]
U16 = Annotated[int, Range(0, 0xFFFF)]
U32 = Annotated[int, Range(0, 0xFFFF_FFFF)]
U64 = Annotated[int, Range(0, 0xFFFF_FFFF_FFFF_FFFF)]
Key32 = Annotated[bytes, Size(32, 32)]
Id16 = Annotated[bytes, Size(16, 16)]
Address16 = Annotated[bytes, Size(16, 16)]
Certificate = Annotated[bytes, Size(1, 560)]
OptionalCertificate = Annotated[bytes, Size(0, 560)]  # empty: not given
RecordBytes = Annotated[bytes, Size(0, 141)]  # empty: none
GrantBytes = Annotated[bytes, Size(0, 256)]  # empty: none
Name = Annotated[str, Size(0, 128)]  # FQDN, lower-case ASCII; empty: none
Text = Annotated[str, Size(0, 400)]
Padding = Annotated[bytes, Size(0, 1500)]
