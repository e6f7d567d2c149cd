"""Who may join, under which name: checks of tokens, names and keys before anything is issued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ntm_as.refusals import Refused
from ntm_as.requests import binary, endpoints, short
from ntm_as.tables import Member, Tables, Token
from ntmd.proto import certs
from ntmd.proto.crypto import sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Endpoint
from ntmd.runtime.enrolment import LABEL, is_domain

SERVER_LABELS = ("as", "ns", "dc", "rs")  # with digits after them too: not for nodes
TLS_MARK = "tls:"  # before those of a member's endpoints that are for TLS
ROLE_NAMES = {"node": "a node", "dc": "a coordinator", "rs": "a relay"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What an exchange is about. ``member`` is who renews or leaves, ``token`` who joins by it.

    ``tls`` is where a server listens for TLS, ``tls_key`` the P-256 key (SPKI) to be certified.
    """

    what: str
    role: str
    name: str
    domain: str
    key: bytes
    user: str = ""
    sign_key: bytes = b""
    endpoints: tuple[Endpoint, ...] = ()
    token: Token | None = None
    member: Member | None = None
    tls: tuple[Endpoint, ...] = ()
    tls_key: bytes = b""


# ------------------------------------------------------------------ joining


def to_enrol(what: str, asked: Mapping[str, Any], tables: Tables, wall_ms: int) -> Wish:
    """The wish of somebody with a join token."""
    key = binary(asked, "key", 32)
    role = "node" if what == "enrol" else short(asked, "role")
    token = _token(short(asked, "token"), role, key, tables, wall_ms)
    if role == "node":
        name, domain = _node_name(short(asked, "name", empty=True), token, tables)
        wish = Wish(what, role, name, domain, key, token.user, token=token)
    else:
        wish = _server(what, role, asked, token, key, tables)
    check_again(wish, tables)
    return wish


def _token(text: str, role: str, key: bytes, tables: Tables, wall_ms: int) -> Token:
    token = tables.token(sha256(text.encode()))
    if token is None:
        raise Refused(
            403,
            "unknown_invitation",
            "this invitation is not known here. Check that the join URL is complete, or ask the "
            "operator for a new one (`ntm-server invite`).",
        )
    if token.expires_ms <= wall_ms:
        raise Refused(
            403,
            "expired_invitation",
            "this invitation has expired. Ask the operator for a new one (`ntm-server invite`).",
        )
    if token.used_by and token.used_by != sha256(key):
        raise used_up()
    if token.role != role:
        raise Refused(
            403,
            "other_invitation",
            f"this invitation is for {ROLE_NAMES[token.role]}. Nodes join with `ntm-server "
            "invite`, servers with `ntm-server enrol dc` or `enrol rs`.",
        )
    return token


def used_up() -> Refused:
    """Somebody joined with this one-time invitation before."""
    return Refused(
        403,
        "used_invitation",
        "this invitation is used up: another key joined with it. Ask the operator for a new one "
        "(`ntm-server invite`).",
    )


def not_member() -> Refused:
    """The key or certificate presented is nobody's here."""
    return Refused(
        404,
        "not_member",
        "this node is not (or no longer) a member of the platform. Ask the operator for a new "
        "invitation, `ntmd leave`, then join again.",
    )


def _node_name(asked: str, token: Token, tables: Tables) -> tuple[str, str]:
    """FQDN and domain of a node, from what it asks for and what the invitation fixes."""
    asked = asked.lower().rstrip(".")
    name = token.name or asked
    if not name:
        raise Refused(
            400, "no_name", "this invitation fixes no name. Choose one: `ntmd up --name NAME`."
        )
    if token.name and asked and asked not in (token.name, token.name.partition(".")[0]):
        raise Refused(
            403,
            "other_name",
            f"this invitation is for the name {token.name}. Leave --name out, or use that name.",
        )
    return split_name(name, token.domain, tables)


def split_name(name: str, domain: str, tables: Tables) -> tuple[str, str]:
    """FQDN and domain of ``name``, a label or a full name; ``domain`` is empty if it may be any."""
    domains = [each.name for each in tables.domains()]
    inside = [each for each in domains if name.endswith(f".{each}")]
    if inside:
        home = max(inside, key=len)
    elif "." not in name and (domain or len(domains) == 1):
        home = domain or domains[0]
        name = f"{name}.{home}"
    elif "." not in name and domains:
        raise Refused(
            400,
            "which_domain",
            f"there are several domains here: {', '.join(domains[:8])}. Give the full name.",
        )
    else:
        raise Refused(404, "no_such_domain", f"no domain of this platform contains {name}.")
    if domain and home != domain:
        raise Refused(403, "other_domain", f"this invitation is for names in {domain} only.")
    check_name(name, home)
    return name, home


def check_name(name: str, domain: str) -> None:
    """Refuse what is no name for a node: one label before the domain, 128 octets in all."""
    label = name.removesuffix(f".{domain}")
    if not is_domain(name) or not LABEL.match(label):
        raise Refused(
            400,
            "bad_name",
            f"{name[:140]} cannot be a node's name. Use letters, digits and hyphens, at most 128 "
            "characters with the domain.",
        )
    if label.rstrip("0123456789") in SERVER_LABELS:
        raise Refused(400, "reserved_name", f"the name {name} is kept for servers. Use another.")


