"""What the node's core tells the data plane, and what the plane reports back.

The core never touches data keys after handing them over in :class:`InstallTunnel`; the plane never
decides. All of these are plain values, so the plane may live in another process.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ntmd.proto.types import Endpoint, Path, Suite


@dataclass(frozen=True, slots=True)
class DataKey:
    """One direction's data key of a session. ``slot`` was chosen by the receiver (rule C1)."""

    slot: int
    suite: Suite
    key: bytes
    session: int  # number of the session inside the core; counters and windows live per session


@dataclass(frozen=True, slots=True)
class PlanePath:
    """A path with what the plane needs beside it: own path id and the datagram size it carries.

    ``allowance``: bytes of data that may leave on it while its remote is not proven (rule C6), None
    without limit. The plane counts it down, adds three times what comes from that remote, and drops
    what is above it. A path that was limited and still is keeps what is left, whatever the new
    value. What a *second* path carries beside the first also comes out of the plane's budget for
    copies (``DOUBT_SECONDS``, ``DOUBT_BYTES``), which is the node's. ``settled``: the size will not
    grow soon, so local senders may be told of it; until then larger packets leave in fragments.
    """

    path: Path
    mtu: int = 1500  # IP packet size that fits the underlay
    path_id: int = 1
    allowance: int | None = None
    settled: bool = True


@dataclass(frozen=True, slots=True)
class TunnelEntry:
    """Everything the plane knows of one tunnel. A new entry replaces the old one whole.

    ``send`` may be None (nothing confirmed yet: park). ``peer_index`` goes into bytes 4-7 of
    directly sent datagrams; on a relayed path the leg id does. ``own_indexes`` are all indices
    under which the peer's datagrams may arrive (session indices and delivery indices);
    ``sources`` the peer's known (socket, remote) pairs, which never cause PeerMoved (rule C6).
    Counters and replay windows of a ``DataKey.session`` that was in the old entry go on.
    """

    tunnel: int
    peer_address: bytes
    own_indexes: tuple[int, ...]
    receive: tuple[DataKey, ...]
    send: DataKey | None
    peer_index: int
    paths: tuple[PlanePath, ...]  # one, or two while in doubt
    sources: tuple[Path, ...] = ()
    takes_partial: bool = False


# ------------------------------------------------------------------ commands, core to plane


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Open a UDP socket on ``interface`` bound to it, for ``family`` (4 or 6), at ``port`` (0 any).

    Answered by :class:`SocketOpened` or :class:`SocketFailed`. ``address`` is the source address.
    """

    socket: int
    interface: str
    family: int
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What TLS connections trust, the CA (DER) alone, and the HTTP proxy they pass, if any, but to
    the hosts of the list ``no_proxy``."""

    ca: bytes
    proxy: str = ""
    no_proxy: str = ""


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Open a TLS connection (rule S12) from ``address`` on ``interface`` to ``remote``.

    From then on it is an own socket whose only way leads to ``remote``. ``service`` is the ALPN
    name. The server's certificate must be valid at ``platform_ms``, give or take ``slack_ms``.
    Answered by :class:`SocketOpened` when it can carry, by :class:`SocketFailed` when it cannot be
    had, or ends.
    """

    socket: int
    interface: str
    family: int
    address: str
    remote: Endpoint
    service: str
    platform_ms: int
    slack_ms: int


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close an own socket or TLS connection; unknown numbers are ignored."""

    socket: int


@dataclass(frozen=True, slots=True)
class InstallTunnel:
    """Put ``entry`` in place of the tunnel's present entry, atomically between two packets."""

    entry: TunnelEntry


