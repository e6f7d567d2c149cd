"""Commands and events as plain tuples, so that they can cross to the plane's process.

One table for all dataclasses: ``(number of the class, field, field, ...)``, packed with ``marshal``
(both ends are the same program; nobody else can write to the socket pair).
"""

from __future__ import annotations

import dataclasses
import marshal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ntmd.proto import plane
from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed
from ntmd.proto.types import Endpoint, Path, Suite

MESSAGE_MAX = 160_000  # bytes; the default send buffer of a Unix socket takes more
FORMAT = 2  # of marshal: without references, quicker


@dataclass(frozen=True, slots=True)
class Start:
    """The first command; the TUN's descriptor travels beside it."""

    vnet_header: int
    own_address: bytes
    mark: int


@dataclass(frozen=True, slots=True)
class SetOwnAddress:
    """The own virtual address."""

    address: bytes


@dataclass(frozen=True, slots=True)
class AskStats:
    """Answer with :class:`Stats`."""

    token: int


@dataclass(frozen=True, slots=True)
class Stats:
    """Drop counters and gauges."""

    token: int
    drops: dict[str, int]
    gauges: dict[str, int]


CLASSES: tuple[type[Any], ...] = (
    Start,
    SetOwnAddress,
    AskStats,
    Stats,
    SendDatagram,
    DatagramReceived,
    SendFailed,
    plane.OpenSocket,
    plane.CloseSocket,
    plane.InstallTunnel,
    plane.SwitchPath,
    plane.Resend,
    plane.RemoveTunnel,
    plane.ReleaseParked,
    plane.BlockInterface,
    plane.SocketOpened,
    plane.SocketFailed,
    plane.NoTunnelFor,
    plane.PeerMoved,
    plane.SlotSeen,
    plane.UnknownIndex,
    plane.TunnelActivity,
    plane.CounterNearLimit,
    plane.DeviceFailed,
    plane.StreamSettings,
    plane.OpenStream,
    plane.ParkStreams,
)
NUMBERS = {each: number for number, each in enumerate(CLASSES)}

Convert = Callable[[Any], Any]


def _to_path(value: Path) -> tuple[Any, ...]:
    return value.socket, tuple(value.remote), value.leg


def _from_path(value: Any) -> Path:
    return Path(value[0], Endpoint(*value[1]), value[2])


def _to_fields(value: Any) -> tuple[Any, ...]:
    to = _CONVERSIONS[type(value)][0]
    return tuple(
        getattr(value, name) if convert is None else convert(getattr(value, name))
        for name, convert in to
    )


def _from_fields(kind: type[Any]) -> Convert:
    def build(value: Any) -> Any:
        back = _CONVERSIONS[kind][1]
        return kind(
            *(
                each if convert is None else convert(each)
                for each, convert in zip(value, back, strict=True)
            )
        )

    return build


def _each(convert: Convert) -> Convert:
    return lambda values: tuple(convert(value) for value in values)


_path, _key = (_to_path, _from_path), (_to_fields, _from_fields(plane.DataKey))
_way = (_to_fields, _from_fields(plane.PlanePath))
_AS_IT_IS = ("int", "float", "str", "bytes", "bool", "dict[str, int]", "tuple[int, ...]")
_BY_TYPE: dict[str, tuple[Convert | None, Convert | None]] = {
    **dict.fromkeys(_AS_IT_IS, (None, None)),
    "tuple[tuple[int, int], ...]": (None, None),
    "int | None": (None, None),
    "Suite": (int, Suite),
    "Endpoint": (tuple, lambda value: Endpoint(*value)),
    "Path": _path,
    "tuple[Path, ...]": (_each(_path[0]), _each(_path[1])),
    "DataKey | None": (
        lambda value: None if value is None else _key[0](value),
        lambda value: None if value is None else _key[1](value),
    ),
    "tuple[DataKey, ...]": (_each(_key[0]), _each(_key[1])),
    "tuple[PlanePath, ...]": (_each(_way[0]), _each(_way[1])),
    "TunnelEntry": (_to_fields, _from_fields(plane.TunnelEntry)),
}
_Fields = tuple[tuple[tuple[str, Convert | None], ...], tuple[Convert | None, ...]]


def _conversions(kind: type[Any]) -> _Fields:
    fields = [(each.name, _BY_TYPE[str(each.type)]) for each in dataclasses.fields(kind)]
    return tuple((name, to) for name, (to, _) in fields), tuple(back for _, (_, back) in fields)


_CONVERSIONS: dict[type[Any], _Fields] = {
    kind: _conversions(kind)
    for kind in (*CLASSES, plane.DataKey, plane.PlanePath, plane.TunnelEntry)
}


def pack(values: Iterable[Any]) -> list[bytes]:
    """Messages, each of at most ``MESSAGE_MAX`` bytes and with at least one value."""
    messages: list[bytes] = []
    batch: list[bytes] = []
    size = 0
    for value in values:
        item = marshal.dumps((NUMBERS[type(value)], *_to_fields(value)), FORMAT)
        if batch and size + len(item) > MESSAGE_MAX:
            messages.append(marshal.dumps(batch, FORMAT))
            batch, size = [], 0
        batch.append(item)
        size += len(item) + 5
    if batch:
        messages.append(marshal.dumps(batch, FORMAT))
    return messages


def unpack(message: bytes) -> list[Any]:
    """The values of one message."""
    values = []
    for item in marshal.loads(message):
        number, *fields = marshal.loads(item)
        values.append(_from_fields(CLASSES[number])(fields))
    return values
