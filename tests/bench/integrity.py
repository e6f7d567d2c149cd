"""Whether what is measured also carries right: no ratio is printed for a build that does not.

A build is the SHA-256 over the installed files of ``ntmd``; the integrity run is that of
``tests/planes``: streams by hash, datagrams by checksum and order, with and without loss.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import ntmd

RUN = ("tests/planes/test_integrity.py", "-k", "arrive_whole or damages_nothing")
LIMIT = 240  # seconds


@dataclass(frozen=True)
class Integrity:
    """What the run said of a build."""

    build: str
    green: bool
    words: str

    def __str__(self) -> str:
        return f"build {self.build}, integrity run {self.words}"


def build() -> str:
    """The first 12 digits of the hash over every source file, by name."""
    root = Path(ntmd.__file__).parent
    total = sha256()
    for file in sorted(root.rglob("*.py")):
        total.update(f"{file.relative_to(root)} {sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:12]


def check() -> Integrity:
    """Run it. Takes about a minute."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *RUN]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return Integrity(build(), False, f"**not green**: no end within {LIMIT} s")
    last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
    green = done.returncode == 0
    return Integrity(build(), green, f"green ({last})" if green else f"**not green** ({last})")
