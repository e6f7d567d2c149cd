"""The raw encoding: its bounds, and a platform without msgspec."""

from __future__ import annotations

import subprocess
import sys
import types
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from ntmd.proto import msgpack
from ntmd.proto.errors import ProtocolError
from ntmd.proto.messages import AnswerPayload, CallPayload, Message, Status
from ntmd.proto.records import Capability

ROOT = Path(__file__).parents[3]
both = pytest.mark.parametrize("unpack", [msgpack.unpack, msgpack.unpack_plain])


def depth(annotation: Any) -> int:
    """How many arrays stand inside one another in a value of this type."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (types.UnionType, typing.Union):
        return max(depth(each) for each in get_args(annotation))
    if get_origin(annotation) is tuple:
        return 1 + max(depth(each) for each in get_args(annotation) if each is not Ellipsis)
    if is_dataclass(annotation):
        hints = get_type_hints(annotation, include_extras=True)
        return 1 + max((depth(hints[f.name]) for f in fields(annotation)), default=0)
    return 0


def test_the_bound_is_the_depth_of_the_deepest_message() -> None:
    deepest = {cls: depth(cls) for cls in (*get_args(Message), CallPayload, AnswerPayload)}
    assert max(deepest.values()) == msgpack.DEPTH


def nested(levels: int) -> bytes:
    return b"\x91" * (levels - 1) + b"\x90"


@both
def test_depth(unpack: Any) -> None:
    assert unpack(nested(msgpack.DEPTH))
    for levels in (msgpack.DEPTH + 1, 5000, 100_000):
        with pytest.raises(ProtocolError):
            unpack(nested(levels))


@both
@pytest.mark.parametrize("code", [0xC6, 0xDB, 0xDD, 0xDF, 0xC9])
def test_a_length_alone_takes_no_memory(unpack: Any, code: int) -> None:
    for size in (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"):
        with pytest.raises(ProtocolError):
            unpack(bytes((code,)) + size)


OTHERS = {
    "negative": b"\xff",
    "int8": b"\xd0\x01",
    "float": b"\xcb" + bytes(8),
    "map": b"\x81\x01\x02",
    "unhashable key": b"\x81\x90\x02",
    "extension": b"\xd4\x05\x00",
    "timestamp": b"\xd6\xff" + bytes(4),
    "never used": b"\xc1",
    "not UTF-8": b"\xa2\xc3\x28",
    "surrogate": b"\xa3\xed\xa0\x80",
    "long integer": b"\xcc\x05",
    "long string": b"\xd9\x01a",
    "long array": b"\xdc\x00\x01\x01",
    "long bin": b"\xc5\x00\x01a",
    "two values": b"\x01\x01",
    "nothing": b"",
}


@both
@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
def test_outside_the_subset(unpack: Any, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(data)


@pytest.mark.parametrize("value", [-1, 1 << 64, 1.5, {1: 2}, {1}, (1, -1), object()])
def test_what_cannot_be_said_is_our_own_mistake(value: Any) -> None:
    with pytest.raises((TypeError, OverflowError)):
        msgpack.pack_plain(value)


@pytest.mark.parametrize("member", [Status.OK, Status.TRY_AGAIN, Capability.WIRE_1])
def test_members_of_an_enumeration_are_their_numbers(member: int) -> None:
    assert msgpack.pack_plain([member]) == msgpack.pack([member]) == msgpack.pack([int(member)])


def test_vectors_pass_where_msgspec_is_not_installed() -> None:
    """In an interpreter of its own that cannot import it."""
    program = (
        "import sys; sys.modules['msgspec'] = None\n"
        "import json, pathlib\n"
        "from ntmd.proto import codec, msgpack\n"
        "assert msgpack.msgspec is None\n"
        "for v in json.loads(pathlib.Path('tests/vectors/messages.json').read_text()):\n"
        "    if v['tag'] >= 10:\n"
        "        data = bytes.fromhex(v['bytes'])\n"
        "        assert codec.encode(codec.decode(data)) == data\n"
        "print('all')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "all\n", done.stderr
