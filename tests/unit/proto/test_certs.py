"""Certificates: what is issued is read back, what deviates is refused, who may be whom."""

import ipaddress
import shutil
import ssl
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto import certs, crypto
from ntmd.proto.certs import Anchor, Trust, check_leaf, issue, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.profile import CERTIFICATE_MAX, key_info
from ntmd.proto.types import Role

DAY = 86_400_000
NOW = 1_767_225_600_000
CA_PRIVATE = b"\x11" * 32
SERIAL = b"\x42" * 16
CA = certs.make_ca(CA_PRIVATE, NOW - DAY, NOW + 9000 * DAY, SERIAL)
PLATFORM = certs.platform_id_of(CA)
ANCHOR = Anchor(PLATFORM, (certs.ca_key_of(CA),))
TRUST = Trust((ANCHOR,))
PREFIX = ipaddress.IPv6Network((int(ANCHOR.network.network_address) | 7 << 64, 64))
KEY = crypto.public_key(b"\x22" * 32)


def leaf(role: Role = Role.NODE, name: str = "desk.home.test", **changes: object) -> bytes:
    """A certificate as the account server would write it."""
    values: dict[str, object] = {
        "public_key": KEY,
        "role": role,
        "name": name,
        "domain_labels": 2,
        "prefix": PREFIX if role in (Role.DC, Role.DC_SIGN) else None,
        "not_before_ms": NOW - DAY,
        "not_after_ms": NOW + 13 * DAY,
        "serial": SERIAL,
        **changes,
    }
    return issue(CA_PRIVATE, PLATFORM, **values)  # type: ignore[arg-type, call-arg]


@pytest.mark.parametrize("role", [Role.NODE, Role.DC, Role.RS, Role.DC_SIGN])
def test_every_role_comes_back_as_issued(role: Role) -> None:
    key = crypto.ed25519_public(b"\x23" * 32) if role is Role.DC_SIGN else KEY
    parsed = parse_leaf(leaf(role, public_key=key))
    assert (parsed.role, parsed.name, parsed.domain) == (role, "desk.home.test", "home.test")
    assert parsed.key == key
    assert (parsed.not_before_ms, parsed.not_after_ms) == (NOW - DAY, NOW + 13 * DAY)
    assert parsed.prefix == (PREFIX if role in (Role.DC, Role.DC_SIGN) else None)
    check_leaf(parsed, TRUST, role=role, name="desk.home.test", now_ms=NOW)


def test_sizes_stay_within_the_profile() -> None:
    assert len(leaf()) < 400
    longest = ".".join(["a" * 31] * 4)
    assert len(longest) == 127
    assert len(leaf(name=longest)) <= CERTIFICATE_MAX


def test_a_standard_parser_sees_what_we_mean() -> None:
    parsed = x509.load_der_x509_certificate(leaf())
    parsed.verify_directly_issued_by(x509.load_der_x509_certificate(CA))
    usage = parsed.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_agreement
    assert not usage.value.digital_signature
    assert parsed.subject.rfc4514_string() == ""
    ca = x509.load_der_x509_certificate(CA)
    ca.verify_directly_issued_by(ca)
    assert ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


@given(st.integers(0, 600), st.integers(1, 255))
def test_no_bent_certificate_is_trusted(at: int, flip: int) -> None:
    bent = bytearray(leaf())
    bent[at % len(bent)] ^= flip
    with pytest.raises(ProtocolError):
        check_leaf(parse_leaf(bytes(bent)), TRUST, role=Role.NODE, name=None, now_ms=NOW)


@given(st.binary(max_size=600))
def test_noise_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_leaf(data)
    with pytest.raises(ProtocolError):
        certs.ca_key_of(data)


def test_trailing_bytes_and_other_extensions_are_refused() -> None:
    with pytest.raises(ProtocolError):
        parse_leaf(leaf() + b"\0")
    with pytest.raises(ProtocolError):
        parse_leaf(CA)


