"""The account server's decisions, on every store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntm_as.core import EXCHANGES, AccountCore
from ntm_as.issuing import Platform, serial
from ntm_as.limits import LOGIN_ACCOUNT, LOGIN_SOURCE, Limiter, Rate, source_key
from ntm_as.refusals import Refused
from ntm_as.tables import Account
from ntmd.proto import certs
from ntmd.proto.crypto import ed25519_public, ed25519_sign, public_key, sha256
from ntmd.proto.types import Role
from ntmd.runtime.enrolment import DIRECTORY_PROOF, SIGN_PROOF, decode, encode
from tests.unit.servers.as_memory import MemoryStore
from tests.unit.servers.as_stores import KINDS, opened

WALL = 1_790_000_000_000
DAY = 86_400_000
HOUR = 3_600_000


def stream(seed: str) -> Callable[[int], bytes]:
    """Deterministic randomness."""
    count = iter(range(1_000_000))
    return lambda size: hashlib.shake_256(f"{seed} {next(count)}".encode()).digest(size)


class Ground:
    """A core on a store, and a client that keeps the rules unless told otherwise."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.random = stream("as")
        ca_key = self.random(32)
        ca = certs.make_ca(ca_key, WALL - DAY, WALL + 3650 * DAY, serial(self.random))
        self.platform = Platform(ca_key, ca, certs.platform_id_of(ca))
        self.core = AccountCore(
            self.platform, random=self.random, check_password=lambda h, p: h == f"hash of {p}"
        )
        anchor = certs.Anchor(self.platform.id, (certs.ca_key_of(ca),))
        self.trust = certs.Trust((anchor,))
        self.now = 1000.0
        self.wall = WALL

    def invite(self, hours: int = 24, **what: Any) -> str:
        with self.store.transaction() as tables:
            return self.core.invite(tables, self.wall, self.wall + hours * HOUR, **what)

    def begin(self, what: str, asked: dict[str, Any], source: str = "192.0.2.1") -> dict[str, Any]:
        body = json.dumps(asked).encode()
        with self.store.transaction() as tables:
            return self.core.begin(what, body, asked, tables, source, self.now, self.wall)

    def finish(self, what: str, asked: dict[str, Any]) -> dict[str, Any]:
        with self.store.transaction() as tables:
            return self.core.finish(what, asked, tables, self.now, self.wall)

    def prove(
        self, what: str, asked: dict[str, Any], key: bytes, sign: bytes = b"", source: str = "::1"
    ) -> dict[str, Any]:
        begun = self.begin(what, asked, source)
        digest = sha256(json.dumps(asked).encode())
        nonce = decode(begun["nonce"])
        proof = certs.pop_proof(key, decode(begun["ephemeral"]), nonce, begun["fqdn"], digest)
        finish = {"exchange": begun["exchange"], "proof": encode(proof)}
        if sign:
            signed = SIGN_PROOF + nonce + begun["fqdn"].encode() + b"\0" + digest
            finish["sign_proof"] = encode(ed25519_sign(sign, signed))
        return self.finish(what, finish)

    def dc(self, domain: str = "home.test", key: bytes = b"", sign: bytes = b"") -> dict[str, Any]:
        key, sign = key or self.random(32), sign or self.random(32)
        asked = {
            "token": self.invite(role="dc", domain=domain),
            "role": "dc",
            "domain": domain,
            "key": encode(public_key(key)),
            "sign_key": encode(ed25519_public(sign)),
            "endpoints": ["192.0.2.1:4330", "[2001:db8::1]:4330"],
        }
        return self.prove("servers/enrol", asked, key, sign)

    def node(self, name: str, key: bytes, token: str = "") -> dict[str, Any]:
        asked = {"token": token or self.invite(), "name": name, "key": encode(public_key(key))}
        return self.prove("enrol", asked, key)


@pytest.fixture(params=KINDS)
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    with opened(request.param, tmp_path) as store:
        yield Ground(store)


