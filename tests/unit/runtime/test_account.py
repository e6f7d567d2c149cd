"""The client of the account server against a real one, over TLS on loopback."""

from __future__ import annotations

import asyncio
import errno
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from ntm_as.passwords import check_password, hash_password
from ntm_as.shell import AsServer, open_platform
from ntm_as.tables import Account
from ntmd.config import Settings
from ntmd.membership import enrol
from ntmd.nodefiles import NodeFiles
from ntmd.progress import Progress
from ntmd.proto import certs
from ntmd.proto.crypto import public_key
from ntmd.proto.types import Endpoint, Role
from ntmd.runtime import account, account_api
from ntmd.runtime.account import parse_join_url
from ntmd.runtime.account_api import AccountError
from ntmd.runtime.clock import wall_ms
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.enrolment import Enrolment, encode

HOUR = 3_600_000


@pytest.fixture(autouse=True)
def _nobody_at_443(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port tried besides is one that nobody has, whatever else runs on this machine."""
    monkeypatch.setattr(account_api, "HTTPS", 1)


class Running:
    """An account server on an event loop in a thread of its own."""

    def __init__(
        self, directory: Path, listen: tuple[str, ...] = ("127.0.0.1", "::1"), port: int = 0
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = AsServer(directory, listen, port)
        self.call(self.server.start())
        self.sign_key = os.urandom(32)
        self.dc = account.enrol_server(
            self.invite(role="dc", domain="home.test"),
            "dc",
            "home.test",
            [Endpoint("192.0.2.1", 4330)],
            os.urandom(32),
            self.sign_key,
        )

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def run(self, work: Callable[[Any], Any]) -> Any:
        return self.call(self.server.run(work))

    def invite(self, expires_ms: int = HOUR, **what: Any) -> str:
        core, now = self.server.core, wall_ms()
        token = self.run(lambda tables: core.invite(tables, now, now + expires_ms, **what))
        return self.server.join_url(token)

    def end(self) -> None:
        self.call(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    found = Running(tmp_path_factory.mktemp("as"))
    yield found
    found.end()


def error_of(what: Callable[[], Any]) -> AccountError:
    with pytest.raises(AccountError) as caught:
        what()
    assert caught.value.text.strip()
    return caught.value


# ------------------------------------------------------------------ joining


def test_join_renew_and_leave(running: Running) -> None:
    key = os.urandom(32)
    given = account.enrol_node(running.invite(), "laptop", key)
    assert given.name == "laptop.home.test"
    assert given.domains == ("home.test",)
    assert given.dc is not None
    assert given.dc.endpoints == (Endpoint("192.0.2.1", 4330),)
    assert Enrolment.from_json(given.to_json()) == given
    trust = certs.Trust((certs.Anchor(given.platform_id, (certs.ca_key_of(given.ca),)),))
    leaf = certs.parse_leaf(given.certificates[0])
    certs.check_leaf(leaf, trust, role=Role.NODE, name=given.name, now_ms=wall_ms())
    assert leaf.key == public_key(key)
    renewed = account.renew_node(given, key)
    assert renewed.certificates != given.certificates
    assert renewed.name == given.name
    account.leave(renewed, key)
    assert error_of(lambda: account.renew_node(renewed, key)).error == "not_member"
    account.leave(renewed, key)  # a second time is fine


def test_a_full_disk_spends_no_invitation(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = NodeFiles(tmp_path)
    files.key_or_new(os.urandom)
    settings = Settings(state=tmp_path, join=running.invite(), name="full")
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(files.enrolment_file)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Complaint, match="disk is full"):
            enrol(settings, files, Progress(None, quiet=True))
    assert not files.enrolled()
    enrol(settings, files, Progress(None, quiet=True))
    assert files.enrolled()


def test_over_ipv6_too(running: Running) -> None:
    url = running.invite().replace("127.0.0.1", "[::1]")
    assert account.enrol_node(url, "six", os.urandom(32)).as_url.startswith("https://[::1]:")


def test_an_invitation_names_every_address_and_each_is_tried(
    running: Running, tmp_path: Path
) -> None:
    url = parse_join_url(running.invite())
    assert (url.host, url.others) == ("127.0.0.1", ("::1",))
    dead = str(replace(url, host="127.0.0.2"))
    key = os.urandom(32)
    given = account.enrol_node(dead, "raced", key)
    assert given.as_url == f"https://[::1]:{url.port}"
    assert given.as_hosts == ("127.0.0.2", "::1")
    assert Enrolment.from_json(given.to_json()) == given
    moved = replace(given, as_url=f"https://127.0.0.2:{url.port}")
    assert account.renew_node(moved, key).as_url == given.as_url
    other = Running(tmp_path, ("127.0.0.2",), url.port)
    try:  # by now somebody else serves at one of the addresses
        assert account.renew_node(moved, key).as_url == given.as_url
        fresh = replace(parse_join_url(running.invite()), host="127.0.0.2")
        assert account.enrol_node(str(fresh), "other", key2 := os.urandom(32)).name
        alone = replace(fresh, others=())
        assert error_of(lambda: account.enrol_node(str(alone), "x", key2)).error == (
            "wrong_fingerprint"
        )
    finally:
        other.end()
    nobody = replace(url, host="127.0.0.2", others=("127.0.0.3",))
    text = error_of(lambda: account.enrol_node(str(nobody), "x", key)).text
    assert "127.0.0.2" in text
    assert "127.0.0.3" in text


def test_a_wrong_fingerprint_ends_it_before_the_token_is_sent(running: Running) -> None:
    url = parse_join_url(running.invite())
    wrong = str(url).replace(url.platform_id.hex(), "00" * 32)
    error = error_of(lambda: account.enrol_node(wrong, "x", os.urandom(32)))
    assert (error.error, error.exit_code) == ("wrong_fingerprint", 1)
    assert account.enrol_node(str(url), "fp", os.urandom(32)).name == "fp.home.test"


def test_used_expired_and_taken(running: Running) -> None:
    url = running.invite()
    account.enrol_node(url, "first", os.urandom(32))
    assert error_of(lambda: account.enrol_node(url, "second", os.urandom(32))).error == (
        "used_invitation"
    )
    old = running.invite(expires_ms=-1)
    assert error_of(lambda: account.enrol_node(old, "x", os.urandom(32))).error == (
        "expired_invitation"
    )
    fresh = running.invite()
    error = error_of(lambda: account.enrol_node(fresh, "first", os.urandom(32)))
    assert error.error == "name_taken"
    assert "node remove first.home.test" in error.text


def test_servers_get_the_directory(running: Running) -> None:
    assert running.dc.delegation.endswith("/64")
    found = account.fetch_directory(running.dc, running.sign_key)
    assert [each.name for each in found] == ["dc1.home.test"]
    error = error_of(lambda: account.fetch_directory(running.dc, os.urandom(32)))
    assert error.error == "not_a_coordinator"


def test_login_with_a_password(running: Running) -> None:
    hashed = hash_password("correct horse")
    assert hashed.startswith("$argon2id$")
    assert check_password(hashed, "correct horse")
    assert not check_password(hashed, "wrong horse")
    assert not check_password("", "")
    running.run(lambda tables: tables.put_account(Account("ann", hashed, 1)))
    bare = str(parse_join_url(running.invite())).partition("&k=")[0]
    url = account.login(bare, "ann", "correct horse")
    assert account.enrol_node(url, "anns", os.urandom(32)).name == "anns.home.test"
    assert error_of(lambda: account.login(bare, "ann", "wrong")).error == "bad_login"


# ------------------------------------------------------------------ the world fails


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"https://127.0.0.1:{port}/join#v=1&ca={'0' * 64}&k={'x' * 32}"
    error = error_of(lambda: account.enrol_node(url, "x", os.urandom(32)))
    assert (error.error, error.exit_code) == ("unreachable", 4)


def test_somebody_else_there() -> None:
    """Plain HTTP, as a sign-in page would answer."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}/join#v=1&ca={'0' * 64}&k={'x' * 32}"
    assert error_of(lambda: account.enrol_node(url, "x", os.urandom(32))).error == "unreachable"
    server.server_close()


def test_a_certificate_of_another_platform_is_not_accepted(
    running: Running, tmp_path: Path
) -> None:
    """Only the pinned CA counts: the server presents a good chain to another one."""
    key = os.urandom(32)
    given = account.enrol_node(running.invite(), "pinned", key)
    other = open_platform(tmp_path)
    stolen = {**given.plain(), "ca": encode(other.ca)}
    error = error_of(lambda: account.renew_node(Enrolment.read(stolen), key))
    assert error.error == "untrusted"


def test_a_wrong_clock_is_named(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    url = running.invite()
    for off, way in ((86_400, "ahead"), (-86_400, "behind")):
        wrong = SimpleNamespace(time=lambda off=off: time.time() + off)  # the client's alone
        monkeypatch.setattr(account_api, "time", wrong)
        error = error_of(lambda: account.enrol_node(url, "x", os.urandom(32)))
        assert error.error == "clock"
        assert f"24.0 hours {way}" in error.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://x/join",
        "http://x/join#v=1&ca=" + "0" * 64 + "&k=" + "x" * 32,
        "https://x/join#v=2&ca=" + "0" * 64 + "&k=" + "x" * 32,
        "https://x/join#v=1&ca=" + "0" * 63 + "&k=" + "x" * 32,
        "https://x:99999/join#v=1&ca=" + "0" * 64 + "&k=" + "x" * 32,
        "https://[::1/join#v=1&ca=" + "0" * 64 + "&k=" + "x" * 32,
        "https://x/join#v=1&ca=" + "0" * 64,
        "https://x/join#v=1&ca=" + "0" * 64 + "&k=" + "x" * 32 + "&at=1.2.3",
        "https://x/join#v=1&ca=" + "0" * 64 + "&k=" + "x" * 32 + "&at=" + ",".join(["::1"] * 8),
    ],
)
def test_what_is_no_join_url(text: str) -> None:
    error = error_of(lambda: account.enrol_node(text, "x", os.urandom(32)))
    assert (error.error, error.exit_code) == ("bad_url", 2)


