"""Every target on golden input, on what was found before, and on thousands of bent copies."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS, samples

BENT = 1500
SLOW = {"handshake": 60, "certificate": 600, "datagram": 400, "from_peer": 600}


def bend(dice: random.Random, data: bytes) -> bytes:
    """A copy with one to four changes of the kinds that break parsers."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(out) + 1)
        match dice.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(out):
                out[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, 0x82, 0xC6, 0xDD))
            case 2:
                del out[at : at + dice.randint(1, 8)]
            case 3:
                out[at:at] = dice.randbytes(dice.randint(1, 8))
            case _:
                end = min(len(out), at + dice.randint(1, 32))
                out[at:at] = out[at:end]
    return bytes(out)


@pytest.mark.parametrize("name", TARGETS)
def test_samples(name: str) -> None:
    given = samples(name)
    assert given
    for data in given:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_bent_samples(name: str) -> None:
    dice, given = random.Random(name), samples(name)
    for _ in range(SLOW.get(name, BENT)):
        data = bend(dice, dice.choice(given))
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name} fails on {data.hex()}") from error


@pytest.mark.parametrize("name", TARGETS)
def test_short_and_empty(name: str) -> None:
    for data in (b"", b"\0", b"\xff", bytes(15), bytes(16), bytes(1500), b"\xff" * 1500):
        TARGETS[name](data)
