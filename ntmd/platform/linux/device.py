"""The Linux platform: what :class:`ntmd.platform.Platform` asks for, and what it leaves behind.

Before anything is made, a *run record* in the state directory says what it will be; so whatever
kills this process, the next ``up`` or ``down`` knows what to take over or to remove. The TUN itself
says in its alias whose it is: ``ntmd <identity> <state directory>``.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from ntmd.node.inputs import NetworkChanged
from ntmd.platform import Device, Names, Tun
from ntmd.platform.linux import netlink, sleep, tun, watch
from ntmd.platform.linux.resolvconf import ResolvConf, choose_mode
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.journal import journal
from ntmd.runtime.statefiles import damaged, read_file, remove_file, write_file

RECORD = "run.json"
SAVED_RESOLV_CONF = "resolv.conf.saved"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
OWN_NETWORK = Path("/proc/self/ns/net")
SO_MARK = 36
MARK = 0x6E746D  # on every own socket, for firewalls and policy routing
BUSY_WAIT = 2.0  # seconds that a killed run's plane may need to let go of the TUN
BUSY_STEP = 0.05

Result = TypeVar("Result")

log = journal(__name__)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run has made in the kernel, and where: enough to remove exactly that."""

    interface: str
    index: int
    prefix: str
    identity: str
    boot: str
    network: int

    @property
    def here(self) -> bool:
        """Whether this boot and this network namespace are the ones of the record."""
        return self.boot == boot_id() and self.network == network_id()


def boot_id() -> str:
    """Identifies this boot of the machine."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def network_id() -> int:
    """Identifies this process's network namespace."""
    return os.stat(OWN_NETWORK).st_ino


def read_record(state: Path) -> RunRecord | None:
    """The record of the last run; None if it gave everything back."""
    path = state / RECORD
    if not path.exists():
        return None
    try:
        record = RunRecord(**json.loads(read_file(path)))
    except (ValueError, TypeError):
        raise damaged(path, "it is not a record of a run") from None
    return record


class LinuxPlatform:
    """See :class:`ntmd.platform.Platform`. ``identity`` names the node (letters and digits)."""

    def __init__(self, state: Path, identity: str, provider: tun.Provider | None = None) -> None:
        self.tun: Tun | None = None
        self._state = state
        self._mark = f"{identity} {state}"
        self._identity = identity
        self._provider = provider
        self._prefix = ""
        self._resolv_conf = ResolvConf(state / SAVED_RESOLV_CONF)

    async def open_tun(self, interface: str) -> Tun:
        """Make the TUN, or take over the one that a killed run of this node left."""
        tun.check_name(interface)
        record = read_record(self._state)
        if record is not None and (record.interface, record.identity) != (
            interface,
            self._identity,
        ):
            await give_back(self._state)  # left by this state directory under another name or key
        else:
            await self._check_owner(interface, record)
        self.tun = await patiently(lambda: tun.open_tun(interface, self._provider))
        self._record()
        await netlink.mark(self.tun.index, self._mark)
        return self.tun

    async def _check_owner(self, interface: str, record: RunRecord | None) -> None:
        if interface not in (name for _, name in socket.if_nameindex()):
            return
        alias = (await netlink.aliases()).get(interface)
        if alias == self._mark:
            return
        if alias is not None and alias.partition(" ")[2] == str(self._state):
            await patiently(lambda: tun.remove_tun(interface))  # ours, of a former identity
            return
        index = socket.if_nametoindex(interface)
        if alias is None and record is not None and record.here and record.index == index:
            return  # ours: the run was killed before it could say so
        whose = f"the ntmd of {alias.partition(' ')[2]}" if alias else "another program"
        raise Complaint(
            f"the interface {interface} exists and belongs to {whose}.",
            "It is left as it is.",
            "Choose another name with --interface, or remove that interface first.",
        )

    async def configure(self, device: Device) -> None:
        """Give the TUN its addresses, routes and MTU, and bring it up; idempotent."""
        assert self.tun is not None
        self._prefix = device.prefix
        self._record()
        await netlink.configure(self.tun.index, device, self._mark)

    def intercept_names(self, mode: str, stub: str, domains: tuple[str, ...]) -> Names:
        """Put ``stub`` into resolv.conf where ``mode`` and the namespace allow it."""
        chosen, note = choose_mode(mode, self._resolv_conf)
        if chosen != "file":
            self._resolv_conf.give_back()
            return Names(chosen, (), note)
        return Names("file", self._resolv_conf.take(stub))

    async def watch(self, changed: Callable[[NetworkChanged], None]) -> None:
        """Call ``changed`` with the whole underlay now and after each change, until closed."""
        own = () if self.tun is None else (self.tun.name,)
        await watch.watch(changed, own)

    async def watch_sleep(self, woke: Callable[[], None]) -> None:
        """Call ``woke`` at the instant the machine may have woken up, until cancelled."""
        await sleep.watch(woke)

    def protect(self, descriptor: int) -> None:
        """Mark a socket; without the privilege it stays unmarked."""
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            try:
                duplicate.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
            except PermissionError:
                log.debug("a socket stays unmarked")

    async def give_back(self) -> None:
        """Remove TUN, routes and resolver settings of this node; idempotent."""
        await self.close()
        await give_back(self._state)

    async def close(self) -> None:
        """Let go of the TUN's descriptor; leave the TUN and the rest as they are."""
        if self.tun is not None:
            os.close(self.tun.descriptor)
            self.tun = None

    def _record(self) -> None:
        assert self.tun is not None
        record = RunRecord(
            self.tun.name, self.tun.index, self._prefix, self._identity, boot_id(), network_id()
        )
        if not self._prefix:
            old = read_record(self._state)
            if old is not None and old.here and old.index == record.index:
                return  # taken over: it knows the prefix
        write_file(self._state / RECORD, json.dumps(asdict(record)).encode())


async def patiently(action: Callable[[], Result]) -> Result:
    """``action()`` on a TUN, again while the plane of a killed run still holds it."""
    for _ in range(int(BUSY_WAIT / BUSY_STEP)):
        try:
            return action()
        except Complaint as complaint:
            cause = complaint.__cause__
            if not isinstance(cause, OSError) or cause.errno != errno.EBUSY:
                raise
        await asyncio.sleep(BUSY_STEP)
    return action()


async def give_back(state: Path) -> list[str]:
    """Remove what a run with this state directory left; returns what was removed, in words."""
    removed = []
    if ResolvConf(state / SAVED_RESOLV_CONF).give_back():
        removed.append("resolver settings")
    record = read_record(state)
    if record is None:
        return removed
    if record.here:
        alias = (await netlink.aliases()).get(record.interface, "")
        if alias.partition(" ")[2] == str(state):
            await patiently(lambda: tun.remove_tun(record.interface))
            removed.append(f"interface {record.interface}")
        if record.prefix:
            await netlink.remove_routes(record.prefix, record.index)
            removed.append("routes")
    remove_file(state / RECORD)
    return removed
