"""A server's TLS port: its certificate from the account server, who shares it, and a taken port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ntm_server.membership import ServerFiles
from ntm_server.options import Settings
from ntm_server.tls import TlsPort
from ntmd.proto import tlskeys
from ntmd.proto.crypto import public_key
from ntmd.proto.stream import ALPN
from ntmd.proto.types import Endpoint, Role
from ntmd.runtime import account
from ntmd.runtime.account import ServerTls
from ntmd.runtime.account_api import AccountError
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.enrolment import encode
from ntmd.runtime.stream_server import StreamListener, StreamPort
from tests.unit.ports import free_port
from tests.unit.runtime.test_account import Running

HERE = Endpoint("127.0.0.1", 443)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "as")
    yield made
    made.end()


def relay(running: Running, folder: Path) -> ServerFiles:
    """A relay that asked for a TLS certificate."""
    files = ServerFiles(folder, "rs")
    files.keep(
        account.enrol_server(
            running.invite(role="rs", domain="home.test"),
            "rs",
            "home.test",
            [Endpoint("127.0.0.1", 4331)],
            files.key(),
            tls=ServerTls((HERE,), files.tls_key()),
        )
    )
    return files


def test_a_relay_gets_a_certificate_of_role_tls(running: Running, tmp_path: Path) -> None:
    files = relay(running, tmp_path / "rs")
    leaf = x509.load_der_x509_certificate(files.enrolment().tls_certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["rs1.home.test"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert any(use.dotted_string.endswith(f".{Role.TLS.value}") for use in uses)
    pem = files.tls_file()
    assert pem is not None
    assert pem.stat().st_mode & 0o777 == 0o600

    async def served() -> tuple[str | None, str | None]:
        loop = asyncio.get_running_loop()
        listener = StreamListener(["127.0.0.1"], 0, loop)
        listener.offer(ALPN[Role.RS], StreamPort(lambda *_: None, frozenset))
        listener.open(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=files.enrolment().ca)
        context.set_alpn_protocols([ALPN[Role.RS]])
        _, writer = await asyncio.open_connection(*listener.endpoints[0], ssl=context)
        tls = writer.get_extra_info("ssl_object")
        found = tls.version(), tls.selected_alpn_protocol()
        writer.close()
        listener.close()
        return found

    assert asyncio.run(served()) == ("TLSv1.3", ALPN[Role.RS])
    renewed = account.renew_server(
        files.enrolment(), files.key(), tls=ServerTls((HERE,), files.tls_key())
    )
    assert renewed.tls_certificate != files.enrolment().tls_certificate


def test_nobody_is_certified_for_a_key_that_is_not_his(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, thief = ServerFiles(tmp_path / "a", "rs"), ServerFiles(tmp_path / "b", "rs")
    theirs = tlskeys.public_of(victim.tls_key())
    monkeypatch.setattr(
        ServerTls, "asked", lambda self: {"tls_key": encode(theirs), "tls": [str(HERE)]}
    )
    with pytest.raises(AccountError) as refused:
        relay(running, thief.directory)
    assert refused.value.error == "bad_proof"
    for wrong in (b"", b"\x30\x00", os.urandom(91)):
        assert not tlskeys.proven(wrong, b"", bytes(32), "x", bytes(32))
    assert public_key(thief.key()) != public_key(victim.key())


def test_where_a_coordinator_listens_for_tls_reaches_its_nodes(running: Running) -> None:
    kept, key = running.dc, os.urandom(32)
    node = account.enrol_node(running.invite(name="first"), None, key)
    assert node.dc is not None
    assert node.dc.tls == ()
    assert node.dc.endpoints == (Endpoint("192.0.2.1", 4330),)
    dc_key = os.urandom(32)
    other = account.enrol_server(
        running.invite(role="dc", domain="lab.test"),
        "dc",
        "lab.test",
        [Endpoint("192.0.2.2", 4330)],
        dc_key,
        running.sign_key[::-1],
        ServerTls((HERE,)),
    )
    node = account.enrol_node(running.invite(name="n1.lab.test"), None, os.urandom(32))
    assert node.dc is not None
    assert node.dc.tls == (HERE,)
    assert node.dc.endpoints == (Endpoint("192.0.2.2", 4330),)
    assert other.tls_certificate == kept.tls_certificate == b""
    account.renew_server(other, dc_key, running.sign_key[::-1])  # says nothing of TLS: it stays
    again = account.enrol_node(running.invite(name="n2.lab.test"), None, os.urandom(32))
    assert again.dc is not None
    assert again.dc.tls == (HERE,)


@contextlib.contextmanager
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def port(data: Path, **given: Any) -> TlsPort:
    """A bound (or not) TLS port with these settings."""
    made = TlsPort(Settings(data, listen=("127.0.0.1",), **given), ("as", "dc", "rs"))

    async def bind() -> None:
        made.bind()

    asyncio.run(bind())
    return made


def test_a_taken_port_is_fatal_only_when_it_was_asked_for(tmp_path: Path) -> None:
    with taken() as number:
        with pytest.raises(Complaint, match="taken by another program"):
            port(tmp_path, tls_port=number, tls_asked=True)
        defaulted = port(tmp_path, tls_port=number)
    assert defaulted.endpoints == ()
    assert defaulted.status()["state"] == "failed"
    assert "taken by another program" in defaulted.status()["why"]
    assert port(tmp_path, tls_port=0, tls_asked=True).status() == {"state": "off", "why": ""}


def test_https_and_tls_on_one_port_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Complaint, match="cannot both have the port 8443"):
        port(tmp_path, tls_port=8443, tls_asked=True)


def test_https_is_served_on_the_shared_port(running: Running, tmp_path: Path) -> None:
    """Joining works through it: what asks for HTTP is handed to the account server."""
    settings = Settings(
        tmp_path, listen=("127.0.0.1",), tls_port=free_port(), tls_asked=True, https_port=1
    )
    shared = TlsPort(settings, ("as", "dc", "rs"))

    async def start() -> None:
        shared.bind()
        shared.offer_accounts(running.server)
        shared.open(None, running.server)

    running.call(start())
    try:
        url = account.parse_join_url(running.invite(name="shared"))
        there = str(replace(url, host="127.0.0.1", port=settings.tls_port, others=()))
        given = account.enrol_node(there, None, os.urandom(32))
        assert given.name == "shared.home.test"
        assert given.as_url == f"https://127.0.0.1:{settings.tls_port}"
        assert json.loads(json.dumps(shared.status()))["state"] == "open"
    finally:

        async def stop() -> None:
            shared.close()

        running.call(stop())
