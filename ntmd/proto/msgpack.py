"""The MessagePack subset of rule S11: arrays, unsigned integers, bin, str, bool, nil.

Shortest form only, at most :data:`DEPTH` levels of arrays. The plain codec below is the reference;
msgspec does the same work faster where it is installed. Source: the MessagePack specification.
"""

from __future__ import annotations

from typing import Any

from ntmd.proto.errors import ProtocolError

try:
    import msgspec
except ImportError:  # platforms without a wheel use the plain codec
    msgspec = None  # type: ignore[assignment]

DEPTH = 6
"""RouteDirection is the deepest message: route, grants, grant, relay, endpoints."""


def pack(value: Any) -> bytes:
    """Bytes of a value made of list, int >= 0, bytes, str, bool, None."""
    if msgspec is not None:
        return msgspec.msgpack.encode(value)
    return pack_plain(value)


def unpack(data: bytes) -> Any:
    """The value in ``data``, all of it; raises ProtocolError("codec")."""
    if msgspec is None:
        return unpack_plain(data)
    try:
        value = msgspec.msgpack.decode(data)
        check(value)
        # Any longer form of the same value, and every type outside the subset, differs here.
        if msgspec.msgpack.encode(value) != data:
            raise ProtocolError("codec", "not the shortest form")
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, TypeError) as error:
        raise ProtocolError("codec", "malformed") from error
    return value


def check(value: Any, depth: int = 0) -> None:
    """Refuse types outside the subset and too deep nesting."""
    kind = type(value)
    if kind is list:
        if depth >= DEPTH:
            raise ProtocolError("codec", "depth")
        for each in value:
            check(each, depth + 1)
    elif kind is int:
        if not 0 <= value < 1 << 64:
            raise ProtocolError("codec", "integer")
    elif kind is not bytes and kind is not str and kind is not bool and value is not None:
        raise ProtocolError("codec", "type")


# ------------------------------------------------------------------ plain codec


def pack_plain(value: Any) -> bytes:
    """Same as :func:`pack`, without msgspec."""
    out = bytearray()
    _pack(value, out)
    return bytes(out)


def _pack(value: Any, out: bytearray) -> None:
    kind = type(value)
    if value is None:
        out.append(0xC0)
    elif kind is bool:
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):  # members of an IntEnum too, as msgspec does
        _pack_integer(value, out)
    elif kind is bytes:
        _pack_head(len(value), ((0xC4, 1), (0xC5, 2), (0xC6, 4)), out)
        out += value
    elif kind is str:
        data = value.encode()
        if len(data) < 32:
            out.append(0xA0 | len(data))
        else:
            _pack_head(len(data), ((0xD9, 1), (0xDA, 2), (0xDB, 4)), out)
        out += data
    elif kind is list:
        if len(value) < 16:
            out.append(0x90 | len(value))
        else:
            _pack_head(len(value), ((0xDC, 2), (0xDD, 4)), out)
        for each in value:
            _pack(each, out)
    else:
        raise TypeError(f"not in the subset: {kind}")


def _pack_integer(value: int, out: bytearray) -> None:
    if 0 <= value < 0x80:
        out.append(value)
    else:
        _pack_head(value, ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)), out)


def _pack_head(value: int, forms: tuple[tuple[int, int], ...], out: bytearray) -> None:
    for code, size in forms:
        if 0 <= value < 1 << (8 * size):
            out.append(code)
            out += value.to_bytes(size, "big")
            return
    raise OverflowError("too large for the subset")


_LENGTHS = {
    0xC4: (bytes, 1, 0), 0xC5: (bytes, 2, 0x100), 0xC6: (bytes, 4, 0x10000),
    0xD9: (str, 1, 32), 0xDA: (str, 2, 0x100), 0xDB: (str, 4, 0x10000),
    0xDC: (list, 2, 16), 0xDD: (list, 4, 0x10000),
    0xCC: (int, 1, 0x80), 0xCD: (int, 2, 0x100), 0xCE: (int, 4, 0x10000), 0xCF: (int, 8, 1 << 32),
}  # code: type, bytes of the number, its least value in shortest form  # fmt: skip


def unpack_plain(data: bytes) -> Any:
    """Same as :func:`unpack`, without msgspec."""
    value, end = _unpack(data, 0, 0)
    if end != len(data):
        raise ProtocolError("codec", "trailing bytes")
    return value


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data):
        raise ProtocolError("codec", "truncated")
    code = data[at]
    at += 1
    if code < 0x80:
        return code, at
    if code in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[code], at
    if 0x90 <= code <= 0x9F:
        return _unpack_items(data, at, code & 0x0F, depth)
    if 0xA0 <= code <= 0xBF:
        return _unpack_bytes(data, at, code & 0x1F, str)
    if code not in _LENGTHS:
        raise ProtocolError("codec", "type")
    kind, size, least = _LENGTHS[code]
    if at + size > len(data):
        raise ProtocolError("codec", "truncated")
    number = int.from_bytes(data[at : at + size], "big")
    if number < least:
        raise ProtocolError("codec", "not the shortest form")
    at += size
    if kind is int:
        return number, at
    if kind is list:
        return _unpack_items(data, at, number, depth)
    return _unpack_bytes(data, at, number, kind)


def _unpack_items(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    if depth >= DEPTH:
        raise ProtocolError("codec", "depth")
    if count > len(data) - at:
        raise ProtocolError("codec", "truncated")
    items = []
    for _ in range(count):
        item, at = _unpack(data, at, depth + 1)
        items.append(item)
    return items, at


def _unpack_bytes(data: bytes, at: int, size: int, kind: type) -> tuple[Any, int]:
    end = at + size
    if end > len(data):
        raise ProtocolError("codec", "truncated")
    piece = bytes(data[at:end])
    if kind is bytes:
        return piece, end
    try:
        return piece.decode(), end
    except UnicodeDecodeError as error:
        raise ProtocolError("codec", "utf-8") from error
