"""The daemon: the node's core between the plane, the platform, the stub resolver and the user.

Everything here moves values: events to the core, its commands to whoever carries them out. Nothing
is decided, except when to stop. If the plane's process dies, this process replaces itself by a
fresh one (``exec``): the TUN stays as it is, old data keys are gone with the plane (rule C1), and
the new core shakes hands again with every recent peer.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ntmd import __version__
from ntmd.config import Settings
from ntmd.dataplane.remote import PlaneProcess
from ntmd.keylog import KeyLog
from ntmd.membership import Membership, renew
from ntmd.names import Resolver
from ntmd.node.commands import (
    ConfigureDevice,
    EndScout,
    NameAnswered,
    RenewCertificate,
    ScoutNetwork,
    StateChanged,
)
from ntmd.node.core import NodeCore
from ntmd.node.inputs import (
    ClockRead,
    CommandFailed,
    DeviceReady,
    NetworkChanged,
    Stopping,
    Woke,
)
from ntmd.node.settings import NodeSettings
from ntmd.nodefiles import NodeFiles
from ntmd.platform import Device
from ntmd.platform.linux.device import MARK, LinuxPlatform
from ntmd.platform.linux.scout import Scouts
from ntmd.progress import Progress
from ntmd.proto.io import SendDatagram, Store, Tell, UserAnswered
from ntmd.proto.plane import (
    BlockInterface,
    CloseSocket,
    DeviceFailed,
    InstallTunnel,
    OpenSocket,
    OpenStream,
    ParkStreams,
    ReleaseParked,
    RemoveTunnel,
    Resend,
    SocketFailed,
    StreamSettings,
    SwitchPath,
)
from ntmd.proto.timing import CLOSE_COPIES
from ntmd.proto.types import format_address
from ntmd.runtime.clock import ClockWatch, boot_clock, wall_ms
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.control_server import ControlServer, Desk, Request
from ntmd.runtime.driver import Driver
from ntmd.runtime.journal import Trace, journal
from ntmd.slim import give_back

USABLE_WITHIN = 7.0  # seconds that a first registration may take
SETTLED_WITHIN = 3.0  # seconds after which a node with an address counts as usable as it is
GOODBYE = 1.0  # seconds for the core to say goodbye
TIDY_AFTER = 10.0  # seconds without a change of network or path: nobody is in a hurry any more
LAST_COPY = CLOSE_COPIES[-1] + 0.05  # and for the last copy of Close to leave
ADVICE = {
    "joining": "the coordinator {domain} did not answer within {seconds:.0f} s.",
    "offline": "there is no network: no interface has an address that could carry a tunnel.",
    "degraded": "the coordinator {domain} does not answer; known peers can still be reached.",
}

log = journal("ntmd")
core_log = journal("ntmd.node")


class PlaneDied(Exception):
    """The plane's process is gone: this process has to start afresh."""