@dataclass(frozen=True, slots=True)
class SwitchPath:
    """Change only the sending paths (and known sources) of a tunnel, atomically."""

    tunnel: int
    paths: tuple[PlanePath, ...]
    sources: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Resend:
    """Send once more, bit for bit, what the peer's report on ``session`` shows missing (rule S14).

    ``greatest`` and ``bitmap`` as in :class:`TunnelActivity`, of the peer. Whatever the plane still
    holds of that leaves on the tunnel's present paths while its key lives; each datagram once.
    ``again``: a later report after the same outage. Of what had been sent by the wish before, and
    was not in the first report, all that is not known to have arrived leaves once more.
    """

    tunnel: int
    session: int
    greatest: int
    bitmap: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class ParkStreams:
    """The peer lost its keys: what it may have missed cannot be resent as it was sealed.

    The newest packet of each TCP flow that left under the tunnel's present session is opened and
    parked, as if its sender had repeated it at that moment; it leaves with the next session.
    """

    tunnel: int


@dataclass(frozen=True, slots=True)
class RemoveTunnel:
    """Forget a tunnel and its keys; unknown numbers are ignored."""

    tunnel: int


@dataclass(frozen=True, slots=True)
class ReleaseParked:
    """Packets parked for ``address`` have no way: answer them with ICMPv6 unreachable, or drop."""

    address: bytes
    unreachable: bool = True


@dataclass(frozen=True, slots=True)
class BlockInterface:
    """Neither send nor receive on the own sockets of ``interface`` for ``seconds``; 0 unblocks.

    The plane keeps the time itself and unblocks when it is over; nothing reports the block, so to
    the core the link is silent. Sockets opened meanwhile are blocked too (``ntmd rehearse``).
    """

    interface: str
    seconds: float


# ------------------------------------------------------------------ events, plane to core


@dataclass(frozen=True, slots=True)
class SocketOpened:
    """The socket is open; ``local`` is its bound address and port."""

    socket: int
    local: Endpoint


@dataclass(frozen=True, slots=True)
class SocketFailed:
    """The socket could not be opened, or died (interface gone)."""

    socket: int
    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class NoTunnelFor:
    """A packet for ``address`` was parked: there is no tunnel, or none that may send yet."""

    address: bytes


@dataclass(frozen=True, slots=True)
class PeerMoved:
    """A data frame with the greatest counter so far came from outside ``sources`` (rule C6, 3).

    ``length`` is that of the datagram: what an allowance towards the source may begin with.
    """

    tunnel: int
    socket: int
    source: Endpoint
    length: int


@dataclass(frozen=True, slots=True)
class SlotSeen:
    """The first data frame that opened under ``session`` arrived (confirms it, rule C10)."""

    tunnel: int
    session: int


@dataclass(frozen=True, slots=True)
class UnknownIndex:
    """A data datagram with an index nobody owns came in (input of the reset, rule S4)."""

    socket: int
    source: Endpoint
    index: int
    length: int


@dataclass(frozen=True, slots=True)
class TunnelActivity:
    """Running totals of a tunnel, at most every 100 ms while they change, 1 s later otherwise.

    The first datagram after a pause of ``timing.REST_AFTER`` is reported at once.

    ``greatest`` is the greatest data counter received under ``session`` and ``bitmap`` which of the
    64 before it arrived; ``received`` counts datagrams accepted per own socket. ``gap`` is the
    longest hole in seconds between accepted data datagrams since the previous report, begun at
    ``gap_at``; ``lost`` the counters never seen that fell out of the window or below ``greatest``.
    """

    tunnel: int
    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int
    session: int
    greatest: int
    bitmap: int
    received: tuple[tuple[int, int], ...]
    last_tx: float
    last_rx: float
    gap: float
    gap_at: float
    lost: int
    duplicated: int
    send_counter: int


@dataclass(frozen=True, slots=True)
class CounterNearLimit:
    """A send key reached 2**27 datagrams (rule S1): rekey."""

    tunnel: int
    session: int


@dataclass(frozen=True, slots=True)
class DeviceFailed:
    """The TUN, or the plane itself, failed."""

    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class PlaneStats:
    """Drop counters and gauges of the plane; the keys are those of ``ntmd status`` drops."""

    drops: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, int] = field(default_factory=dict)
