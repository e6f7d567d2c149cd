"""The TUN device: three providers of one descriptor.

``python-pytun`` makes it where that package is installed; a class of our own over ``ioctl`` does
the same where it is not; :func:`adopt` takes a descriptor that somebody else opened. All of them
give a non-blocking descriptor that no child inherits by accident, packets preceded by a virtio
header (``IFF_VNET_HDR``), and super-packets where the kernel can (``TUNSETOFFLOAD``). Sources:
Linux ``Documentation/networking/tuntap.rst``, ``include/uapi/linux/if_tun.h``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable

from ntmd.platform import Tun
from ntmd.runtime.complaints import Complaint, Exit

CLONE = "/dev/net/tun"
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
FLAGS = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOFFLOAD = 0x400454D0
TUNGETIFF = 0x800454D2
TUNSETVNETHDRSZ = 0x400454D8
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
TUN_F_USO4, TUN_F_USO6 = 0x20, 0x40
OFFLOADS = (
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,  # Linux 6.2 and later
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
)
VNET_HEADER = 10
NAME_MAX = 15
IFREQ = struct.Struct("16sH22x")

Provider = Callable[[str, int], int]


def with_pytun(interface: str, flags: int) -> int:
    """Descriptor of ``interface`` made by python-pytun; ImportError where that is missing."""
    import pytun  # a C extension that has no build for some machines

    device = pytun.TunTapDevice(name=interface, flags=flags)
    try:
        # the object closes its descriptor when it is collected: keep a duplicate of our own
        return fcntl.fcntl(device.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        device.close()


def with_ioctl(interface: str, flags: int) -> int:
    """Descriptor of ``interface`` made by ioctl alone."""
    descriptor = os.open(CLONE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, IFREQ.pack(interface.encode(), flags))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def default_provider() -> Provider:
    """python-pytun where it is installed, otherwise our own."""
    try:
        import pytun  # noqa: F401
    except ImportError:
        return with_ioctl
    return with_pytun


def open_tun(interface: str, provider: Provider | None = None) -> Tun:
    """Make ``interface``, or attach to it if it exists without a reader; it is persistent then."""
    check_name(interface)
    existed = interface in (name for _, name in socket.if_nameindex())
    try:
        descriptor = (provider or default_provider())(interface, FLAGS)
    except OSError as error:
        raise tun_complaint(interface, error) from error
    try:
        fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
        return adopt(descriptor, taken_over=existed)
    except OSError as error:
        os.close(descriptor)
        raise tun_complaint(interface, error) from error


def adopt(descriptor: int, taken_over: bool = False) -> Tun:
    """A TUN from a descriptor that is attached to one already; it is not closed on failure."""
    os.set_blocking(descriptor, False)
    os.set_inheritable(descriptor, False)
    request = bytearray(IFREQ.pack(b"", 0))
    fcntl.ioctl(descriptor, TUNGETIFF, request)
    raw, flags = IFREQ.unpack(request)
    name = raw.rstrip(b"\0").decode()
    header = VNET_HEADER if flags & IFF_VNET_HDR else 0
    if header:
        fcntl.ioctl(descriptor, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
    offload = bool(header) and _set_offload(descriptor)
    return Tun(descriptor, name, socket.if_nametoindex(name), header, offload, taken_over)


def _set_offload(descriptor: int) -> bool:
    for offload in OFFLOADS:
        try:
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, offload)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return True
    return False


def remove_tun(interface: str) -> None:
    """Let a persistent TUN go; it vanishes with its last descriptor. A missing one is fine."""
    if interface not in (name for _, name in socket.if_nameindex()):
        return
    try:
        descriptor = with_ioctl(interface, FLAGS)
    except OSError as error:
        raise tun_complaint(interface, error) from error
    try:
        fcntl.ioctl(descriptor, TUNSETPERSIST, 0)
    finally:
        os.close(descriptor)


def check_name(interface: str) -> str:
    """``interface`` if the kernel would take it as a name; complains otherwise."""
    good = 0 < len(interface.encode()) <= NAME_MAX and interface not in (".", "..")
    if not good or any(c in "/:%" or c.isspace() or not c.isprintable() for c in interface):
        raise Complaint(
            f"{interface!r} cannot be the name of an interface.",
            f"Names have 1 to {NAME_MAX} characters, no spaces, no slash, no colon.",
            "Choose another name with --interface.",
            Exit.USAGE,
        )
    return interface


def tun_complaint(interface: str, error: OSError) -> Complaint:
    """Why there is no TUN, and what to do."""
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return Complaint(
            f"there is no {CLONE} (the kernel's TUN driver).",
            "Without it no packet can reach ntmd.",
            "Load it with `modprobe tun`; in a container pass --device /dev/net/tun.",
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return Complaint(
            f"no permission to open the TUN {interface}.",
            "ntmd needs the capability CAP_NET_ADMIN for its interface and routes.",
            "Run it with sudo; in a container add --cap-add NET_ADMIN.",
            Exit.NO_PERMISSION,
        )
    if error.errno == errno.EBUSY:
        return Complaint(
            f"the interface {interface} is in use by another program.",
            "Two programs cannot read one TUN.",
            "Stop that program, or choose another name with --interface.",
        )
    if error.errno == errno.EINVAL:
        return Complaint(
            f"the interface {interface} exists and is no TUN of ntmd.",
            "It is left as it is.",
            "Remove it, or choose another name with --interface.",
        )
    return Complaint(
        f"the TUN {interface} cannot be opened: {error.strerror or error}.",
        "Without it no packet can reach ntmd.",
        "Look into the kernel's log (dmesg).",
    )