@pytest.fixture
def memory() -> Ground:
    return Ground(MemoryStore())


def leaf(answer: dict[str, Any]) -> certs.Leaf:
    return certs.parse_leaf(decode(answer["certificates"][0]))


def test_a_coordinator_gets_domain_and_delegation(ground: Ground) -> None:
    sign = ground.random(32)
    answer = ground.dc(sign=sign)
    mine = leaf(answer)
    assert (mine.role, mine.name, mine.domain) == (Role.DC, "dc1.home.test", "home.test")
    assert str(mine.prefix) == answer["delegation"]
    assert mine.prefix is not None
    assert mine.prefix.subnet_of(ground.platform.prefix)
    certs.check_leaf(mine, ground.trust, role=Role.DC, name="dc1.home.test", now_ms=WALL)
    signing = certs.parse_leaf(decode(answer["sign_certificate"]))
    certs.check_leaf(signing, ground.trust, role=Role.DC_SIGN, name=None, now_ms=WALL)
    assert signing.key == ed25519_public(sign)
    second = ground.dc("lab.test")
    assert second["delegation"] != answer["delegation"]
    assert [each["domain"] for each in second["directory"]] == ["home.test", "lab.test"]


def test_a_node_gets_a_certificate_for_its_name_and_its_coordinator(ground: Ground) -> None:
    ground.dc()
    key = ground.random(32)
    answer = ground.node("laptop", key)
    mine = leaf(answer)
    certs.check_leaf(mine, ground.trust, role=Role.NODE, name="laptop.home.test", now_ms=WALL)
    assert mine.key == public_key(key)
    assert mine.prefix is None
    assert answer["dc"]["name"] == "dc1.home.test"
    assert answer["domains"] == ["home.test"]


def test_a_relay_belongs_to_a_domain_with_a_coordinator(ground: Ground) -> None:
    ground.dc()
    for number in (1, 2):
        key = ground.random(32)
        asked = {
            "token": ground.invite(role="rs", domain="home.test"),
            "role": "rs",
            "domain": "home.test",
            "key": encode(public_key(key)),
            "endpoints": ["192.0.2.1:4331"],
        }
        answer = ground.prove("servers/enrol", asked, key)
        assert leaf(answer).role == Role.RS
        assert answer["name"] == f"rs{number}.home.test"
    asked["token"] = ground.invite(role="rs", domain="lab.test")
    asked["domain"] = "lab.test"
    with pytest.raises(Refused, match="no coordinator serves"):
        ground.begin("servers/enrol", asked)


def test_a_proof_by_another_key_is_refused(ground: Ground) -> None:
    """Mallory asks for a certificate over Alice's key (rule C8)."""
    ground.dc()
    alice, mallory = ground.random(32), ground.random(32)
    asked = {"token": ground.invite(), "name": "alice", "key": encode(public_key(alice))}
    with pytest.raises(Refused) as refused:
        ground.prove("enrol", asked, mallory)
    assert refused.value.error == "bad_proof"
    assert ground.core.counters["bad_proof"] == 1
    assert leaf(ground.prove("enrol", asked, alice)).name == "alice.home.test"


def test_a_coordinator_must_prove_its_signing_key_too(memory: Ground) -> None:
    key, sign, other = (memory.random(32) for _ in range(3))
    asked = {
        "token": memory.invite(role="dc", domain="home.test"),
        "role": "dc",
        "key": encode(public_key(key)),
        "sign_key": encode(ed25519_public(sign)),
        "endpoints": ["192.0.2.1:4330"],
    }
    with pytest.raises(Refused, match="private key is wrong"):
        memory.prove("servers/enrol", asked, key, other)


