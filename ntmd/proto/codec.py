"""Bytes of messages: MessagePack subset (rule S11), strict decoding driven by the annotations.

Two providers of the raw encoding give the same bytes and refuse the same input: msgspec where it
is installed, :mod:`ntmd.proto.msgpack` everywhere. What a peer sent raises only ProtocolError:
kind ``codec`` for anything malformed, :class:`UnknownTag` for a message we do not know.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from ntmd.proto import msgpack, structs
from ntmd.proto.errors import ProtocolError
from ntmd.proto.fields import Range, Size
from ntmd.proto.messages import AnswerPayload, CallPayload, Message, Probe, Register
from ntmd.proto.types import Endpoint

Convert = Callable[[Any], Any]
T = TypeVar("T")
ENDPOINTS = 128  # whose text form is remembered, each 0.4 kB


class UnknownTag(ProtocolError):
    """A well-formed message with a tag that this version does not know; answer Unsupported."""

    def __init__(self, tag: int) -> None:
        super().__init__("unknown_message", str(tag))
        self.tag = tag


def encode(message: Message) -> bytes:
    """Wire form of a control message."""
    return msgpack.pack(_WRITERS[type(message)](message))


def encode_greased(message: Message) -> bytes:
    """Like :func:`encode`; behind Register and Probe stand 0-2 fields that nobody knows (S11).

    They come and go with the message's own number, so that no receiver can get used to none. A
    probe of a wanted size stays as it is.
    """
    raw = _WRITERS[type(message)](message)
    if isinstance(message, Register):
        raw += [message.id, b""][: message.id % 3]
    elif isinstance(message, Probe) and not message.padding:
        raw += [message.nonce & 0x7F, False][: message.nonce % 3]
    return msgpack.pack(raw)


def decode(data: bytes) -> Message:
    """The control message in ``data``; raises ProtocolError."""
    raw = msgpack.unpack(data)
    if type(raw) is not list or not raw or type(raw[0]) is not int or raw[0] < 0:
        raise ProtocolError("codec", "no tag")
    reader = _READERS.get(raw[0])
    if reader is None:
        raise UnknownTag(raw[0])
    message: Message = reader(raw[1:])
    return message


def encode_payload(payload: CallPayload | AnswerPayload) -> bytes:
    """Wire form of a handshake payload: u16 length, then the message (padding may follow)."""
    body = msgpack.pack(_WRITERS[type(payload)](payload))
    return len(body).to_bytes(2, "big") + body


def decode_payload(data: bytes, kind: type[T]) -> T:
    """The handshake payload of type ``kind`` at the start of ``data``; the rest is padding."""
    length = int.from_bytes(data[:2], "big")
    if len(data) < 2 + length:
        raise ProtocolError("codec", "payload length")
    raw = msgpack.unpack(data[2 : 2 + length])
    if type(raw) is not list or not raw or raw[0] != kind.tag:  # type: ignore[attr-defined]
        raise ProtocolError("codec", "payload kind")
    payload: T = _STRUCTS[kind](raw[1:])
    return payload


# ------------------------------------------------------------------ compiled once per class


# The same few endpoints come and go all the time, and their text form is the slow part.
_unpack_endpoint = lru_cache(ENDPOINTS)(Endpoint.unpack)
_pack_endpoint = lru_cache(ENDPOINTS)(Endpoint.pack)


def _bad(what: str) -> ProtocolError:
    return ProtocolError("codec", what)


def _integer(bound: Range) -> Convert:
    low, high = bound.low, bound.high

    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _bad("integer")
        return value

    return read


def _binary(bound: Size) -> Convert:
    low, high = bound.low, bound.high

    def read(value: Any) -> bytes:
        if type(value) is not bytes or not low <= len(value) <= high:
            raise _bad("bin")
        return value

    return read


def _string(bound: Size) -> Convert:
    low, high = bound.low, bound.high

    def read(value: Any) -> str:
        if type(value) is not str or not low <= len(value.encode()) <= high:
            raise _bad("str")
        return value

    return read


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise _bad("bool")
    return value


def _endpoint(value: Any) -> Endpoint:
    if type(value) is not bytes:
        raise _bad("endpoint")
    try:
        return _unpack_endpoint(value)
    except ValueError as error:
        raise _bad("endpoint") from error


def _array(bound: Size, item: Convert) -> Convert:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or not bound.low <= len(value) <= bound.high:
            raise _bad("array")
        return tuple([item(each) for each in value])

    return read


def _pair(items: list[Convert]) -> Convert:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(items):
            raise _bad("tuple")
        return tuple([read_item(each) for read_item, each in zip(items, value, strict=True)])

    return read


def _optional(inner: Convert) -> Convert:
    return lambda value: None if value is None else inner(value)


def _reader(annotation: Any) -> Convert:
    """The strict reader of one annotation."""
    bound: Any = None
    if get_origin(annotation) is Annotated:
        annotation, bound = get_args(annotation)
    if annotation is int:
        return _integer(bound)
    if annotation is bytes:
        return _binary(bound)
    if annotation is str:
        return _string(bound)
    if annotation is bool:
        return _boolean
    if annotation is Endpoint:
        return _endpoint
    if get_origin(annotation) in (types.UnionType, typing.Union):
        (inner,) = [each for each in get_args(annotation) if each is not type(None)]
        return _optional(_reader(inner))
    if get_origin(annotation) is tuple:
        arguments = get_args(annotation)
        if arguments[-1] is Ellipsis:
            return _array(bound, _reader(arguments[0]))
        return _pair([_reader(each) for each in arguments])
    if is_dataclass(annotation):
        return _struct_reader(typing.cast("type[Any]", annotation))
    raise TypeError(f"no wire form for {annotation!r}")


def _struct_reader(cls: type[Any]) -> Convert:
    """Reader of a struct: missing trailing fields take defaults, unknown ones are ignored."""
    hints = get_type_hints(cls, include_extras=True)
    readers = [_reader(hints[each.name]) for each in fields(cls)]
    needed = sum(each.default is MISSING for each in fields(cls))
    known = len(readers)

    def read(value: Any) -> Any:
        if type(value) is not list or len(value) < needed:
            raise _bad(cls.__name__)
        if len(value) > known:
            msgpack.check(value[known:])
        return cls(*[each(item) for each, item in zip(readers, value, strict=False)])

    return read


def _raw(value: Any) -> Any:
    kind = type(value)
    if kind is Endpoint:
        return _pack_endpoint(value)
    if kind is tuple:
        return [_raw(each) for each in value]
    if kind in _WRITERS:
        return _WRITERS[kind](value)
    return value


def _struct_writer(cls: type[Any]) -> Callable[[Any], list[Any]]:
    names = [each.name for each in fields(cls)]
    start = [cls.tag] if hasattr(cls, "tag") else []

    def write(value: Any) -> list[Any]:
        return start + [_raw(getattr(value, name)) for name in names]

    return write


_STRUCTS: dict[type[Any], Convert] = {
    cls: _struct_reader(cls) for cls in (*get_args(Message), CallPayload, AnswerPayload)
}
_INNER = [
    cls
    for cls in vars(structs).values()
    if isinstance(cls, type) and is_dataclass(cls) and cls.__module__ == structs.__name__
]
_WRITERS: dict[type[Any], Callable[[Any], list[Any]]] = {
    cls: _struct_writer(cls) for cls in (*_INNER, *_STRUCTS)
}
_READERS: dict[int, Convert] = {cls.tag: _STRUCTS[cls] for cls in get_args(Message)}
assert len(_READERS) == len(get_args(Message)), "two messages share a tag"
