"""What changes of the network leave to the collector does not pile up."""

from __future__ import annotations

import subprocess
import sys

CHANGES = """
import gc, sys
from ntmd.slim import slim, begun
slim()
import ntmd.daemon
{begun}

class Message(dict):
    alive = 0
    def __init__(self):
        self["self"], self["attrs"] = self, [[n] for n in range(50)]
        Message.alive += 1
    def __del__(self):
        Message.alive -= 1

most = 0
for change in range(200):
    dump = [Message() for _ in range(25)]
    del dump
    most = max(most, Message.alive)
print(most)
"""


def most(begun: str) -> int:
    """Messages that were there at a time, in a fresh process."""
    command = [sys.executable, "-c", CHANGES.format(begun=begun)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_cycles_of_few_dumps_are_there_at_a_time() -> None:
    assert most("begun()") * 3 < most("") * 2  # 154 and 336 with CPython 3.11
