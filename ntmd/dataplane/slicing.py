"""Slices of the reused buffers, kept: making one costs as much as a short copy."""

from __future__ import annotations

SHAPES = 16  # kept at a time
VIEWS = 64  # slices of each shape

Kept = dict[tuple[int, int, int], list[memoryview]]


def slices(
    kept: Kept, view: memoryview, base: int, stride: int, part: tuple[int, int]
) -> list[memoryview]:
    """``view[base + i * stride + begin : base + i * stride + end]`` for i from 0; part: begin, end.

    ``kept`` belongs to one buffer and one ``base``; at most ``VIEWS`` slices.
    """
    begin, end = part
    key = (stride, begin, end)
    made = kept.get(key)
    if made is None:
        if len(kept) >= SHAPES:
            kept.clear()
        count = min(VIEWS, (len(view) - base - end) // stride + 1)
        made = kept[key] = [
            view[base + i * stride + begin : base + i * stride + end] for i in range(count)
        ]
    return made