def test_an_exchange_is_used_once_and_lapses(memory: Ground) -> None:
    memory.dc()
    key = memory.random(32)
    asked = {"token": memory.invite(), "name": "a", "key": encode(public_key(key))}
    begun = memory.begin("enrol", asked)
    finish = {"exchange": begun["exchange"], "proof": encode(bytes(32))}
    with pytest.raises(Refused):
        memory.finish("renew", finish)
    with pytest.raises(Refused, match="begin again"):
        memory.finish("enrol", finish)
    begun = memory.begin("enrol", asked)
    memory.now += 61
    with pytest.raises(Refused, match="begin again"):
        memory.finish("enrol", {**finish, "exchange": begun["exchange"]})


def test_a_one_time_invitation_is_for_one_key(ground: Ground) -> None:
    ground.dc()
    token, key = ground.invite(), ground.random(32)
    ground.node("laptop", key, token)
    ground.node("laptop", key, token)  # the answer was lost: the same key may ask again
    with pytest.raises(Refused, match="used up"):
        ground.node("desk", ground.random(32), token)


def test_a_reusable_invitation_is_for_many_until_it_expires(ground: Ground) -> None:
    ground.dc()
    token = ground.invite(1, reusable=True)
    for name in ("a", "b", "c"):
        ground.node(name, ground.random(32), token)
    ground.wall += HOUR
    with pytest.raises(Refused, match="expired"):
        ground.node("d", ground.random(32), token)


def test_an_unknown_invitation_is_refused(memory: Ground) -> None:
    memory.dc()
    with pytest.raises(Refused, match="not known"):
        memory.node("a", memory.random(32), "x" * 32)


def test_invitations_are_for_one_role(memory: Ground) -> None:
    memory.dc()
    with pytest.raises(Refused, match="for a relay"):
        memory.node("a", memory.random(32), memory.invite(role="rs", domain="home.test"))


def test_a_name_is_one_keys(ground: Ground) -> None:
    ground.dc()
    first = ground.random(32)
    ground.node("laptop", first)
    with pytest.raises(Refused) as refused:
        ground.node("LAPTOP", ground.random(32))
    assert (refused.value.status, refused.value.error) == (409, "name_taken")
    with pytest.raises(Refused, match="belongs to laptop"):
        ground.node("desk", first)
    with pytest.raises(Refused, match="taken"):
        ground.invite(name="laptop")


@pytest.mark.parametrize(
    "name",
    ["", ".", "-a", "a-", "a.b", "ä", "a b", "a" * 64, "dc1", "rs7", "as", "ns", "x.other.test",
     "a.home.test.", "home.test", "*", "a\0b"],
)  # fmt: skip
def test_names_that_cannot_be(memory: Ground, name: str) -> None:
    memory.dc()
    if name == "a.home.test.":
        assert memory.node(name, memory.random(32))["name"] == "a.home.test"
        return
    with pytest.raises(Refused):
        memory.node(name, memory.random(32))


def test_an_invitation_fixes_name_domain_and_user(memory: Ground) -> None:
    memory.dc()
    memory.dc("lab.test")
    with memory.store.transaction() as tables:
        tables.put_account(Account("ann", "", 1))
    with pytest.raises(Refused, match="several domains"):
        memory.node("desk", memory.random(32))
    token = memory.invite(name="desk.lab.test", user="ann")
    with pytest.raises(Refused, match="for the name"):
        memory.node("laptop", memory.random(32), token)
    assert memory.node("", memory.random(32), token)["name"] == "desk.lab.test"
    with memory.store.transaction() as tables:
        found = tables.member("desk.lab.test")
    assert found is not None
    assert found.user == "ann"
    token = memory.invite(domain="lab.test")
    with pytest.raises(Refused, match=r"names in lab\.test only"):
        memory.node("x.home.test", memory.random(32), token)
    with pytest.raises(Refused, match="no user"):
        memory.invite(user="bob")


def test_domains_do_not_contain_each_other(memory: Ground) -> None:
    memory.dc("home.test")
    for domain in ("lab.home.test", "test"):
        with pytest.raises(Refused):
            memory.dc(domain)


