"""Running one role or all of them in one process, until a signal or a failure.

In ``all``, too, the coordinator and the relay are enrolled through the account server's HTTPS
interface and speak to each other in sealed datagrams, as if they were elsewhere.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from ntm_as.admission import check_domain as check_domain_name
from ntm_as.shell import AsServer
from ntm_as.tables import Tables
from ntm_rs.shell import RsServer
from ntm_server import membership
from ntm_server.desk import AdminDesk
from ntm_server.health import Health
from ntm_server.membership import ServerFiles
from ntm_server.options import Settings, usage
from ntm_server.servers import coordinator, relay
from ntm_server.tls import TlsPort
from ntmd.proto import certs, timing
from ntmd.proto.types import Endpoint
from ntmd.runtime.account_api import AccountError
from ntmd.runtime.clock import wall_ms
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.control import check_path
from ntmd.runtime.control_server import ControlServer
from ntmd.runtime.enrolment import Enrolment
from ntmd.runtime.journal import journal
from ntmd.runtime.statefiles import make_directory
from ntmd.runtime.stream_server import StreamListener

RENEW_EVERY = 6 * 3600.0  # seconds between looks at the certificates
OWN_TOKEN_MS = 60_000
REGISTRATION_WAIT = 3.0  # seconds that "ready" waits for the relay's registration
REGISTRATION_LOOK = 0.05
Result = TypeVar("Result")

log = journal(__name__)


class Role(Protocol):
    """What each role's shell offers."""

    async def start(self) -> None:
        """Bind and serve."""

    async def stop(self) -> None:
        """End cleanly."""

    async def wait(self) -> None:
        """Return when it ended; raise what made it fail."""

    def metrics(self) -> dict[str, Any]:
        """Counters and gauges."""


class Enrolled(Role, Protocol):
    """A role with an enrolment."""

    def renewed(self, enrolment: Enrolment) -> None:
        """Go on with renewed certificates."""


Member = Callable[[Settings, ServerFiles, Enrolment, StreamListener | None], Enrolled]
MEMBERS: dict[str, tuple[Member, int]] = {"dc": (coordinator, 0), "rs": (relay, 1)}


