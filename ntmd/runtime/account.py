"""The client of the account server: join, renew, leave; used by nodes and by servers.

First trust is the join URL, ``https://HOST:PORT/join#v=1&ca=<64 hex digits>&k=<token>&at=<further
addresses of the server, at the same port>``: ``ca`` is the platform id, the SHA-256 of the CA's
SubjectPublicKeyInfo. All addresses are tried (:mod:`ntmd.runtime.eyeballs`). The CA is fetched
without any check, compared with the fingerprint, and from then on is the only root; the system's
roots are ignored (rule S12). An X25519 key cannot sign, so its possession is proved by rule C8.

Synchronous; how requests get there is in :mod:`ntmd.runtime.account_api`.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ntmd.proto import certs, tlskeys
from ntmd.proto.crypto import ed25519_public, ed25519_sign, public_key, sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Endpoint
from ntmd.runtime.account_api import AccountError, Api, base_of, not_understood
from ntmd.runtime.complaints import Exit
from ntmd.runtime.enrolment import (
    DIRECTORY_PROOF,
    SIGN_PROOF,
    Coordinator,
    Enrolment,
    decode,
    encode,
)
from ntmd.runtime.proxy import Proxy

MOST_HOSTS = 8
FRAGMENT = re.compile(
    r"v=1&ca=([0-9a-f]{64})(?:&k=([A-Za-z0-9_-]{16,128}))?(?:&at=([0-9A-Fa-f:.,]{3,400}))?\Z"
)


@dataclass(frozen=True, slots=True)
class JoinUrl:
    """A join URL taken apart; ``token`` is empty in one that is meant for logging in.

    ``others`` are further addresses of the same server.
    """

    host: str
    port: int
    platform_id: bytes
    token: str = ""
    others: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """``https://HOST:PORT``, IPv6 addresses in brackets."""
        return base_of(self.host, self.port)

    def __str__(self) -> str:
        key = f"&k={self.token}" if self.token else ""
        others = f"&at={','.join(self.others)}" if self.others else ""
        return f"{self.base}/join#v=1&ca={self.platform_id.hex()}{key}{others}"


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Where a server listens for TLS, and its P-256 key if it needs a certificate (rule S12)."""

    endpoints: tuple[Endpoint, ...] = ()
    key: bytes = b""

    def asked(self) -> dict[str, Any]:
        """As members of a request."""
        asked: dict[str, Any] = {"tls": [str(endpoint) for endpoint in self.endpoints]}
        return asked | ({"tls_key": encode(tlskeys.public_of(self.key))} if self.key else {})


def parse_join_url(text: str) -> JoinUrl:
    """The join URL in ``text``; AccountError (exit code 2) if it is none."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port or 443
        match = FRAGMENT.match(parts.fragment)
        named = match[3].split(",") if match and match[3] else []
        others = tuple(str(ipaddress.ip_address(each)) for each in named)
    except ValueError:
        raise _bad_url() from None
    if parts.scheme != "https" or not host or parts.path != "/join" or match is None:
        raise _bad_url()
    if len(others) >= MOST_HOSTS:
        raise _bad_url()
    return JoinUrl(host, port, bytes.fromhex(match[1]), match[2] or "", others)


def _bad_url() -> AccountError:
    return AccountError(
        "this is not a join URL.",
        "It must look like https://HOST:PORT/join#v=1&ca=...&k=... and be complete, on one line.",
        "Copy the whole line that `ntm-server invite` printed, and put it in quotes.",
        Exit.USAGE,
        "bad_url",
    )


# ------------------------------------------------------------------ what callers want


def enrol_node(
    join_url: str, name: str | None, private_key: bytes, proxy: Proxy | None = None
) -> Enrolment:
    """Join a platform with the node's X25519 ``private_key`` (32 bytes).

    ``name`` is a label, a full name, or None if the invitation fixes one. AccountError otherwise.
    """
    url = _with_token(join_url)
    asked = {"token": url.token, "name": name or "", "key": encode(public_key(private_key))}
    return _enrolment(_reach(url, proxy), "enrol", asked, private_key)


def enrol_server(
    join_url: str,
    role: str,
    domain: str,
    endpoints: Sequence[Endpoint],
    private_key: bytes,
    sign_key: bytes = b"",
    tls: ServerTls | None = None,
) -> Enrolment:
    """Enrol a server: ``role`` "dc" (with its Ed25519 ``sign_key``) or "rs" of ``domain``."""
    url = _with_token(join_url)
    asked = {
        "token": url.token,
        "role": role,
        "domain": domain,
        "key": encode(public_key(private_key)),
        "endpoints": [str(endpoint) for endpoint in endpoints],
    }
    if sign_key:
        asked["sign_key"] = encode(ed25519_public(sign_key))
    asked |= tls.asked() if tls is not None else {}
    return _enrolment(_reach(url), "servers/enrol", asked, private_key, sign_key, tls)


def renew_node(state: Enrolment, private_key: bytes, proxy: Proxy | None = None) -> Enrolment:
    """A fresh certificate for the same key and name; works with an expired one too."""
    return _enrolment(_known(state, proxy), "renew", _presented(state), private_key)


