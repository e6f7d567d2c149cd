"""What the account server remembers, and the interface through which its core does so.

Rows are frozen; times are milliseconds of the platform's clock. Every method works inside one
transaction that the caller of the core opened: all of an operation happens, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Token:
    """A join key, known by the SHA-256 of its text only.

    ``role`` is what may be enrolled with it. Empty ``name``, ``domain``, ``user`` fix nothing.
    ``used_by`` is the hash of the key that used up a one-time token.
    """

    hash: bytes
    role: str
    name: str
    domain: str
    user: str
    reusable: bool
    created_ms: int
    expires_ms: int
    used_by: bytes = b""


@dataclass(frozen=True, slots=True)
class Member:
    """A node or server with a certificate. ``name`` is its FQDN, ``key`` its X25519 key.

    ``sign_key`` and ``sign_certificate`` are a coordinator's; ``endpoints`` are announced ones.
    """

    name: str
    role: str
    domain: str
    key: bytes
    certificate: bytes
    joined_ms: int
    renewed_ms: int
    expires_ms: int
    user: str = ""
    sign_key: bytes = b""
    sign_certificate: bytes = b""
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain and the number of the /64 delegated to its coordinator, never used again."""

    name: str
    subnet: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class Account:
    """A user; ``password`` is an Argon2id hash in PHC form, empty if login is off."""

    user: str
    password: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """A key that counts for nothing any more. ``epoch`` grows by one with each."""

    epoch: int
    key_hash: bytes
    not_after_ms: int


class Tables(Protocol):
    """One transaction on the store."""

    def token(self, token_hash: bytes) -> Token | None:
        """The token with this hash."""

    def put_token(self, token: Token) -> None:
        """Add or replace."""

    def spend_token(self, token_hash: bytes, key_hash: bytes) -> bool:
        """Mark a one-time token used; False if somebody else's key used it up before."""

    def drop_tokens(self, before_ms: int) -> None:
        """Forget tokens that expired before this."""

    def member(self, name: str) -> Member | None:
        """The member with this FQDN."""

    def member_of_key(self, key: bytes) -> Member | None:
        """The member with this X25519 or Ed25519 key."""

    def put_member(self, member: Member) -> None:
        """Add or replace."""

    def drop_member(self, name: str) -> None:
        """Remove; its name is free again."""

    def members(self, role: str = "", domain: str = "") -> Sequence[Member]:
        """All members by name, of one role or domain if given."""

    def domain(self, name: str) -> Domain | None:
        """The domain with this name."""

    def add_domain(self, name: str, created_ms: int) -> Domain:
        """Add a domain with a subnet number (1..65535) that was never given before.

        Raises OverflowError when all are used up.
        """

    def domains(self) -> Sequence[Domain]:
        """All domains, oldest first."""

    def account(self, user: str) -> Account | None:
        """The account of this user."""

    def put_account(self, account: Account) -> None:
        """Add or replace."""

    def drop_account(self, user: str) -> None:
        """Remove."""

    def accounts(self) -> Sequence[Account]:
        """All accounts by name."""

    def revoke(self, key_hash: bytes, not_after_ms: int) -> int:
        """Put a key on the revocation list; returns the new epoch."""

    def revoked(self, key_hash: bytes) -> bool:
        """Whether this key is on the list."""

    def revocations(self, after_epoch: int = 0) -> Sequence[Revoked]:
        """The list, or what came after an epoch."""
