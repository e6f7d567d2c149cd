"""The account server's store in memory: for the core's tests and the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ntm_as.tables import Account, Domain, Member, Revoked, Token


@dataclass
class MemoryTables:
    """All rows in dictionaries; implements ``ntm_as.tables.Tables``."""

    tokens: dict[bytes, Token] = field(default_factory=dict)
    by_name: dict[str, Member] = field(default_factory=dict)
    by_domain: dict[str, Domain] = field(default_factory=dict)
    by_user: dict[str, Account] = field(default_factory=dict)
    list_of_revoked: tuple[Revoked, ...] = ()
    last_subnet: int = 0

    def token(self, token_hash: bytes) -> Token | None:
        return self.tokens.get(token_hash)

    def put_token(self, token: Token) -> None:
        self.tokens[token.hash] = token

    def spend_token(self, token_hash: bytes, key_hash: bytes) -> bool:
        token = self.tokens.get(token_hash)
        if token is None or token.used_by not in (b"", key_hash):
            return False
        self.tokens[token_hash] = replace(token, used_by=key_hash)
        return True

    def drop_tokens(self, before_ms: int) -> None:
        self.tokens = {h: t for h, t in self.tokens.items() if t.expires_ms >= before_ms}

    def member(self, name: str) -> Member | None:
        return self.by_name.get(name)

    def member_of_key(self, key: bytes) -> Member | None:
        return next((m for m in self.by_name.values() if key in (m.key, m.sign_key)), None)

    def put_member(self, member: Member) -> None:
        self.by_name[member.name] = member

    def drop_member(self, name: str) -> None:
        self.by_name.pop(name, None)

    def members(self, role: str = "", domain: str = "") -> Sequence[Member]:
        rows = sorted(self.by_name.values(), key=lambda member: member.name)
        return [m for m in rows if role in ("", m.role) and domain in ("", m.domain)]

    def domain(self, name: str) -> Domain | None:
        return self.by_domain.get(name)

    def add_domain(self, name: str, created_ms: int) -> Domain:
        if self.last_subnet >= 65_535:
            raise OverflowError
        self.last_subnet += 1
        self.by_domain[name] = Domain(name, self.last_subnet, created_ms)
        return self.by_domain[name]

    def domains(self) -> Sequence[Domain]:
        return sorted(self.by_domain.values(), key=lambda domain: domain.subnet)

    def account(self, user: str) -> Account | None:
        return self.by_user.get(user)

    def put_account(self, account: Account) -> None:
        self.by_user[account.user] = account

    def drop_account(self, user: str) -> None:
        self.by_user.pop(user, None)

    def accounts(self) -> Sequence[Account]:
        return [self.by_user[user] for user in sorted(self.by_user)]

    def revoke(self, key_hash: bytes, not_after_ms: int) -> int:
        entry = Revoked(len(self.list_of_revoked) + 1, key_hash, not_after_ms)
        self.list_of_revoked += (entry,)
        return entry.epoch

    def revoked(self, key_hash: bytes) -> bool:
        return any(entry.key_hash == key_hash for entry in self.list_of_revoked)

    def revocations(self, after_epoch: int = 0) -> Sequence[Revoked]:
        return [entry for entry in self.list_of_revoked if entry.epoch > after_epoch]


class MemoryStore:
    """Transactions on rows in memory: a copy that replaces the rows if nothing was raised."""

    def __init__(self) -> None:
        self.rows = MemoryTables()

    @contextmanager
    def transaction(self) -> Iterator[MemoryTables]:
        rows = self.rows
        copy = replace(
            rows,
            tokens=dict(rows.tokens),
            by_name=dict(rows.by_name),
            by_domain=dict(rows.by_domain),
            by_user=dict(rows.by_user),
        )
        yield copy
        self.rows = copy

    def close(self) -> None:
        pass
