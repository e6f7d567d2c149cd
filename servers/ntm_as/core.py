"""The account server's decisions: who may join under which name, and what it is given.

Pure: the store's transaction, the time, randomness and the password functions are handed in. Each
operation takes a decoded JSON object and returns one, or raises :class:`Refused`. Enrolment,
renewal and leaving are exchanges of two requests: *begin* states the wish and gets an ephemeral
key and a nonce, *finish* brings the proof of possession (rule C8). Open exchanges live in memory,
bounded and for a minute; whoever loses one begins again.

``now`` is the boot clock in seconds, ``wall_ms`` the platform's time in milliseconds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ntm_as import admission, issuing
from ntm_as.admission import Wish
from ntm_as.issuing import Platform
from ntm_as.limits import (
    JOIN_SOURCE,
    LOGIN_ACCOUNT,
    LOGIN_SOURCE,
    OPEN_SOURCE,
    Limiter,
    Rate,
    source_key,
)
from ntm_as.refusals import Refused
from ntm_as.requests import binary, short, texts
from ntm_as.tables import Member, Tables, Token
from ntmd.proto import certs, tlskeys
from ntmd.proto.crypto import ed25519_verify, public_key, sha256
from ntmd.runtime.enrolment import DIRECTORY_PROOF, SIGN_PROOF, encode

EXCHANGES = 4096
EXCHANGE_LIFETIME = 60.0  # seconds
DIRECTORY_SKEW = 300_000  # ms by which a directory request's time may be off
LOGIN_TOKEN_LIFETIME = 600_000  # ms
TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was begun and waits for its proof."""

    wish: Wish
    private: bytes
    nonce: bytes
    digest: bytes
    source: str
    until: float


