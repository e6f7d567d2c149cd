"""Runs a function in a child process with network and mount namespaces of its own."""

import ctypes
import os
import pickle
import subprocess
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.ports import CLONE_NEWNET

CLONE_NEWNS = 0x0002_0000

Isolated = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def isolated() -> Isolated:
    """``isolated(function)`` returns its result, or fails with its traceback."""
    return run_isolated


def run_isolated(function: Callable[[], Any]) -> Any:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outcome: tuple[bool, Any] = (True, _enter_and_call(function))
        except BaseException:
            outcome = (False, traceback.format_exc())
        os.write(writing, pickle.dumps(outcome))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, "the isolated process was killed"
    good, result = pickle.loads(data)
    assert good, result
    return result


def _enter_and_call(function: Callable[[], Any]) -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    sh("ip link set lo up")
    return function()


def sh(command: str) -> str:
    """Output of a command that has to succeed."""
    done = subprocess.run(command.split(), check=True, capture_output=True, text=True)
    return done.stdout
