"""This node's place in its platform: joining, what was handed out, renewing, leaving.

Everything that speaks HTTPS runs in a short-lived process (or before the daemon replaces itself);
see :mod:`ntmd.__main__`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from ntmd.config import Settings
from ntmd.node.inputs import CertificateRenewed, CommandFailed
from ntmd.node.settings import Home
from ntmd.nodefiles import NodeFiles
from ntmd.progress import Progress
from ntmd.proto import certs
from ntmd.proto.crypto import public_key, sha256
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Identity
from ntmd.proto.records import Capability
from ntmd.proto.types import Endpoint, Peer, Role
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.enrolment import Enrolment
from ntmd.runtime.proxy import Proxy, parse_proxy
from ntmd.runtime.statefiles import Room, damaged, read_file, write_file

RENEWAL_LIMIT = 30.0  # seconds that the helper process may take
ENROLMENT_ROOM = 65_536  # bytes; an enrolment of a platform with 100 domains has a tenth of it
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Membership:
    """What the node was enrolled with, and its key."""

    enrolment: Enrolment
    key: bytes

    @classmethod
    def read(cls, files: NodeFiles) -> Membership:
        """From the state directory; complains about files that do not fit together."""
        enrolment = read_enrolment(files)
        key = files.key()
        try:
            leaf = certs.parse_leaf(enrolment.certificates[0])
        except (ProtocolError, IndexError):
            raise damaged(files.enrolment_file, "its certificate cannot be read") from None
        try:
            same = certs.platform_id_of(enrolment.ca) == enrolment.platform_id
        except (ProtocolError, ValueError):
            same = False
        if not same:
            raise damaged(files.enrolment_file, "its CA is not that of the platform")
        if enrolment.dc is None:
            raise damaged(files.enrolment_file, "it names no coordinator")
        if leaf.key != public_key(key):
            raise damaged(files.key_file, f"it is not the key that {leaf.name} was certified for")
        return cls(enrolment, key)

    @property
    def name(self) -> str:
        """The node's FQDN."""
        return self.enrolment.name

    @property
    def domain(self) -> str:
        """The node's own domain."""
        return self.enrolment.domain

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the coordinator listens."""
        return self.enrolment.dc.endpoints if self.enrolment.dc else ()

    @property
    def ca(self) -> bytes:
        """The platform's CA (DER), the only root of TLS connections."""
        return self.enrolment.ca

    @property
    def fingerprint(self) -> str:
        """Names this identity, key and all, on what it makes in the kernel."""
        return sha256(b"ntm interface" + public_key(self.key) + self.name.encode()).hex()[:16]

    def identity(self) -> Identity:
        """For the session engine."""
        return Identity(
            Role.NODE, self.name, self.key, self.enrolment.certificates, b"", capabilities()
        )

    def trust(self) -> certs.Trust:
        """The one platform that we trust."""
        platform_id = self.enrolment.platform_id
        key = certs.ca_key_of(self.enrolment.ca)
        return certs.Trust((certs.Anchor(platform_id, (key,)),))

    def home(self) -> Home:
        """The node's coordinator."""
        dc = self.enrolment.dc
        assert dc is not None
        leaf = certs.parse_leaf(dc.certificate)
        peer = Peer(Role.DC, dc.name, leaf.key)
        return Home(self.domain, peer, dc.endpoints, dc.dc_sign, self.enrolment.domains, dc.tls)


def capabilities() -> int:
    """What this node can do, for its record."""
    able = Capability.SUITE_AES_GCM | Capability.SUITE_CHACHA | Capability.WIRE_1
    able |= Capability.TAKES_PARTIAL  # the TUN has a vnet header: the kernel completes checksums
    if has_aes_hardware():
        able |= Capability.AES_HARDWARE
    return int(able)


def has_aes_hardware() -> bool:
    """Whether the processor has instructions for AES (x86: aes; Arm: aes as well)."""
    try:
        with CPU_INFO.open(encoding="ascii", errors="replace") as file:
            for line in file:
                if line.lower().startswith(("flags", "features")):
                    return "aes" in line.split()
    except OSError:
        return False
    return False


def read_enrolment(files: NodeFiles) -> Enrolment:
    """The enrolment on disk; complains, naming the file."""
    data = read_file(files.enrolment_file)
    try:
        return Enrolment.from_json(data)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(files.enrolment_file, str(error)) from None


def enrol(settings: Settings, files: NodeFiles, progress: Progress) -> None:
    """Join with the URL of the settings; leaves key and enrolment in the state directory."""
    from ntmd.runtime import account, account_api  # TLS: this process replaces itself afterwards

    url = account.parse_join_url(settings.join)
    key, proxy = files.key_or_new(os.urandom), _proxy(settings)
    # an invitation is spent once: what comes for it must have its place on the disk before
    with Room(files.enrolment_file, ENROLMENT_ROOM) as room:
        progress.step(f"joining at {url.base}")
        try:
            enrolment = account.enrol_node(settings.join, settings.name or None, key, proxy)
        except account_api.AccountError as refused:
            if settings.name or refused.error not in NAME_WANTED:
                raise
            # the invitation leaves the name to us: take the host's
            enrolment = account.enrol_node(settings.join, host_label(), key, proxy)
        room.put(enrolment.to_json().encode())
    progress.step(f"joined as {enrolment.name}")


def _proxy(settings: Settings) -> Proxy | None:
    return parse_proxy(settings.proxy, settings.no_proxy)


NAME_WANTED = ("no_name",)


def host_label() -> str:
    """The host's name as a DNS label."""
    first = socket.gethostname().partition(".")[0].lower()
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in first).strip("-")
    return label[:63] or "node"


def leave(settings: Settings, files: NodeFiles) -> dict[str, object]:
    """Remove the node at the account server and delete its keys; the latter in any case."""
    if not files.enrolled():
        files.forget()
        return {"name": "", "note": "this node had not joined a platform"}
    from ntmd.runtime import account

    membership = Membership.read(files)
    note = ""
    try:
        account.leave(membership.enrolment, membership.key, _proxy(settings))
    except Complaint as complaint:
        note = (
            f"the account server still lists {membership.name}: {complaint.what} "
            f"Its operator can remove it: ntm-server node remove {membership.name}"
        )
    files.forget()
    return {"name": membership.name, "note": note}


def fetch_renewal(settings: Settings, files: NodeFiles) -> dict[str, object]:
    """In a process of its own: renew over HTTPS and keep the result."""
    from ntmd.runtime import account

    membership = Membership.read(files)
    renewed = account.renew_node(membership.enrolment, membership.key, _proxy(settings))
    write_file(files.enrolment_file, renewed.to_json().encode())
    return {"renewed": True}


async def renew(settings: Settings, files: NodeFiles) -> CertificateRenewed | CommandFailed:
    """Renew by a helper process; the input that tells the core how it went."""
    command = [sys.executable, "-I", "-m", "ntmd", *settings.arguments(), "--mode=renew"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), RENEWAL_LIMIT)
        report = json.loads(output.decode().strip().rpartition("\n")[2] or "{}")
    except TimeoutError:
        process.kill()
        await process.wait()
        report = {"complaint": "the account server does not answer"}
    except ValueError:
        report = {"complaint": "the helper process failed"}
    if not report.get("renewed"):
        return CommandFailed("RenewCertificate", 0, str(report.get("complaint", "unknown")))
    return CertificateRenewed(Membership.read(files).enrolment.certificates)
