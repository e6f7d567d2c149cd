"""The store: the same behaviour in memory, on SQLite and on PostgreSQL; migrations; damage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ntm_as.schema import metadata
from ntm_as.store import open_engine
from ntm_as.tables import Account, Member, Token
from ntmd.runtime.complaints import Complaint
from tests.unit.servers.as_stores import KINDS, opened, postgres, wipe

TOKEN = Token(b"h" * 32, "node", "", "", "", False, 1, 1_800_000_000_000)
MEMBER = Member(
    "laptop.home.test", "node", "home.test", b"k" * 32, b"cert", 1, 2, 1_800_000_000_000
)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with opened(request.param, tmp_path) as found:
        yield found


def test_rows_come_back_as_they_were_put(store: Any) -> None:
    server = replace(
        MEMBER, name="dc1.home.test", role="dc", key=b"d" * 32, sign_key=b"s" * 32,
        sign_certificate=b"\0\xff", endpoints=("192.0.2.1:4330", "[2001:db8::1]:4330"),
    )  # fmt: skip
    with store.transaction() as tables:
        tables.put_token(TOKEN)
        tables.put_member(MEMBER)
        tables.put_member(server)
        tables.put_account(Account("zoe", "$argon2id$", 5))
        tables.put_account(Account("ann", "", 6))
    with store.transaction() as tables:
        assert tables.token(TOKEN.hash) == TOKEN
        assert tables.token(b"x" * 32) is None
        assert tables.member(MEMBER.name) == MEMBER
        assert tables.member_of_key(b"s" * 32) == server
        assert tables.members() == [server, MEMBER]
        assert tables.members("node") == [MEMBER]
        assert tables.members("dc", "lab.test") == []
        assert [account.user for account in tables.accounts()] == ["ann", "zoe"]


def test_putting_again_replaces(store: Any) -> None:
    with store.transaction() as tables:
        tables.put_member(MEMBER)
        tables.put_member(replace(MEMBER, certificate=b"new", renewed_ms=9))
        assert tables.members() == [replace(MEMBER, certificate=b"new", renewed_ms=9)]
        tables.drop_member(MEMBER.name)
        assert tables.members() == []


def test_a_one_time_token_is_spent_by_one_key(store: Any) -> None:
    with store.transaction() as tables:
        tables.put_token(TOKEN)
        assert tables.spend_token(TOKEN.hash, b"a" * 32)
        assert tables.spend_token(TOKEN.hash, b"a" * 32)
        assert not tables.spend_token(TOKEN.hash, b"b" * 32)
        assert not tables.spend_token(b"x" * 32, b"b" * 32)
        tables.drop_tokens(TOKEN.expires_ms + 1)
        assert tables.token(TOKEN.hash) is None


def test_what_raises_leaves_nothing(store: Any) -> None:
    def half_done() -> None:
        with store.transaction() as tables:
            tables.put_member(MEMBER)
            tables.add_domain("home.test", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()
    with store.transaction() as tables:
        assert tables.members() == []
        assert tables.domains() == []


def test_subnets_and_epochs_only_grow(store: Any) -> None:
    with store.transaction() as tables:
        numbers = [tables.add_domain(f"d{n}.test", n).subnet for n in range(3)]
        assert numbers == [1, 2, 3]
        assert [tables.revoke(bytes([n]) * 32, n) for n in range(3)] == [1, 2, 3]
        assert tables.revoked(b"\1" * 32)
        assert not tables.revoked(b"\7" * 32)
        assert [entry.epoch for entry in tables.revocations(1)] == [2, 3]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_migrations_make_the_schema_that_the_program_uses(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as store:
        found = sa.inspect(store.engine)
        for table in metadata.sorted_tables:
            columns = {
                column["name"]: column["nullable"] for column in found.get_columns(table.name)
            }
            assert columns == {column.name: column.nullable for column in table.columns}


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path) as store, store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Complaint, match="newer than this program"):
        open_engine(f"sqlite:///{tmp_path / 'as.db'}")


def test_a_file_that_is_no_database_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "as.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(Complaint, match="cannot be used") as caught:
        open_engine(f"sqlite:///{path}")
    assert "backup" in caught.value.text
    assert path.read_bytes().startswith(b"this is no database")


@pytest.mark.parametrize("url", ["nonsense", "oracle+nobody://x", "sqlite:////nowhere/at/all.db"])
def test_an_unusable_url_is_a_complaint(url: str) -> None:
    with pytest.raises(Complaint, match="database"):
        open_engine(url)


def test_postgresql_is_wiped_between_tests() -> None:
    url = postgres()
    wipe(url)
    engine = sa.create_engine(url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