class Serving:
    """A process with ``roles``, some of "as", "dc", "rs" in this order."""

    def __init__(self, settings: Settings, roles: tuple[str, ...]) -> None:
        self.settings = settings
        self.names = roles
        self.running: dict[str, Role] = {}
        self._enrolled: dict[str, Enrolled] = {}
        self.files = {
            name: ServerFiles(settings.data / name, name) for name in roles if name in MEMBERS
        }
        self.ready = False
        self._ending = asyncio.Event()
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()
        self._desk = AdminDesk(self.status)
        self.tls = TlsPort(settings, roles)
        self._health = Health(self.metrics, lambda: self.ready)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; Complaint if a role cannot start or fails."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        admin = ControlServer(self.settings.admin_socket, self._desk.take)
        try:
            await self._start()
            await self._health.start(self._health_port())
            await self._registered()
            self.ready = True
            click.echo(self._ready_line())
            self._background(self._keep_renewed())
            await self._ending.wait()
        finally:
            self.ready = False
            self._health.close()
            for name in reversed(list(self.running)):
                await self._stop(name)
            for task in self._tasks:  # after the roles, whose ends they watch
                task.cancel()
            self.tls.close()
            admin.close()
        if self._failure is not None:
            raise self._failure

    # -------------------------------------------------------------- starting

    async def _start(self) -> None:
        self.tls.bind()
        if "as" in self.names:
            settings = self.settings
            accounts = AsServer(
                settings.data / "as", settings.listen, settings.https_port, settings.database
            )
            await self._run_role("as", accounts)
            self._desk.accounts = accounts
            self.tls.offer_accounts(accounts)
        for name in self.files:
            enrolment = await self._enrolment(name)
            self.tls.open(self.files[name], self._desk.accounts)
            streams = self.tls.listener
            role = MEMBERS[name][0](self.settings, self.files[name], enrolment, streams)
            await self._run_role(name, role)
            self._enrolled[name] = role
            if isinstance(role, RsServer):
                self._desk.relay = role

    async def _run_role(self, name: str, role: Role) -> None:
        await role.start()
        self.running[name] = role
        self._background(self._watch(name, role))

    async def _registered(self) -> None:
        """Give the relay a moment to find its coordinator, so that the first node hears of it."""
        relay = self.running.get("rs")
        for _ in range(int(REGISTRATION_WAIT / REGISTRATION_LOOK)):
            if relay is None or self._ending.is_set() or relay.metrics().get("registered"):
                return
            await asyncio.sleep(REGISTRATION_LOOK)
        log.warning("the relay has not reached its coordinator yet; it goes on trying")

    async def _watch(self, name: str, role: Role) -> None:
        try:
            await role.wait()
        except Exception as error:
            log.failure(f"the role {name} failed", error)
            self._failure = Complaint(
                f"the role {name} failed: {error}.",
                "The whole server ends, so that a supervisor starts it again.",
                "The log has the details.",
            )
        if self.running.get(name) is role:
            self._ending.set()

    async def _stop(self, name: str) -> None:
        role = self.running.pop(name)
        try:
            await role.stop()
        except Exception as error:  # the others must be stopped all the same
            log.failure(f"stopping the role {name} failed", error)

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -------------------------------------------------------------- membership

    def endpoints(self, name: str) -> list[Endpoint]:
        """Where a role announces itself."""
        port = self.settings.udp_port + MEMBERS[name][1]
        return [Endpoint(address, port) for address in self.settings.listen]

    async def _enrolment(self, name: str) -> Enrolment:
        """The role's enrolment: new, renewed, or the kept one while nobody answers."""
        files, settings = self.files[name], self.settings
        if not files.enrolled():
            url = settings.join or await self._own_invitation(name)
            return await _blocking(
                membership.enrol,
                files,
                url,
                settings.domain,
                self.endpoints(name),
                self.tls.own(files),
            )
        kept = files.enrolment()
        membership.check_domain(files, kept, settings.domain)
        accounts = self._desk.accounts
        if accounts is not None:
            kept = dataclasses.replace(kept, as_url=accounts.base)
        try:
            return await _blocking(
                membership.renew, files, kept, self.endpoints(name), self.tls.own(files)
            )
        except AccountError as error:
            if accounts is not None or error.error not in ("unreachable", "too_many_attempts"):
                raise
            log.warning("the account server does not answer; going on with what is kept")
            return kept

    async def _own_invitation(self, name: str) -> str:
        accounts, domain = self._desk.accounts, self.settings.domain
        if accounts is None:
            raise usage(
                f"this {name} has not been enrolled yet. Give --join URL, the line that "
                f"`ntm-server enrol {name}` printed at the account server."
            )
        now = wall_ms()

        def invite(tables: Tables) -> str:
            assert accounts is not None
            check_domain_name(domain)
            until = now + OWN_TOKEN_MS
            return accounts.core.invite(tables, now, until, role=name, domain=domain)

        return accounts.join_url(await accounts.run(invite))

    async def _keep_renewed(self) -> None:
        """Renew certificates from 1/3 of their life on; the roles take them over as they run."""
        while True:
            await asyncio.sleep(RENEW_EVERY)
            self.tls.open(None, self._desk.accounts)  # the account server's is renewed daily
            for name, files in self.files.items():
                leaf = certs.parse_leaf(files.enrolment().certificates[0])
                life = leaf.not_after_ms - leaf.not_before_ms
                if wall_ms() < leaf.not_before_ms + life * timing.RENEW_FROM:
                    continue
                try:
                    enrolment = await self._enrolment(name)
                except Complaint as complaint:
                    log.warning("a certificate was not renewed", role=name, why=complaint.what)
                    continue
                self._enrolled[name].renewed(enrolment)
                self.tls.open(files, self._desk.accounts)
                log.info("renewed the certificates", role=name)

    # -------------------------------------------------------------- telling

    def _health_port(self) -> int:
        accounts = self._desk.accounts
        return (accounts.port if accounts else self.settings.https_port) + 1

    def _ready_line(self) -> str:
        parts = []
        if self._desk.accounts is not None:
            parts.append(f"account server {self._desk.accounts.base}")
        titles = {"dc": "coordinator", "rs": "relay"}
        for name, files in self.files.items():
            where = " ".join(map(str, self.endpoints(name)))
            parts.append(f"{titles[name]} {files.enrolment().name} {where}")
        return "ready: " + ", ".join(parts)

    def metrics(self) -> dict[str, dict[str, Any]]:
        """The numbers of each role."""
        own = {name: role.metrics() for name, role in self.running.items()}
        listener = self.tls.listener
        return own if listener is None else {**own, "tls": listener.metrics()}

    async def status(self) -> dict[str, Any]:
        """For ``ntm-server status``."""
        result: dict[str, Any] = {
            "schema": 1,
            "state": "ready" if self.ready else "starting",
            "uptime_s": round(time.monotonic() - self._began, 1),
            "roles": {},
        }
        for name, role in self.running.items():
            numbers = role.metrics()
            result["roles"][name] = numbers
            if name in self.files:
                result["roles"][name] = {**_about(self.files[name].enrolment()), **numbers}
        result["tls"] = self.tls.status()
        accounts = self._desk.accounts
        if accounts is not None:
            counts = await accounts.run(_counts)
            own = {"url": accounts.base, "platform_id": accounts.core.platform.id.hex()}
            result["roles"]["as"] = {**own, **counts, **result["roles"].get("as", {})}
        return result


def _about(enrolment: Enrolment) -> dict[str, Any]:
    leaf = certs.parse_leaf(enrolment.certificates[0])
    return {
        "name": enrolment.name,
        "domain": enrolment.domain,
        "certificate_age_s": (wall_ms() - leaf.not_before_ms) // 1000,
        "certificate_left_s": (leaf.not_after_ms - wall_ms()) // 1000,
    }


def _counts(tables: Tables) -> dict[str, Any]:
    roles = [member.role for member in tables.members()]
    return {
        "domains": [domain.name for domain in tables.domains()],
        "nodes": roles.count("node"),
        "coordinators": roles.count("dc"),
        "relays": roles.count("rs"),
        "accounts": len(tables.accounts()),
    }


async def _blocking(what: Callable[..., Result], *arguments: Any) -> Result:
    work = functools.partial(what, *arguments)
    return await asyncio.get_running_loop().run_in_executor(None, work)


def serve(settings: Settings, roles: tuple[str, ...]) -> None:
    """Run ``roles`` in this process until a signal; Complaint if that is impossible."""
    check_path(settings.admin_socket)
    os.umask(0o077)  # databases are made by libraries that do not ask for a mode
    make_directory(Path(settings.data))

    async def run() -> None:
        await Serving(settings, roles).run()

    asyncio.run(run())