class AccountCore:
    """Decides. ``check_password(hash, password)`` and ``random(n)`` are handed in."""

    def __init__(
        self,
        platform: Platform,
        *,
        random: Callable[[int], bytes],
        check_password: Callable[[str, str], bool],
    ) -> None:
        self.platform = platform
        self.counters: Counter[str] = Counter()
        self._random = random
        self._check_password = check_password
        self._limiter = Limiter()
        self._exchanges: OrderedDict[str, Exchange] = OrderedDict()

    # -------------------------------------------------------------- exchanges

    def begin(
        self,
        what: str,
        body: bytes,
        asked: Mapping[str, Any],
        tables: Tables,
        source: str,
        now: float,
        wall_ms: int,
    ) -> dict[str, Any]:
        """Start ``what``: "enrol", "servers/enrol", "renew" or "leave"."""
        source = source_key(source)
        self._limit(OPEN_SOURCE, source, now)
        if what in ("enrol", "servers/enrol"):
            self._limit(JOIN_SOURCE, source, now)
            wish = admission.to_enrol(what, asked, tables, wall_ms)
            self._limiter.give_back(JOIN_SOURCE, source, now)
        else:
            wish = admission.of_member(what, asked, tables)
        private, nonce = self._random(32), self._random(32)
        number = self._random(16).hex()
        self._forget(now)
        self._exchanges[number] = Exchange(
            wish, private, nonce, sha256(body), source, now + EXCHANGE_LIFETIME
        )
        return {
            "exchange": number,
            "ephemeral": encode(public_key(private)),
            "nonce": encode(nonce),
            "fqdn": wish.name,
            "time_ms": wall_ms,
        }

    def finish(
        self, what: str, asked: Mapping[str, Any], tables: Tables, now: float, wall_ms: int
    ) -> dict[str, Any]:
        """Check the proof of a begun exchange, then do what was wished."""
        self._forget(now)
        exchange = self._exchanges.pop(short(asked, "exchange"), None)
        if exchange is None or exchange.wish.what != what:
            raise Refused(410, "exchange_gone", "this exchange is over; begin again.")
        self._check_proof(exchange, asked, now)
        wish = exchange.wish
        if what == "leave":
            self._remove(tables, wish.member, wall_ms)
            self.counters["left"] += 1
            return {"time_ms": wall_ms}
        member = self._certify(wish, tables, wall_ms)
        tables.put_member(member)
        self.counters["renewed" if what == "renew" else f"enrolled_{member.role}"] += 1
        answer = issuing.answer(self.platform, member, tables, wall_ms)
        if wish.tls_key:
            made = issuing.tls_certificate(self.platform, wish, self._random, wall_ms)
            answer["tls_certificate"] = encode(made)
        return answer

    def _check_proof(self, exchange: Exchange, asked: Mapping[str, Any], now: float) -> None:
        wish = exchange.wish
        given = (exchange.private, exchange.nonce, wish.name, exchange.digest)
        proof = binary(asked, "proof", 32)
        good = certs.pop_check(exchange.private, wish.key, *given[1:], proof)
        if good and wish.sign_key and wish.what != "leave":
            signed = SIGN_PROOF + exchange.nonce + wish.name.encode() + b"\0" + exchange.digest
            good = ed25519_verify(wish.sign_key, binary(asked, "sign_proof", 64), signed)
        if good and wish.tls_key and wish.what != "leave":
            proof = binary(asked, "tls_proof")
            good = tlskeys.proven(wish.tls_key, proof, exchange.nonce, wish.name, exchange.digest)
        if not good:
            self.counters["bad_proof"] += 1
            self._limiter.take(JOIN_SOURCE, exchange.source, now)
            raise Refused(
                403,
                "bad_proof",
                "the proof that you hold the private key is wrong. Nothing was issued. "
                "Check that the key file belongs to this name.",
            )

    def _certify(self, wish: Wish, tables: Tables, wall_ms: int) -> Member:
        if wish.token is not None:
            admission.check_again(wish, tables)
            if not wish.token.reusable and not tables.spend_token(
                wish.token.hash, sha256(wish.key)
            ):
                raise admission.used_up()
        elif tables.member(wish.name) is None:
            raise admission.not_member()
        if wish.role == "dc" and tables.domain(wish.domain) is None:
            tables.add_domain(wish.domain, wall_ms)
        return issuing.certify(self.platform, wish, tables, self._random, wall_ms)

    def _forget(self, now: float) -> None:
        while self._exchanges:
            number, oldest = next(iter(self._exchanges.items()))
            if oldest.until > now and len(self._exchanges) < EXCHANGES:
                return
            del self._exchanges[number]

    def _limit(self, rate: Rate, key: str, now: float) -> None:
        wait = self._limiter.take(rate, key, now)
        if wait:
            self.counters["limited"] += 1
            raise Refused(
                429,
                "too_many_attempts",
                f"too many attempts. Wait {int(wait) + 1} s, then try again.",
                int(wait) + 1,
            )

    # -------------------------------------------------------------- login, directory

    def login(
        self,
        asked: Mapping[str, Any],
        tables: Tables,
        source: str,
        now: float,
        wall_ms: int,
    ) -> dict[str, Any]:
        """A one-time join token for a user's password."""
        user, password = short(asked, "user"), texts(asked, "password", 1024)
        source = source_key(source)
        self._limit(LOGIN_SOURCE, source, now)
        self._limit(LOGIN_ACCOUNT, user, now)
        account = tables.account(user)
        # a user who does not exist costs the same time: the hash of nobody is checked
        known = account is not None and account.password != ""
        stored = account.password if account is not None and known else ""
        if not self._check_password(stored, password) or not known:
            self.counters["login_refused"] += 1
            raise Refused(
                401, "bad_login", "user or password is wrong. Check both, or ask the operator."
            )
        self._limiter.give_back(LOGIN_SOURCE, source, now)
        self._limiter.give_back(LOGIN_ACCOUNT, user, now)
        self.counters["login"] += 1
        until = wall_ms + LOGIN_TOKEN_LIFETIME
        token = self.invite(
            tables, wall_ms, until, user=user, name=short(asked, "name", empty=True)
        )
        return {"token": token, "expires_ms": until}

    def directory(self, header: str, tables: Tables, wall_ms: int) -> dict[str, Any]:
        """All coordinators, for one of them that signed its request with its dc-sign key."""
        refused = Refused(
            401,
            "not_a_coordinator",
            "the directory is for enrolled coordinators. Check the clock and the signing key.",
        )
        scheme, _, rest = header.partition(" ")
        parts = rest.split(":")
        if scheme != "NTM-Sign" or len(parts) != 3 or not parts[1].isdecimal():
            raise refused
        domain, time_ms = parts[0], int(parts[1][:20])
        coordinators = tables.members("dc", domain) if domain else ()
        signed = DIRECTORY_PROOF + self.platform.id + domain.encode() + _u64(time_ms)
        proof = binary({"proof": parts[2]}, "proof", 64)
        if abs(time_ms - wall_ms) > DIRECTORY_SKEW or not any(
            ed25519_verify(member.sign_key, proof, signed) for member in coordinators
        ):
            raise refused
        return {
            "time_ms": wall_ms,
            "directory": issuing.directory(tables),
            "revoked": issuing.revoked(tables),
        }

    # -------------------------------------------------------------- the operator

    def invite(
        self,
        tables: Tables,
        wall_ms: int,
        expires_ms: int,
        *,
        role: str = "node",
        name: str = "",
        domain: str = "",
        user: str = "",
        reusable: bool = False,
    ) -> str:
        """A new join token; AccountCore keeps its hash only. Refused for a name that cannot be."""
        if user and tables.account(user) is None:
            raise Refused(404, "no_such_user", f"there is no user {user}. Add it first.")
        if name:
            name, domain = admission.name_for_invitation(name, domain, tables)
        elif domain:
            admission.check_domain(domain)
        tables.drop_tokens(wall_ms - 30 * 86_400_000)
        text = _token_text(self._random(TOKEN_BYTES))
        hashed = sha256(text.encode())
        tables.put_token(Token(hashed, role, name, domain, user, reusable, wall_ms, expires_ms))
        self.counters["invitations"] += 1
        return text

    def remove_node(self, name: str, tables: Tables, wall_ms: int) -> Member:
        """Remove a node or server for good: its keys go on the revocation list."""
        member = tables.member(name)
        if member is None:
            raise Refused(404, "no_such_node", f"there is no node {name}. `node list` shows all.")
        self._remove(tables, member, wall_ms)
        self.counters["removed"] += 1
        return member

    def _remove(self, tables: Tables, member: Member | None, wall_ms: int) -> None:
        if member is None or tables.member(member.name) is None:
            raise admission.not_member()
        not_after = max(member.expires_ms, wall_ms) + issuing.GRACE_MS
        tables.revoke(sha256(member.key), not_after)
        if member.sign_key:
            tables.revoke(sha256(member.sign_key), not_after)
        tables.drop_member(member.name)

    def set_endpoints(self, name: str, endpoints: tuple[str, ...], tables: Tables) -> None:
        """Announce other endpoints of a server."""
        member = tables.member(name)
        if member is not None and member.endpoints != endpoints:
            tables.put_member(replace(member, endpoints=endpoints))


def _u64(number: int) -> bytes:
    return (number & (1 << 64) - 1).to_bytes(8, "big")


def _token_text(data: bytes) -> str:
    return encode(data).replace("+", "-").replace("/", "_").rstrip("=")
