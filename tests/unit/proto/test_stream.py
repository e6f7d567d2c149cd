"""Framing of datagrams in a TLS connection, and the bounded queue in front of it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.frame import HEADER_SIZE, Kind
from ntmd.proto.stream import Deframer, SendQueue

DATA, CONTROL = bytes((Kind.DATA,)), bytes((Kind.CONTROL,))
datagrams = st.lists(
    st.binary(min_size=HEADER_SIZE, max_size=timing.STREAM_FRAME_MAX), min_size=1, max_size=20
)


@given(datagrams, st.lists(st.integers(1, 3000), min_size=1, max_size=40))
def test_whatever_the_pieces_the_datagrams_come_out(sent: list[bytes], cuts: list[int]) -> None:
    queue, deframer = SendQueue(1 << 20), Deframer()
    for datagram in sent:
        queue.put(datagram, len(datagram))
    stream = queue.take(1 << 20)
    came: list[bytes] = []
    at = 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        came += deframer.feed(stream[at : at + size])
        at += size
    control = [each for each in sent if each[0] != Kind.DATA]
    data = [each for each in sent if each[0] == Kind.DATA]
    assert came == control + data
    assert queue.bytes == len(queue) == 0


@pytest.mark.parametrize("size", [0, HEADER_SIZE - 1, timing.STREAM_FRAME_MAX + 1, 65_535])
def test_a_frame_of_an_impossible_size_is_refused_at_its_length(size: int) -> None:
    with pytest.raises(ProtocolError, match="stream_frame_size"):
        Deframer().feed(size.to_bytes(2, "big"))


@given(st.binary(max_size=70_000))
def test_junk_is_bounded(junk: bytes) -> None:
    deframer = Deframer()
    with contextlib.suppress(ProtocolError):
        deframer.feed(junk)
    assert len(deframer._rest) <= timing.STREAM_FRAME_MAX + 2


def test_a_run_is_cut_into_its_datagrams() -> None:
    queue = SendQueue()
    queue.put(memoryview(DATA * 100 + DATA * 40), 100)
    assert Deframer().feed(queue.take(1 << 16)) == [DATA * 100, DATA * 40]


def test_full_the_oldest_data_leaves_and_control_stays() -> None:
    queue = SendQueue(1000)
    queue.put(CONTROL * 98, 98)
    for number in range(20):
        queue.put(DATA + bytes((number,)) * 97, 98)
    assert queue.bytes <= 1000
    assert queue.drops == {"stream_data_dropped": 11}
    came = Deframer().feed(queue.take(1 << 16))
    assert came[0] == CONTROL * 98
    assert [each[1] for each in came[1:]] == list(range(11, 20))


def test_control_pushes_data_out_and_is_refused_only_by_control() -> None:
    queue = SendQueue(1000)
    for _ in range(10):
        queue.put(DATA * 98, 98)
    for _ in range(11):
        queue.put(CONTROL * 98, 98)
    assert queue.drops == {"stream_data_dropped": 10, "stream_control_refused": 1}
    queue.put(DATA * 98, 98)
    assert queue.drops["stream_control_refused"] == 2  # nothing may push control out
    assert len(queue) == 10


def test_what_is_too_big_for_a_frame_is_not_queued() -> None:
    queue = SendQueue()
    queue.put(DATA * (timing.STREAM_FRAME_MAX + 1), timing.STREAM_FRAME_MAX + 1)
    assert len(queue) == 0
    assert queue.drops == {"stream_too_big": 1}
