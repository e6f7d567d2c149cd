"""Fragments (S5): every cut joins again in any order; a malicious peer costs bounded memory."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.fragments import HEADER, Reassembly, cut


def fragment(offset: int, size: int, *, more: bool, number: int = 1) -> bytes:
    return HEADER.pack(1, more, offset // 8, number) + bytes(size)


def held(pieces: Reassembly) -> int:
    return sum(each.size for each in pieces._open.values())


@given(
    st.binary(min_size=1, max_size=timing.CONTROL_MESSAGE_MAX),
    st.integers(timing.FRAGMENT_MIN + 8, 1400),
    st.randoms(use_true_random=False),
)
def test_what_was_cut_joins_in_any_order_with_copies(body: bytes, room: int, dice: object) -> None:
    parts = cut(body, 5, room)
    assert all(len(each) <= room for each in parts)
    order = [*parts[:-1], *parts]
    dice.shuffle(order)  # type: ignore[attr-defined]
    pieces, joined = Reassembly(), []
    for each in order:
        whole = pieces.add(each, 1.0)
        if whole is not None:
            joined.append(whole)
    assert joined[0] == body


@pytest.mark.parametrize(
    "bad",
    [
        [fragment(0, 0, more=True)],
        [fragment(0, 504, more=True)],
        [fragment(0, 516, more=True)],
        [fragment(0, 512, more=True), fragment(0, 520, more=True)],
        [fragment(0, 512, more=True), fragment(512, 520, more=True)],
        [fragment(512, 100, more=False), fragment(1024, 100, more=False)],
        [fragment(512, 8, more=False), fragment(8, 512, more=True)],
    ],
)
def test_what_breaks_a_rule_is_dropped_whole(bad: list[bytes]) -> None:
    pieces = Reassembly()
    for each in bad[:-1]:
        assert pieces.add(each, 1.0) is None
    with pytest.raises(ProtocolError, match="fragment"):
        pieces.add(bad[-1], 1.0)
    assert held(pieces) == 0


def test_pieces_are_forgotten_after_a_second() -> None:
    pieces = Reassembly()
    assert pieces.add(fragment(0, 512, more=True), 1.0) is None
    assert pieces.add(fragment(512, 8, more=False), 2.5) is None
    assert held(pieces) == 8


def test_open_messages_are_few_and_the_oldest_makes_room() -> None:
    pieces = Reassembly()
    for number in range(timing.FRAGMENTS_OPEN + 1):
        pieces.add(fragment(0, 512, more=True, number=number), 1.0)
    assert len(pieces._open) == timing.FRAGMENTS_OPEN
    assert pieces.add(fragment(512, 8, more=False, number=0), 1.0) is None, "0 has left"
    assert pieces.add(fragment(512, 8, more=False, number=8), 1.0) is not None


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.sampled_from([8, 512, 1024, 1032, 2040]),
            st.booleans(),
            st.integers(0, 20),
        ),
        max_size=200,
    )
)
def test_memory_is_bounded_whatever_a_peer_sends(parts: list[tuple[int, int, bool, int]]) -> None:
    pieces = Reassembly()
    for place, size, more, number in parts:
        with contextlib.suppress(ProtocolError):
            pieces.add(fragment(place * 512, size, more=more, number=number), 1.0)
        assert held(pieces) <= timing.FRAGMENT_BYTES
        assert len(pieces._open) <= timing.FRAGMENTS_OPEN
        assert all(
            len(each.pieces) <= timing.FRAGMENTS_PER_MESSAGE for each in pieces._open.values()
        )
