"""What the programs of the matrix print is read by lines: threads must not tear them."""

from __future__ import annotations

import subprocess
import sys

import pytest

SPEAKERS = """
import threading
{use}
def speak(*words):
    for _ in range(5000):
        {call}(*words)
threads = [threading.Thread(target=speak, args=each) for each in (("ws", 1), ("idle", 2))]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize(
    ("use", "call"),
    [
        ("from tests.survival.visitor import say", "say"),
        ("from tests.survival.services import note", "note"),
    ],
)
def test_lines_of_several_threads_are_whole(use: str, call: str) -> None:
    program = SPEAKERS.format(use=use, call=call)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert sorted(said.splitlines()) == [b"idle 2"] * 5000 + [b"ws 1"] * 5000
