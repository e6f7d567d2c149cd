"""Passwords: Argon2id in PHC form (RFC 9106, second recommended option: 64 MiB, 3 passes)."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

MEMORY_KIB = 65_536
PASSES = 3
LANES = 4
SHORTEST = 8


def hash_password(password: str) -> str:
    """PHC text of a new hash with a random salt."""
    kdf = Argon2id(
        salt=os.urandom(16), length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB
    )
    return kdf.derive_phc_encoded(password.encode())


NOBODY = hash_password(os.urandom(16).hex())  # costs as much to refuse as anybody's


def check_password(stored: str, password: str) -> bool:
    """Whether ``password`` is the one of ``stored``; an empty or damaged hash fits nothing."""
    try:
        Argon2id.verify_phc_encoded(password.encode(), stored or NOBODY)
    except (InvalidKey, ValueError):
        return False
    return bool(stored)
