"""Headers and nonces written for many datagrams at once are those written one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ntmd.dataplane.stamps import HEADER, NONCE, Headers, Nonces, pack_sequences

STEP = st.tuples(st.integers(0, 3), st.integers(-80, 0)).map(lambda n: max(1, (n[0] << 16) + n[1]))
NEAR = st.one_of(st.integers(1, 1 << 28), STEP)
WORDS = st.sampled_from((0x0801_0100, 0x0801_0000, 0x0802_0100))
STEPS = st.lists(st.tuples(WORDS, st.integers(1, 20), st.booleans(), st.booleans()), max_size=40)


@given(st.lists(st.tuples(WORDS, NEAR, st.integers(1, 64)), max_size=20))
def test_nonces(wishes: list[tuple[int, int, int]]) -> None:
    nonces = Nonces()
    for word, counter, count in wishes:
        want = [NONCE.pack(word, counter + i) for i in range(count)]
        assert [bytes(each) for each in nonces.take(word, counter, count)] == want


@given(STEPS, NEAR)
def test_headers_stay_right_while_a_run_grows_and_others_write(
    steps: list[tuple[int, int, bool, bool]], counter: int
) -> None:
    arena, width, slots = bytearray(64 * 40), 40, 60
    headers, want, slot = Headers(arena), bytearray(64 * 40), 0
    for word, count, fresh, foreign in steps:
        if fresh or slot + count > slots:
            slot = 0
        if foreign:
            arena[slot * width : slot * width + 50] = bytes((0xEE,)) * 50
            headers.disturbed()
        headers.write((word, 7, width), slot, counter, count, slots)
        for i in range(count):
            HEADER.pack_into(want, (slot + i) * width, word, 7, counter + i)
        counter, slot = counter + count, slot + count
        for i in range(slot):
            at = i * width
            assert arena[at : at + 16] == want[at : at + 16]


@given(st.integers(0, (1 << 32) - 1), st.integers(1, 1460), st.integers(0, 64))
def test_sequences(first: int, step: int, count: int) -> None:
    want = [(first + i * step & 0xFFFF_FFFF).to_bytes(4, "big") for i in range(count)]
    assert pack_sequences(first, step, count) == b"".join(want)
