"""The account server as a program: CA files, TLS, HTTPS on every address, a database thread."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ntm_as.core import AccountCore
from ntm_as.issuing import Platform, serial
from ntm_as.passwords import check_password
from ntm_as.store import SqlStore, database_complaint, open_engine
from ntm_as.tables import Tables
from ntm_as.web import application
from ntmd.proto import certs, timing
from ntmd.proto.crypto import ed25519_public
from ntmd.proto.errors import ProtocolError
from ntmd.runtime.account import JoinUrl
from ntmd.runtime.account_api import base_of
from ntmd.runtime.clock import wall_ms
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.journal import journal
from ntmd.runtime.statefiles import damaged, make_directory, read_file, write_file
from ntmd.runtime.stream_server import tcp_listener

CA_LIFETIME_MS = 20 * 365 * 86_400_000
BACKDATED_MS = int(timing.CLOCK_SLACK * 1000)
TLS_LIFETIME_MS = int(timing.SERVER_CERTIFICATE * 1000)
TLS_RENEWED_EVERY = 86_400.0  # seconds
CONNECTIONS = 512

Result = TypeVar("Result")
log = journal(__name__)


def open_platform(directory: Path) -> Platform:
    """The CA kept in ``directory``, made now if there is none; Complaint if it is damaged."""
    make_directory(directory)
    key_file, ca_file = directory / "ca.key", directory / "ca.der"
    if not key_file.exists():
        if ca_file.exists():
            raise damaged(key_file, f"it is missing, but {ca_file.name} is there")
        write_file(key_file, os.urandom(32))
    key = read_file(key_file, 64)
    if len(key) != 32:
        raise damaged(key_file, "it does not hold a key of 32 bytes")
    if not ca_file.exists():
        now = wall_ms()
        ca = certs.make_ca(key, now - BACKDATED_MS, now + CA_LIFETIME_MS, serial(os.urandom))
        write_file(ca_file, ca)
    ca = read_file(ca_file, 4096)
    try:
        if certs.ca_key_of(ca) != ed25519_public(key):
            raise damaged(ca_file, f"it does not belong to {key_file.name}")
        return Platform(key, ca, certs.platform_id_of(ca))
    except ProtocolError as error:
        raise damaged(ca_file, "it is not a CA certificate") from error


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the program around it decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class AsServer:
    """Serves HTTPS on every address of ``listen``; ``https_port`` 0 is any free one."""

    def __init__(
        self, data_dir: Path, listen: Sequence[str], https_port: int, database: str = ""
    ) -> None:
        self._dir = data_dir
        self._listen = tuple(listen)
        self._port = https_port
        self._url = database or f"sqlite:///{data_dir.absolute() / 'as.db'}"
        self._thread = ThreadPoolExecutor(1, "database")
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self.core: AccountCore
        self.store: SqlStore
        self.port = https_port

    @property
    def base(self) -> str:
        """``https://HOST:PORT`` of the first address that others can reach."""
        return base_of(self._listen[0], self.port)

    def join_url(self, token: str) -> str:
        """The line that invites; it carries every address listened on."""
        first, *others = self._listen
        return str(JoinUrl(first, self.port, self.core.platform.id, token, tuple(others)))

    async def start(self) -> None:
        """Open CA, database and sockets, and serve; Complaint if something cannot be had."""
        platform = open_platform(self._dir)
        loop = asyncio.get_running_loop()
        sockets = self._bind()
        try:
            self.store = await loop.run_in_executor(
                self._thread, lambda: SqlStore(open_engine(self._url))
            )
            self.core = AccountCore(platform, random=os.urandom, check_password=check_password)
            self._write_tls()
            config = self._config()
        except BaseException:
            for listener in sockets:
                listener.close()
            self._thread.shutdown(wait=False)
            raise
        self._server = _Server(config)
        self._task = loop.create_task(self._server.serve(sockets))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)
        if self._task.done():
            await self._task
            raise RuntimeError("the HTTPS server ended at once")
        self._renewal = loop.create_task(self._renew_tls(config))

    def http_protocol(self) -> asyncio.Protocol:
        """The HTTP of one connection that somebody else accepted and decrypted."""
        assert self._server is not None, "start() first"
        config = self._server.config
        made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self._server.server_state, app_state={}
        )
        return made

    @property
    def tls_file(self) -> Path:
        """Key and certificate for TLS on the addresses listened on (PEM), renewed daily."""
        return self._dir / "tls.pem"

    async def stop(self) -> None:
        """Answer what is under way (at most 2 s), then close everything."""
        if self._renewal is not None:
            self._renewal.cancel()
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._thread.shutdown()
        if hasattr(self, "store"):
            self.store.close()

    async def wait(self) -> None:
        """Return when the server ends; raises what made it fail."""
        assert self._task is not None, "start() first"
        await self._task

    async def run(self, work: Callable[[Tables], Result]) -> Result:
        """Do ``work`` in one transaction on the database thread."""

        def inside() -> Result:
            try:
                with self.store.transaction() as tables:
                    return work(tables)
            except sa.exc.SQLAlchemyError as error:
                raise database_complaint(self.store.engine, error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, inside)

    def metrics(self) -> dict[str, Any]:
        """Counters for the admin socket and ``/metrics``."""
        return {"counters": dict(self.core.counters)}

    # -------------------------------------------------------------- sockets, TLS

    def _bind(self) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        try:
            for address in self._listen:
                sockets.append(tcp_listener(address, self.port))
                self.port = sockets[-1].getsockname()[1]
        except Complaint:
            for listener in sockets:
                listener.close()
            raise
        return sockets

    def _addresses(self) -> list[str]:
        """What the certificate covers: the addresses listened on, and loopback."""
        addresses = dict.fromkeys([*self._listen, "127.0.0.1", "::1"])
        return [each for each in addresses if not ipaddress.ip_address(each).is_unspecified]

    def _write_tls(self) -> None:
        """A fresh P-256 leaf (rule S12); its key serves nothing else and is made anew each time."""
        key = ec.generate_private_key(ec.SECP256R1())
        now, platform = wall_ms(), self.core.platform
        leaf = certs.issue_tls(
            platform.ca_private,
            platform.id,
            spki=key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            names=["localhost"],
            addresses=self._addresses(),
            not_before_ms=now - BACKDATED_MS,
            not_after_ms=now + TLS_LIFETIME_MS,
            serial=serial(os.urandom),
        )
        chain = x509.load_der_x509_certificate(leaf).public_bytes(Encoding.PEM)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_file(self._dir / "tls.pem", private + chain)

    def _config(self) -> uvicorn.Config:
        config = uvicorn.Config(
            application(self.core, self.run),
            ssl_certfile=str(self._dir / "tls.pem"),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=16_384,
            http="h11",
            ws="none",
        )
        config.load()
        if config.ssl is not None:
            import ssl

            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
        return config

    async def _renew_tls(self, config: uvicorn.Config) -> None:
        while True:
            await asyncio.sleep(TLS_RENEWED_EVERY)
            try:
                self._write_tls()
            except Complaint as complaint:
                log.warning("the TLS certificate was not renewed", why=complaint.what)
                continue
            if config.ssl is not None:
                config.ssl.load_cert_chain(str(self._dir / "tls.pem"))