def renew_server(
    state: Enrolment,
    private_key: bytes,
    sign_key: bytes = b"",
    endpoints: Sequence[Endpoint] = (),
    tls: ServerTls | None = None,
) -> Enrolment:
    """Fresh certificates and directory; ``endpoints``, if given, replace the announced ones."""
    asked = _presented(state)
    if endpoints:
        asked["endpoints"] = [str(endpoint) for endpoint in endpoints]
    asked |= tls.asked() if tls is not None else {}
    return _enrolment(_known(state), "renew", asked, private_key, sign_key, tls)


def leave(state: Enrolment, private_key: bytes, proxy: Proxy | None = None) -> None:
    """Remove this node at the account server; a node that is not known there is fine."""
    try:
        _prove(_known(state, proxy), "leave", _presented(state), private_key)
    except AccountError as refused:
        if refused.error != "not_member":
            raise


def fetch_directory(state: Enrolment, sign_key: bytes) -> tuple[Coordinator, ...]:
    """All coordinators of the platform; for an enrolled one, which signs with its dc-sign key."""
    api = _known(state)
    now = int(api.server_ms or time.time() * 1000)
    signed = DIRECTORY_PROOF + state.platform_id + state.domain.encode() + now.to_bytes(8, "big")
    proof = f"NTM-Sign {state.domain}:{now}:{encode(ed25519_sign(sign_key, signed))}"
    answer = api.call("GET", "/v1/directory", None, {"Authorization": proof})
    try:
        return tuple(Coordinator.read(item) for item in answer["directory"])
    except (KeyError, TypeError, ValueError) as error:
        raise not_understood(api) from error


def login(join_url: str, user: str, password: str, name: str = "") -> str:
    """A join URL with a one-time token, for a user's password. ``join_url`` needs no token."""
    url = parse_join_url(join_url)
    api = _reach(url)
    answer = api.post("/v1/login", {"user": user, "password": password, "name": name})
    return str(replace(url, token=_member(api, answer, "token")))


# ------------------------------------------------------------------ the exchange


def _with_token(join_url: str) -> JoinUrl:
    url = parse_join_url(join_url)
    if not url.token:
        raise _bad_url()
    return url


def _presented(state: Enrolment) -> dict[str, Any]:
    return {"certificate": encode(state.certificates[0])}


def _enrolment(
    api: Api,
    what: str,
    asked: dict[str, Any],
    private_key: bytes,
    sign_key: bytes = b"",
    tls: ServerTls | None = None,
) -> Enrolment:
    answer = _prove(api, what, asked, private_key, sign_key, tls)
    try:
        known = {"as_url": api.base, "as_hosts": list(api.hosts), "ca": encode(api.ca)}
        given = Enrolment.read({**answer, **known})
        leaf = certs.parse_leaf(given.certificates[0])
    except (ValueError, IndexError, ProtocolError) as error:
        raise not_understood(api) from error
    if leaf.key != public_key(private_key) or given.platform_id != api.platform_id:
        raise not_understood(api)
    return given


def _prove(
    api: Api,
    what: str,
    asked: dict[str, Any],
    private_key: bytes,
    sign_key: bytes = b"",
    tls: ServerTls | None = None,
) -> dict[str, Any]:
    """Begin, prove possession of the keys (rule C8), finish."""
    body = json.dumps(asked).encode()
    begun = api.call("POST", f"/v1/{what}/begin", body)
    try:
        ephemeral = decode(begun.get("ephemeral"), 32)
        nonce = decode(begun.get("nonce"), 32)
        fqdn = _member(api, begun, "fqdn")
        digest = sha256(body)
        proof = certs.pop_proof(private_key, ephemeral, nonce, fqdn, digest)
    except (ValueError, ProtocolError) as error:
        raise not_understood(api) from error
    finish = {"exchange": _member(api, begun, "exchange"), "proof": encode(proof)}
    if sign_key:
        signed = SIGN_PROOF + nonce + fqdn.encode() + b"\0" + digest
        finish["sign_proof"] = encode(ed25519_sign(sign_key, signed))
    if tls is not None and tls.key:
        finish["tls_proof"] = encode(tlskeys.prove(tls.key, nonce, fqdn, digest))
    return api.post(f"/v1/{what}/finish", finish)


def _member(api: Api, answer: dict[str, Any], key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str):
        raise not_understood(api)
    return value


# ------------------------------------------------------------------ the connection


def _reach(url: JoinUrl, proxy: Proxy | None = None) -> Api:
    """Fetch the CA over an unchecked connection, and check its fingerprint."""
    api = Api((url.host, *url.others), url.port, url.platform_id, b"", proxy)
    other = ""
    while True:
        try:
            ca = api.fetch_ca()
            if certs.platform_id_of(ca) == url.platform_id:
                break
        except (ProtocolError, ValueError):
            pass
        except AccountError:
            if other:  # that somebody else answers there says more
                raise _wrong_fingerprint(other) from None
            raise
        other = other or api.base
        if not api.give_up_host():
            raise _wrong_fingerprint(other)
    api.ca = ca
    api.check_clock()
    return api


def _wrong_fingerprint(base: str) -> AccountError:
    return AccountError(
        f"the server at {base} has another fingerprint than the join URL says.",
        "It is not the account server that invited you, or somebody sits in between.",
        "Check the join URL; on a network with a sign-in page, sign in first.",
        Exit.FAILED,
        "wrong_fingerprint",
    )


def _known(state: Enrolment, proxy: Proxy | None = None) -> Api:
    parts = urlsplit(state.as_url)
    hosts = (parts.hostname or "", *state.as_hosts)
    return Api(hosts, parts.port or 443, state.platform_id, state.ca, proxy)
