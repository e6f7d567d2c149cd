"""Both codecs give the same bytes, refuse the same input, and raise only ProtocolError."""

from __future__ import annotations

import timeit
import tracemalloc
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto import codec, msgpack
from ntmd.proto.errors import ProtocolError
from ntmd.proto.fields import Range, Size
from ntmd.proto.messages import (
    Answer,
    AnswerPayload,
    CallPayload,
    Done,
    Message,
    NatView,
    Probe,
    Register,
    Registered,
    RelayInfo,
)
from ntmd.proto.types import Endpoint

endpoints = st.one_of(
    st.builds(Endpoint, st.ip_addresses(v=4).map(str), st.integers(0, 65535)),
    st.builds(Endpoint, st.ip_addresses(v=6).map(str), st.integers(0, 65535)),
)


def values(annotation: Any) -> st.SearchStrategy[Any]:
    bound: Any = None
    if get_origin(annotation) is Annotated:
        annotation, bound = get_args(annotation)
    if annotation is int:
        assert isinstance(bound, Range)
        return st.integers(bound.low, bound.high)
    if annotation is bytes:
        return st.binary(min_size=bound.low, max_size=min(bound.high, max(bound.low, 40)))
    if annotation is str:
        return st.text(st.characters(codec="ascii"), max_size=min(bound.high, 40))
    if annotation is bool:
        return st.booleans()
    if annotation is Endpoint:
        return endpoints
    if get_origin(annotation) in (types.UnionType, typing.Union):
        return st.one_of(
            *[st.none() if a is type(None) else values(a) for a in get_args(annotation)]
        )
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)
        if inner[-1] is Ellipsis:
            assert isinstance(bound, Size)
            return st.lists(values(inner[0]), max_size=min(3, bound.high)).map(tuple)
        return st.tuples(*[values(a) for a in inner])
    assert is_dataclass(annotation)
    return structs(typing.cast("type[Any]", annotation))


def structs(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls, include_extras=True)
    return st.builds(cls, *[values(hints[f.name]) for f in fields(cls)])


any_message = st.one_of(*[structs(cls) for cls in get_args(Message)])
raw_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(0, 2**64 - 1), st.binary(max_size=300), st.text()
    ),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=20,
)


@given(any_message)
def test_round_trip(message: Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(any_message)
def test_unknown_trailing_fields_change_nothing(message: Message) -> None:
    assert codec.decode(codec.encode_greased(message)) == message


def test_register_and_probe_carry_none_to_two_unknown_fields() -> None:
    for number in range(6):
        for message in (Probe(number), Register(number, (), NatView())):
            plain, greased = codec.encode(message), codec.encode_greased(message)
            extra = len(msgpack.unpack(greased)) - len(msgpack.unpack(plain))
            assert extra == number % 3
    sized = Probe(2, padding=bytes(100))
    assert codec.encode_greased(sized) == codec.encode(sized)


@given(st.one_of(structs(CallPayload), structs(AnswerPayload)), st.integers(0, 100))
def test_payload_round_trip(payload: Any, padding: int) -> None:
    data = codec.encode_payload(payload) + bytes(padding)
    assert codec.decode_payload(data, type(payload)) == payload


@given(raw_values)
def test_providers_write_the_same_bytes(value: Any) -> None:
    assert msgpack.pack(value) == msgpack.pack_plain(value)


def outcome(function: Any, data: bytes) -> Any:
    try:
        return function(data)
    except ProtocolError:
        return ProtocolError


@given(st.one_of(st.binary(max_size=60), raw_values.map(msgpack.pack_plain)), st.data())
def test_providers_accept_the_same_bytes(data: bytes, draw: st.DataObject) -> None:
    if data and draw.draw(st.booleans()):
        at = draw.draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([draw.draw(st.integers(0, 255))]) + data[at + 1 :]
    assert outcome(msgpack.unpack, data) == outcome(msgpack.unpack_plain, data)


@given(st.binary(max_size=200))
def test_only_protocol_errors(data: bytes) -> None:
    outcome(codec.decode, data)
    outcome(lambda d: codec.decode_payload(d, CallPayload), data)


@given(any_message, st.data())
def test_changed_bytes_are_refused_or_valid(message: Message, draw: st.DataObject) -> None:
    data = bytearray(codec.encode(message))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    changed = outcome(codec.decode, bytes(data))
    if changed is not ProtocolError:
        assert codec.decode(codec.encode(changed)) == changed


def test_without_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(5, 1, b"xx")
    fast = codec.encode(probe)
    monkeypatch.setattr(msgpack, "msgspec", None)
    assert codec.encode(probe) == fast
    assert codec.decode(fast) == probe


def test_evolution() -> None:
    longer = msgpack.pack([Done.tag, 1, 0, 5, "text", 99, [1, b"new"]])
    assert codec.decode(longer) == Done(1, 0, 5, "text")
    assert codec.decode(msgpack.pack([Done.tag, 1, 0])) == Done(1, 0)
    with pytest.raises(ProtocolError):
        codec.decode(msgpack.pack([Done.tag, 1]))
    with pytest.raises(codec.UnknownTag) as caught:
        codec.decode(msgpack.pack([70, 1]))
    assert caught.value.tag == 70


@pytest.mark.parametrize(
    "raw", [[Done.tag, True, 0], [Done.tag, 2**32, 0], [Done.tag, "1", 0], [Done.tag, 1, 0, 0, b""]]
)
def test_types_and_bounds(raw: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(msgpack.pack(raw))


def test_decoding_is_quick() -> None:
    relay = RelayInfo("rs1.home.test", bytes(400), (Endpoint("198.51.100.1", 4331),))
    message = Registered(
        1, 0, 0, 10**12, bytes(16), bytes(141), bytes(440), Endpoint("203.0.113.7", 4000),
        (Endpoint("198.51.100.1", 4332),), (relay,), 25, ("home.test",),
    )  # fmt: skip
    data = codec.encode(message)
    best = min(timeit.repeat(lambda: codec.decode(data), number=200, repeat=5)) / 200
    assert best < 1e-3


def test_endpoints_that_never_come_again_are_not_kept() -> None:
    """A peer that moves for ever shows ever new ones: half a MiB for 5,000 was too much."""
    tracemalloc.start()
    try:
        for number in range(5000):
            seen = Endpoint(f"10.0.{number >> 8}.{number & 255}", 1024 + number)
            answer = Answer(number, seen)
            assert codec.decode(codec.encode(answer)) == answer
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200_000