@given(st.text(max_size=200))
def test_any_text_is_a_join_url_or_a_complaint(text: str) -> None:
    try:
        url = parse_join_url(text)
    except AccountError:
        return
    assert parse_join_url(str(url)) == url


@given(st.recursive(st.none() | st.integers() | st.text(max_size=9), st.lists, max_leaves=4))
def test_a_foreign_enrolment_is_a_value_error(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"schema": 1, "name": value, "dc": value})):
        with pytest.raises(ValueError):  # noqa: PT011 - its text is shown with the file's name
            Enrolment.from_json(text)


# ------------------------------------------------------------------ the server's TLS and pages


def unchecked(running: Running) -> Any:
    import http.client

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", running.server.port, context=context)


def test_openssl_accepts_the_chain_with_tls_1_3(running: Running, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "openssl is needed"
    ca = x509.load_der_x509_certificate(running.server.core.platform.ca)
    (tmp_path / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    for host, address in (("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")):
        done = subprocess.run(
            [openssl, "s_client", "-connect", f"{host}:{running.server.port}", "-CAfile",
             tmp_path / "ca.pem", "-no-CApath", "-verify_ip", address, "-verify_return_error"],
            input=b"", capture_output=True, timeout=10, check=False,
        )  # fmt: skip
        said = done.stdout.decode()
        assert done.returncode == 0, done.stderr.decode()
        assert "Verify return code: 0 (ok)" in said
        assert "TLSv1.3" in said
    old = subprocess.run(
        [openssl, "s_client", "-connect", f"127.0.0.1:{running.server.port}", "-tls1_2"],
        input=b"", capture_output=True, timeout=10, check=False,
    )  # fmt: skip
    assert old.returncode != 0


def test_the_join_page_says_what_to_type(running: Running) -> None:
    connection = unchecked(running)
    connection.request("GET", "/join")
    answer = connection.getresponse()
    page = answer.read().decode()
    assert answer.status == 200
    assert "ntmd up --join" in page
    assert "script-src 'sha256-" in answer.getheader("Content-Security-Policy")
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/enrol/begin", b"", 400),
        ("POST", "/v1/enrol/begin", b"[1]", 400),
        ("POST", "/v1/enrol/begin", b"\xff\xfe", 400),
        ("POST", "/v1/enrol/begin", b"[" * 60_000, 400),
        ("POST", "/v1/enrol/begin", b"x" * 70_000, 413),
        ("POST", "/v1/login", b'{"user": "\\ud800", "password": "x"}', 400),
        ("POST", "/v1/nothing", b"{}", 404),
        ("GET", "/v1/login", None, 405),
        ("GET", "/v1/directory", None, 401),
    ],
)
def test_bad_requests_get_json_with_a_text(
    running: Running, method: str, path: str, body: bytes | None, status: int
) -> None:
    connection = unchecked(running)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    assert answer.status == status
    assert said["error"]
    assert said["text"]
    connection.close()


def test_a_taken_port_is_a_complaint(running: Running, tmp_path: Path) -> None:
    second = AsServer(tmp_path, ["127.0.0.1"], running.server.port)
    with pytest.raises(Complaint, match="taken by another program"):
        running.call(second.start())


def test_a_damaged_ca_is_never_replaced(tmp_path: Path) -> None:
    first = open_platform(tmp_path)
    assert open_platform(tmp_path) == first
    (tmp_path / "ca.key").write_bytes(os.urandom(32))
    with pytest.raises(Complaint, match="does not belong"):
        open_platform(tmp_path)
    (tmp_path / "ca.key").write_bytes(b"short")
    with pytest.raises(Complaint, match="32 bytes"):
        open_platform(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(Complaint, match="missing"):
        open_platform(tmp_path)
    assert not (tmp_path / "ca.key").exists()