def name_for_invitation(name: str, domain: str, tables: Tables) -> tuple[str, str]:
    """FQDN and domain that an invitation fixes; Refused if nobody could join by it."""
    full, home = split_name(name.lower().rstrip("."), domain, tables)
    if tables.member(full) is not None:
        raise _taken(full)
    return full, home


def check_domain(domain: str) -> None:
    """Refuse what is no domain name of at least two labels."""
    if not is_domain(domain) or "." not in domain or len(domain) > 100:
        raise Refused(
            400,
            "bad_domain",
            f"{domain[:140]!r} is not a domain. Use lower-case letters, digits, hyphens and dots, "
            "like home.test.",
        )


# ------------------------------------------------------------------ servers


def _server(
    what: str, role: str, asked: Mapping[str, Any], token: Token, key: bytes, tables: Tables
) -> Wish:
    domain = short(asked, "domain", empty=True) or token.domain
    check_domain(domain)
    if token.domain and domain != token.domain:
        raise Refused(403, "other_domain", f"this invitation is for the domain {token.domain}.")
    where = endpoints(asked)
    if not where:
        raise Refused(400, "bad_request", "a server announces at least one endpoint.")
    same = tables.member_of_key(key)
    if role == "dc":
        name, sign = f"dc1.{domain}", binary(asked, "sign_key", 32)
        _check_nesting(domain, tables)
    else:
        name, sign = same.name if same else _free_relay(domain, tables), b""
        if tables.domain(domain) is None:
            raise Refused(404, "no_such_domain", f"no coordinator serves {domain} yet.")
    wish = Wish(what, role, name, domain, key, "", sign, where, token)
    return replace(wish, tls=endpoints(asked, "tls"), tls_key=_tls_key(asked))


def _check_nesting(domain: str, tables: Tables) -> None:
    for each in tables.domains():
        if each.name.endswith(f".{domain}") or domain.endswith(f".{each.name}"):
            raise Refused(
                409, "nested_domain", f"{domain} and {each.name} contain each other. Use another."
            )


def _free_relay(domain: str, tables: Tables) -> str:
    taken = {member.name for member in tables.members("rs", domain)}
    return next(name for n in range(1, len(taken) + 2) if (name := f"rs{n}.{domain}") not in taken)


# ------------------------------------------------------------------ both


def _taken(name: str) -> Refused:
    return Refused(
        409,
        "name_taken",
        f"the name {name} is taken. Choose another, or have the operator remove it first "
        f"(`ntm-server node remove {name}`).",
    )


def check_again(wish: Wish, tables: Tables) -> None:
    """One name per key and one key per name (rule C8); revoked keys never come back."""
    member = tables.member(wish.name)
    if member is not None and member.key != wish.key:
        raise _taken(wish.name)
    for key in (wish.key, wish.sign_key):
        owner = tables.member_of_key(key) if key else None
        if owner is not None and owner.name != wish.name:
            raise Refused(
                409,
                "key_taken",
                f"this key belongs to {owner.name} already. A key has one name only: make a new "
                "one (`ntmd leave`, or another state directory).",
            )
        if key and tables.revoked(sha256(key)):
            raise Refused(
                403,
                "revoked_key",
                "this key was removed from the platform. Make a new one: `ntmd leave`, then join.",
            )


def of_member(what: str, asked: Mapping[str, Any], tables: Tables) -> Wish:
    """The wish to renew or leave of somebody who shows a certificate, expired or not."""
    try:
        leaf = certs.parse_leaf(binary(asked, "certificate"))
    except ProtocolError:
        raise Refused(400, "bad_request", "this is not a certificate of a member.") from None
    member = tables.member(leaf.name)
    if member is None or member.key != leaf.key or tables.revoked(sha256(leaf.key)):
        raise not_member()
    server = member.role != "node"
    given = endpoints(asked) if server else ()
    kept = _kept_endpoints(member) if server and not given else given
    tls = endpoints(asked, "tls") if "tls" in asked else tls_endpoints(member)
    return Wish(
        what,
        member.role,
        member.name,
        member.domain,
        member.key,
        member.user,
        member.sign_key,
        kept,
        member=member,
        tls=tls if server else (),
        tls_key=_tls_key(asked) if server else b"",
    )


def _tls_key(asked: Mapping[str, Any]) -> bytes:
    return binary(asked, "tls_key") if "tls_key" in asked else b""


def _kept_endpoints(member: Member) -> tuple[Endpoint, ...]:
    return endpoints({"endpoints": [e for e in member.endpoints if not e.startswith(TLS_MARK)]})


def tls_endpoints(member: Member) -> tuple[Endpoint, ...]:
    """Where a server listens for TLS."""
    marked = [e.removeprefix(TLS_MARK) for e in member.endpoints if e.startswith(TLS_MARK)]
    return endpoints({"endpoints": marked})