def check(certificate: bytes, **changes: object) -> None:
    values: dict[str, object] = {"role": Role.NODE, "name": None, "now_ms": NOW, **changes}
    check_leaf(parse_leaf(certificate), TRUST, **values)  # type: ignore[arg-type, call-arg]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"role": Role.DC}, "certificate_role"),
        ({"name": "other.home.test"}, "certificate_name"),
        ({"now_ms": NOW + 14 * DAY}, "certificate_expired"),
        ({"now_ms": NOW - 2 * DAY}, "certificate_expired"),
        ({"now_ms": NOW - 2 * DAY, "grace_ms": 9 * DAY}, "certificate_expired"),
    ],
)
def test_each_reason_has_its_name(changes: dict[str, object], kind: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check(leaf(), **changes)
    assert caught.value.kind == kind


def test_slack_and_grace_widen_validity() -> None:
    check(leaf(), now_ms=NOW + 14 * DAY, grace_ms=2 * DAY)
    check(leaf(), now_ms=NOW - 2 * DAY, slack_ms=2 * DAY)


def test_another_ca_with_the_same_issuer_name_is_not_trusted() -> None:
    forged = issue(
        b"\x99" * 32, PLATFORM, public_key=KEY, role=Role.NODE, name="desk.home.test",
        domain_labels=2, prefix=None, not_before_ms=NOW, not_after_ms=NOW + DAY, serial=SERIAL,
    )  # fmt: skip
    with pytest.raises(ProtocolError) as caught:
        check(forged)
    assert caught.value.kind == "certificate_chain"


def test_a_coordinators_prefix_lies_in_its_platform() -> None:
    foreign = ipaddress.IPv6Network("fd00:1:2:3::/64")
    for prefix in (foreign, ANCHOR.network, None):
        with pytest.raises(ProtocolError) as caught:
            check(leaf(Role.DC, prefix=prefix), role=Role.DC)
        assert caught.value.kind == "certificate_prefix"
    with pytest.raises(ProtocolError):
        check(leaf(prefix=PREFIX))


def test_an_anchor_with_suffixes_vouches_for_these_only() -> None:
    scoped = Trust((replace(ANCHOR, suffixes=("lab.test",)),))
    parsed = parse_leaf(leaf())
    with pytest.raises(ProtocolError) as caught:
        check_leaf(parsed, scoped, role=Role.NODE, name=None, now_ms=NOW)
    assert caught.value.kind == "certificate_name"
    with pytest.raises(ValueError, match="one prefix"):
        Trust(
            (ANCHOR, replace(ANCHOR, platform_id=b"\1" * 32, prefix=ANCHOR.network[0].packed[:6]))
        )


@pytest.mark.parametrize(
    "changes",
    [{"name": n} for n in ("Desk.home.test", "", "a..b", "-a.b", "a" * 64, "x." * 70 + "y", "ä.b")]
    + [{"serial": b"\x01" * 15}, {"domain_labels": 4}, {"domain_labels": 0}, {"role": Role.TLS}],
)
def test_what_the_profile_forbids_is_not_issued(changes: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        leaf(**changes)  # type: ignore[arg-type, call-arg]


def test_possession_is_proved_for_this_key_name_and_request_only() -> None:
    node, ephemeral = b"\x31" * 32, b"\x32" * 32
    proof = certs.pop_proof(node, crypto.public_key(ephemeral), b"n" * 32, "a.test", b"r" * 32)
    right = (ephemeral, crypto.public_key(node), b"n" * 32, "a.test", b"r" * 32)
    assert certs.pop_check(*right, proof)
    for at, wrong in enumerate((b"\x33" * 32, KEY, b"m" * 32, "b.test", b"q" * 32)):
        values = [*right]
        values[at] = wrong
        assert not certs.pop_check(*values, proof)  # type: ignore[arg-type, call-arg]


@pytest.mark.parametrize("first", [0, 0x80, 0xFF])
def test_any_random_serial_can_be_used(first: int) -> None:
    serial = parse_leaf(leaf(serial=bytes((first,)) + b"\1" * 15)).serial
    assert len(serial) == 16
    assert 0 < serial[0] < 0x80


def test_ordinary_tls_accepts_the_server_certificate(tmp_path: Path) -> None:
    pem, spki = certs.tls_key(b"\x55" * 40)
    now = int(time.time() * 1000)
    ca = certs.make_ca(CA_PRIVATE, now - DAY, now + DAY, SERIAL)
    der = certs.issue_tls(
        CA_PRIVATE, PLATFORM, spki=spki, names=["as.home.test"], addresses=["192.0.2.1", "::1"],
        not_before_ms=now - DAY, not_after_ms=now + DAY, serial=SERIAL,
    )  # fmt: skip
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_text(ssl.DER_cert_to_PEM_cert(der))
    key.write_bytes(pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    for host, fits in (
        ("as.home.test", True),
        ("192.0.2.1", True),
        ("::1", True),
        ("b.test", False),
    ):
        client = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(ca))
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        if fits:
            assert tls_shakes_hands(client, server, host)
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                tls_shakes_hands(client, server, host)


def tls_shakes_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> bool:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=host),
        server.wrap_bio(up, down, server_side=True),
    ]
    done = [False, False]
    for _ in range(8):
        for number, end in enumerate(ends):
            if not done[number]:
                try:
                    end.do_handshake()
                    done[number] = True
                except ssl.SSLWantReadError:
                    continue
    return all(done)


def test_openssl_verifies_the_server_certificate(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program")
    _, spki = certs.tls_key(b"\x56" * 40)
    der = certs.issue_tls(
        CA_PRIVATE, PLATFORM, spki=spki, names=["as.home.test"], addresses=[],
        not_before_ms=NOW - DAY, not_after_ms=NOW + DAY, serial=SERIAL,
    )  # fmt: skip
    (tmp_path / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(CA))
    (tmp_path / "leaf.pem").write_text(ssl.DER_cert_to_PEM_cert(der))
    files = ["-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "leaf.pem")]
    at = ["-attime", str(NOW // 1000)]
    command = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", *at, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tls_wants_a_p256_key_and_a_name() -> None:
    _, spki = certs.tls_key(b"\x56" * 40)
    rest = {"not_before_ms": NOW, "not_after_ms": NOW + DAY, "serial": SERIAL}
    with pytest.raises(ValueError, match="name"):
        certs.issue_tls(CA_PRIVATE, PLATFORM, spki=spki, names=[], addresses=[], **rest)  # type: ignore[arg-type, call-arg]
    wrong = key_info(False, KEY)
    with pytest.raises(ValueError, match="P-256"):
        certs.issue_tls(CA_PRIVATE, PLATFORM, spki=wrong, names=["a.b"], addresses=[], **rest)  # type: ignore[arg-type, call-arg]
    with pytest.raises(ValueError, match="40"):
        certs.tls_key(bytes(32))