def test_renewal_keeps_name_and_key_even_after_expiry(ground: Ground) -> None:
    ground.dc()
    key = ground.random(32)
    first = leaf(ground.node("laptop", key))
    ground.wall += 30 * DAY
    asked = {"certificate": encode(first.der)}
    second = leaf(ground.prove("renew", asked, key))
    assert (second.name, second.key) == (first.name, first.key)
    assert second.not_after_ms > ground.wall
    with pytest.raises(Refused, match="private key is wrong"):
        ground.prove("renew", asked, ground.random(32))


def test_a_removed_node_never_comes_back_with_its_key(ground: Ground) -> None:
    ground.dc()
    key = ground.random(32)
    certificate = ground.node("laptop", key)["certificates"][0]
    with ground.store.transaction() as tables:
        ground.core.remove_node("laptop.home.test", tables, ground.wall)
    with pytest.raises(Refused, match=r"no longer"):
        ground.prove("renew", {"certificate": certificate}, key)
    with pytest.raises(Refused, match="was removed"):
        ground.node("laptop", key)
    assert ground.node("laptop", ground.random(32))["name"] == "laptop.home.test"
    with ground.store.transaction() as tables:
        assert [entry.key_hash for entry in tables.revocations()] == [sha256(public_key(key))]


def test_a_node_leaves_by_itself(ground: Ground) -> None:
    ground.dc()
    key = ground.random(32)
    certificate = ground.node("laptop", key)["certificates"][0]
    ground.prove("leave", {"certificate": certificate}, key)
    with ground.store.transaction() as tables:
        assert tables.member("laptop.home.test") is None
    with pytest.raises(Refused) as refused:
        ground.prove("leave", {"certificate": certificate}, key)
    assert refused.value.error == "not_member"


def test_a_prefix_is_never_delegated_twice(ground: Ground) -> None:
    first = ground.dc()["delegation"]
    with ground.store.transaction() as tables:
        ground.core.remove_node("dc1.home.test", tables, ground.wall)
    assert ground.dc()["delegation"] == first  # the domain keeps its own
    assert ground.dc("lab.test")["delegation"] != first


def test_the_directory_is_for_coordinators(ground: Ground) -> None:
    sign = ground.random(32)
    ground.dc(sign=sign)

    def ask(key: bytes, time_ms: int, domain: str = "home.test") -> dict[str, Any]:
        signed = DIRECTORY_PROOF + ground.platform.id + domain.encode() + time_ms.to_bytes(8, "big")
        header = f"NTM-Sign {domain}:{time_ms}:{encode(ed25519_sign(key, signed))}"
        with ground.store.transaction() as tables:
            return ground.core.directory(header, tables, WALL)

    assert [each["name"] for each in ask(sign, WALL)["directory"]] == ["dc1.home.test"]
    for key, time_ms, domain in (
        (ground.random(32), WALL, "home.test"),
        (sign, WALL - HOUR, "home.test"),
        (sign, WALL, "lab.test"),
    ):
        with pytest.raises(Refused, match="enrolled coordinators"):
            ask(key, time_ms, domain)


@given(st.text(max_size=80))
def test_any_other_header_is_refused(header: str) -> None:
    ground = Ground(MemoryStore())
    with ground.store.transaction() as tables, pytest.raises(Refused):
        ground.core.directory(header, tables, WALL)


def login(ground: Ground, user: str, password: str, source: str = "192.0.2.9") -> dict[str, Any]:
    asked = {"user": user, "password": password}
    with ground.store.transaction() as tables:
        return ground.core.login(asked, tables, source, ground.now, ground.wall)