class Daemon:
    """One node, from the open TUN to the last Close."""

    def __init__(
        self, settings: Settings, files: NodeFiles, membership: Membership, progress: Progress
    ) -> None:
        self.settings = settings
        self.state = "joining"
        self.progress = progress
        self._files = files
        self._store = files.store()
        self._membership = membership
        self._started = time.monotonic()
        self._platform = LinuxPlatform(settings.state, membership.fingerprint)
        self._writer = ThreadPoolExecutor(1, "store")
        self._trace = Trace(settings.trace) if settings.trace else None
        self._keylog = KeyLog(settings.keylog) if settings.keylog else None
        self._device: ConfigureDevice | None = None
        self._device_up = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._downs: list[Request] = []
        self._stopping = False
        self._said_down = asyncio.Event()
        self._restart = False
        self._tidy: asyncio.TimerHandle | None = None
        self._unwritten: tuple[str, int] | None = None  # why the last write failed, since when

    async def run(self) -> None:
        """Serve until told to stop; raises PlaneDied, or what failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        # the control socket first: it refuses to start beside another daemon
        self._control = ControlServer(self.settings.socket, self._request)
        try:
            await self._serve(loop)
        finally:
            for request in self._downs:
                request.answer({"pid": os.getpid()})
            self._control.close()
            self._writer.shutdown()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        tun = await self._platform.open_tun(self.settings.interface)
        again = " again" if tun.taken_over else ""
        self.progress.step(f"interface {tun.name} is open{again}")
        self._plane = PlaneProcess(self._plane_event)
        self._plane.start(tun.descriptor, tun.vnet_header, None, MARK)
        self._plane.send(
            StreamSettings(self._membership.ca, self.settings.proxy, self.settings.no_proxy)
        )
        now = boot_clock()
        core = NodeCore(
            self._node_settings(),
            self._membership.identity(),
            self._membership.trust(),
            self._membership.home(),
            self._store.read_all(),
            random=os.urandom,
            now=now,
            wall_ms=wall_ms(),
            persist=self._keep,
        )
        self._clocks = ClockWatch()
        self._driver = Driver(core, self._execute, trace=self._trace, look=self._look)
        self._desk = Desk(self._driver.post, self._finish_answer)
        self._names = Resolver(self.settings.dns, self._platform, self._driver.post)
        self._scouts = Scouts(
            self._driver.post, self._names.resolvers, ports=self.settings.portmap == "auto"
        )
        self._spawn(self._platform.watch(self._network_changed), "the underlay watcher")
        self._spawn(self._platform.watch_sleep(self._driver.look), "the watch over sleep")
        loop.call_later(SETTLED_WITHIN, self._settled)
        loop.call_later(USABLE_WITHIN, self._too_late)
        self.progress.step(f"asking the coordinator of {self._membership.domain}")
        try:
            await self._driver.run()
        finally:
            self._names.close()
            await self._scouts.close()
            for task in self._tasks:
                task.cancel()
            self._plane.close()
        if self._restart:
            await self._platform.close()
            raise PlaneDied
        await self._platform.give_back()

    def _node_settings(self) -> NodeSettings:
        return NodeSettings(
            interface=self.settings.interface,
            port=self.settings.port,
            rekey_after=float(self.settings.rekey),
            metered=self.settings.metered,
            version=__version__,
        )

    # ------------------------------------------------------------------ events

    def _network_changed(self, event: NetworkChanged) -> None:
        self._driver.post(event)  # first: whoever moves is in a hurry
        self._names.refresh()
        self._tidy_later()

    def _tidy_later(self) -> None:
        if self._tidy is not None:
            self._tidy.cancel()
        self._tidy = asyncio.get_running_loop().call_later(TIDY_AFTER, give_back)

    def _plane_event(self, event: Any) -> None:
        if isinstance(event, DeviceFailed) and not self._stopping:
            log.warning("the data plane failed", errno=event.errno, text=event.text)
            self._restart = True
            self._driver.stop()
            return
        if isinstance(event, SocketFailed) and event.errno == errno.EADDRINUSE:
            self._port_taken()
        self._driver.post(event)

    def _port_taken(self) -> None:
        log.warning("the UDP port is taken by another program", port=self.settings.port)
        if self.progress.pending:
            self._give_up(
                Complaint(
                    f"UDP port {self.settings.port} is taken by another program.",
                    "Peers could not reach this node there.",
                    "Stop that program (ss -lunp shows it), or choose another --port; 0 is any.",
                )
            )

    def _request(self, request: Request) -> None:
        if request.what == "down":
            request.answer({"pid": os.getpid()}, last=False)
            self._downs.append(request)
            self.stop()
        elif hasattr(self, "_desk") and not self._stopping:
            self._desk.ask(request)
        else:
            request.fail("ntmd is starting or stopping; try again in a second.")

    def _look(self) -> list[Any]:
        """What the clocks say happened: sleep, or a wall clock that was set."""
        found: list[Any] = []
        if slept := self._clocks.slept():
            log.info("the machine slept", seconds=round(slept, 1))
            found.append(Woke(slept))
        if (wall := self._clocks.set_to()) is not None:
            found.append(ClockRead(wall))
        return found

    # ------------------------------------------------------------------ commands

    def _execute(self, command: Any) -> None:
        match command:
            case SendDatagram() | OpenSocket() | CloseSocket() | RemoveTunnel():
                self._plane.send(command)
            case SwitchPath():
                self._plane.send(command)
                self._tidy_later()
            case InstallTunnel():
                if self._keylog is not None:
                    self._keylog.installed(command)
                self._plane.send(command)
            case Resend() | ParkStreams() | ReleaseParked() | OpenStream():
                self._plane.send(command)
            case BlockInterface():
                self._plane.send(command)
                self._scouts.block(command.interface, command.seconds)
            case Store():
                self._writer.submit(self._keep, command.key, command.value)
            case Tell():
                core_log.tell(command.level, command.what, command.fields)
            case UserAnswered():
                self._desk.answered(command)
            case NameAnswered():
                self._names.answered(command)
            case ConfigureDevice():
                self._device = command
                self._plane.set_own_address(command.address)
                self._spawn(self._configure(command), "configuring the TUN")
            case StateChanged():
                self._state_changed(command)
            case ScoutNetwork():
                self._scouts.begin(command)
            case EndScout():
                self._scouts.end(command)
            case RenewCertificate():
                self._spawn(self._renew(command.after), "renewing the certificate")
            case _:
                raise TypeError(f"nobody executes {command!r}")

    def _keep(self, key: str, value: bytes | None) -> None:
        """Write one value. A full disk must not end tunnels: the node goes on, and says so.

        The mark of initiation sequences that is not written either costs nothing unless this
        machine also restarts and its clock is set back: then peers refuse its calls as old.
        """
        try:
            self._store.put(key, value)
        except Complaint as complaint:
            log.warning("cannot remember", key=key, why=complaint.what)
            self._unwritten = self._unwritten or (complaint.what, wall_ms() // 1000)
        else:
            self._unwritten = None

    async def _configure(self, wish: ConfigureDevice) -> None:
        device = Device(
            format_address(wish.address), format_address(wish.dns_address), wish.prefix, wish.mtu
        )
        try:
            await self._platform.configure(device)
        except Complaint as complaint:
            if not self._device_up:
                self._give_up(complaint)
                return
            self._driver.post(CommandFailed("ConfigureDevice", 0, complaint.what))
            return
        if not self._device_up:
            self.progress.step(f"address {device.address}")
        await self._names.start(device.dns_address, wish.domains)
        self._device_up = True
        self._driver.post(DeviceReady(self.settings.interface))
        if self.state == "up":
            self._usable()

    def _state_changed(self, command: StateChanged) -> None:
        self.state = command.state
        log.info("state", state=command.state, detail=command.detail)
        if command.state == "down":
            self._said_down.set()
        elif command.state == "up" and self._device_up:
            self._usable()

    async def _renew(self, after: float) -> None:
        await asyncio.sleep(max(0.0, after))
        self._driver.post(await renew(self.settings, self._files))

    # ------------------------------------------------------------------ usable or not

    def _usable(self) -> None:
        if self._device is None or self._stopping:
            return
        if self._names.note:
            self.progress.note(self._names.note)
        self.progress.usable(
            {
                "name": self._membership.name,
                "address": format_address(self._device.address),
                "interface": self.settings.interface,
                "state": self.state,
                "pid": os.getpid(),
            }
        )

    def _settled(self) -> None:
        if self.state in ("degraded", "offline") and self._device_up:
            self.progress.note(self._advice())
            self._usable()

    def _too_late(self) -> None:
        self._settled()
        if not self._device_up:
            self._give_up(
                Complaint(
                    self._advice(),
                    "The node has no address yet, so it is not up.",
                    "Check that the server runs, and that UDP or TCP port 443 to it passes: "
                    + ", ".join(str(endpoint) for endpoint in self._membership.endpoints),
                    Exit.UNREACHABLE,
                )
            )

    def _advice(self) -> str:
        text = ADVICE.get(self.state, ADVICE["joining"])
        return text.format(domain=self._membership.domain, seconds=USABLE_WITHIN)

    def _give_up(self, complaint: Complaint) -> None:
        log.warning("cannot come up", why=complaint.what)
        self.progress.complain(complaint)
        self.stop()

    # ------------------------------------------------------------------ status

    def _finish_answer(self, what: str, result: Any) -> Any:
        """What only the shell knows, put into the core's answer."""
        if what != "status" or not isinstance(result, dict):
            return result
        node = result.setdefault("self", {})
        node.update(
            interface=self.settings.interface,
            plane=self._plane.name,
            pid=os.getpid(),
            tasks=len(asyncio.all_tasks()),
            uptime_s=round(time.monotonic() - self._started, 1),
        )
        stats = self._plane.stats()
        drops = result.setdefault("drops", {})
        for key, count in (*stats.drops.items(), *self._names.counters.items()):
            drops[key] = drops.get(key, 0) + count
        result["plane"] = stats.gauges
        result["dns"] = self._names.status()
        result["health"] = [*result.get("health", ()), *self._names.health(), *self._storage()]
        return result

    def _storage(self) -> list[dict[str, Any]]:
        """For ``health``: what is learned cannot be written."""
        if self._unwritten is None:
            return []
        what, since = self._unwritten
        text = (
            f"{what} Tunnels go on; what is learned now is lost at the next start. Free some space."
        )
        return [{"code": "storage", "severity": "error", "text": text, "since": since}]

    # ------------------------------------------------------------------ the end

    def stop(self) -> None:
        """Say goodbye to peers, then end; may be called again."""
        if self._stopping:
            return
        self._stopping = True
        self._spawn(self._goodbye(), "stopping")

    async def _goodbye(self) -> None:
        if hasattr(self, "_driver"):
            self._driver.post(Stopping())
            try:
                await asyncio.wait_for(self._said_down.wait(), GOODBYE)
            except TimeoutError:
                log.debug("did not wait for the last answers")
            await asyncio.sleep(LAST_COPY)
            self._driver.stop()

    def _spawn(self, work: Any, what: str) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(finished: asyncio.Task[None]) -> None:
            self._tasks.discard(finished)
            if finished.cancelled() or finished.exception() is None:
                return
            error = finished.exception()
            assert error is not None
            log.failure(f"{what} failed", error)
            self._driver.failure = error
            self._driver.stop()

        task.add_done_callback(done)