def test_login_gives_a_token_for_the_user(ground: Ground) -> None:
    ground.dc()
    with ground.store.transaction() as tables:
        tables.put_account(Account("ann", "hash of secret", 1))
        tables.put_account(Account("bob", "", 1))
    token = login(ground, "ann", "secret")["token"]
    ground.node("laptop", ground.random(32), token)
    with ground.store.transaction() as tables:
        member = tables.member("laptop.home.test")
        assert member is not None
        assert member.user == "ann"
    for user, password in (("ann", "wrong"), ("bob", "x"), ("nobody", "secret")):
        with pytest.raises(Refused) as refused:
            login(ground, user, password)
        assert refused.value.error == "bad_login"


def test_failed_logins_are_limited_by_account_and_by_source(memory: Ground) -> None:
    with memory.store.transaction() as tables:
        tables.put_account(Account("ann", "hash of secret", 1))

    def error(user: str, source: str) -> str:
        with pytest.raises(Refused) as refused:
            login(memory, user, "wrong", source)
        return refused.value.error

    for n in range(LOGIN_ACCOUNT.burst):
        assert error("ann", f"192.0.2.{n}") == "bad_login"
    assert error("ann", "192.0.2.99") == "too_many_attempts"
    memory.now += LOGIN_ACCOUNT.seconds
    assert login(memory, "ann", "secret")["token"]
    for n in range(LOGIN_SOURCE.burst):
        assert error(f"user{n}", f"2001:db8::{n + 1:x}") == "bad_login"
    assert error("other", "2001:db8::ffff") == "too_many_attempts"


def test_guessing_tokens_is_limited_and_joining_is_not(memory: Ground) -> None:
    memory.dc()
    for n in range(40):
        memory.node(f"n{n}", memory.random(32))
    errors = []
    for n in range(30):
        asked = {"token": f"{n:032}", "name": "x", "key": encode(public_key(memory.random(32)))}
        with pytest.raises(Refused) as refused:
            memory.begin("enrol", asked, "192.0.2.77")
        errors.append(refused.value.error)
    assert errors.count("unknown_invitation") == 20
    assert errors[-1] == "too_many_attempts"
    assert refused.value.retry_after > 0


def test_open_exchanges_are_bounded(memory: Ground) -> None:
    memory.dc()
    token = memory.invite(reusable=True)
    for n in range(EXCHANGES + 50):
        asked = {"token": token, "name": f"n{n}", "key": encode(public_key(memory.random(32)))}
        memory.begin("enrol", asked, f"10.{n >> 8}.{n & 255}.1")
    assert len(memory.core._exchanges) <= EXCHANGES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.sampled_from(["enrol", "servers/enrol", "renew", "leave"]),
    st.dictionaries(
        st.sampled_from(
            ["token", "name", "key", "role", "domain", "endpoints", "sign_key", "certificate",
             "exchange", "proof"]
        ),
        JSON | st.binary(max_size=40).map(encode),
    ),
)  # fmt: skip
def test_any_request_is_answered_or_refused(what: str, asked: dict[str, Any]) -> None:
    ground = Ground(MemoryStore())
    ground.dc()
    with pytest.raises(Refused):
        ground.begin(what, asked)
    with pytest.raises(Refused):
        ground.finish(what, asked)


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 10), st.floats(0.1, 10))
def test_a_bucket_never_gives_more_than_its_rate(
    waits: list[float], burst: int, seconds: float
) -> None:
    limiter, rate, now, given_out = Limiter(), Rate(burst, seconds), 0.0, 0
    for wait in waits:
        now += wait
        given_out += limiter.take(rate, "x", now) == 0.0
    assert given_out <= burst + now / seconds + 1e-6


def test_what_counts_as_one_source() -> None:
    assert source_key("2001:db8:1:2:3::4") == source_key("2001:db8:1:2::9")
    assert source_key("2001:db8:1:3::4") != source_key("2001:db8:1:2::4")
    assert source_key("192.0.2.1") != source_key("192.0.2.2")
    assert source_key("fe80::1%eth0") == "fe80::/64"
    assert source_key("unix") == "unix"
