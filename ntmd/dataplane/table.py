"""Tunnels by virtual address and by receiver index, with their keys, counters and windows.

A :class:`Sender` or :class:`Receiver` belongs to a session, not to an entry: an entry that names
the same session again goes on counting where it was, also if the session was away in between. So no
counter is ever used twice with a key (rule C1), whatever the core installs and removes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ntmd.dataplane import packets
from ntmd.dataplane.allowances import Allowances, Source
from ntmd.dataplane.cipher import Into, InvalidTag, functions
from ntmd.dataplane.window import DEFAULT_SIZE, FIRST_COUNTER, Window
from ntmd.proto import timing
from ntmd.proto.errors import ProtocolError
from ntmd.proto.fragments import Reassembly
from ntmd.proto.frame import FLAG_PARTIAL, FRAGMENT, HEADER_SIZE, OVERHEAD, Kind
from ntmd.proto.plane import DataKey, PlanePath, SwitchPath, TunnelEntry
from ntmd.proto.types import Path

UDP_HEADER = 8
IP_HEADERS = {4: 20, 6: 40}
RETIRED = 1024
"""Sessions remembered after their keys went: a counter of 3 minutes ago must not start again."""


def _erased(*_: Any) -> None:
    raise LookupError("the key is erased")


def _whole(packet: bytearray | None, flags: int) -> bytes | None:
    """An inner packet with its checksum filled in; None if it is no packet."""
    if not packet or packet[0] >> 4 != 6:
        return None
    protocol = packet[6]
    if flags & FLAG_PARTIAL and protocol in packets.CHECKSUM_AT:
        packets.complete(packet, packets.IP_HEADER, packets.CHECKSUM_AT[protocol])
    return bytes(packet)


class Sender:
    """The sending side of a session. It opens only what it sealed itself."""

    __slots__ = (
        "counter",
        "expires",
        "fragment",
        "number",
        "open",
        "partial",
        "plain",
        "seal",
        "told",
    )

    def __init__(self, key: DataKey, now: float) -> None:
        self.number = key.session
        self.counter = FIRST_COUNTER - 1  # the last one used
        self.expires = now + timing.DATA_KEY_LIFETIME
        self.told = 0  # counter from which on to tell (again) that the key is nearly used up
        self.fragment = 0  # id of the last packet that left in fragments
        self.plain = int.from_bytes(bytes((Kind.DATA, key.slot, 0, 0)), "big")
        self.partial = int.from_bytes(bytes((Kind.DATA, key.slot, FLAG_PARTIAL, 0)), "big")
        self.seal, self.open = functions(key.suite, key.key)

    def unseal_first(self, run: list[bytes], now: float) -> bytes | None:
        """The inner packet that a run of datagrams begins with, which this key sealed; its checksum
        is filled in, and if need be it is joined of its fragments. None: no such packet."""
        pieces = Reassembly()
        for datagram in run:
            plain = self._opened(datagram)
            if not plain or plain[0] != FRAGMENT:
                return _whole(plain, datagram[2])
            try:
                packet = pieces.add(bytes(plain), now)
            except ProtocolError:
                return None
            if packet is not None:
                return packet
        return None

    def _opened(self, datagram: bytes) -> bytearray | None:
        packet = bytearray(len(datagram) - OVERHEAD)
        nonce = datagram[:4] + datagram[8:HEADER_SIZE]
        try:
            self.open(nonce, datagram[HEADER_SIZE:], None, memoryview(packet))
        except (InvalidTag, LookupError, ValueError):
            return None
        return packet

    def erase(self) -> None:
        """Forget the key, keep the counter."""
        self.seal = self.open = _erased
        self.expires = 0.0

    def revive(self, key: DataKey, now: float) -> None:
        """The session is installed again: its key comes back, its counter goes on."""
        self.seal, self.open = functions(key.suite, key.key)
        self.expires = now + timing.DATA_KEY_LIFETIME


class Receiver:
    """The receiving side of a session."""

    __slots__ = ("expires", "failed", "number", "open", "seen", "slot", "window")

    def __init__(self, key: DataKey, now: float, size: int) -> None:
        self.number = key.session
        self.slot = key.slot
        self.window = Window(size)
        self.seen = False
        self.failed = 0
        self.expires = now + timing.DATA_KEY_LIFETIME
        self.open: Into = functions(key.suite, key.key)[1]

    def erase(self) -> None:
        """Forget the key, keep the window."""
        self.open = _erased
        self.expires = 0.0

    def revive(self, key: DataKey, now: float) -> None:
        """The session is installed again: its key comes back, its window goes on."""
        self.open = functions(key.suite, key.key)[1]
        self.slot = key.slot
        self.expires = now + timing.DATA_KEY_LIFETIME


@dataclass(slots=True)
class Totals:
    """What went through a tunnel since it was first installed."""

    tx_packets: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    rx_bytes: int = 0
    received: dict[int, int] = field(default_factory=dict)
    last_tx: float = 0.0
    last_rx: float = 0.0
    gap: float = 0.0
    gap_at: float = 0.0
    lost: int = 0  # in sessions that are gone
    duplicated: int = 0


@dataclass(slots=True, eq=False)
class Tunnel:
    """One tunnel as the packet functions see it."""

    number: int
    peer: bytes
    inner: bytes  # source and destination of what may come in, 32 bytes
    totals: Totals = field(default_factory=Totals)
    send: Sender | None = None
    receive: dict[int, Receiver] = field(default_factory=dict)  # by slot
    paths: tuple[PlanePath, ...] = ()
    sources: tuple[Path, ...] = ()
    known: frozenset[Source] = frozenset()
    own_indexes: tuple[int, ...] = ()
    peer_index: int = 0
    takes_partial: bool = False
    room: int = 0  # largest inner packet that fits a datagram on all paths
    told: int = 0  # the last settled room
    settled: bool = True  # local senders may be told of ``room``
    plain: bool = True  # one path without an allowance
    newest: Receiver | None = None  # of the youngest session heard
    pieces: Reassembly | None = None
    young: float = 0.0  # until then streams may come that are older than the tunnel is here
    woken: set[bytes] = field(default_factory=set)  # ports of those, peer's first


def source_of(path: Path) -> Source:
    """The remote of a path as datagrams from there show it."""
    return path.socket, path.remote.host, path.remote.port


def _room(path: PlanePath) -> int:
    mtu = max(path.mtu, 576)
    return min(mtu - IP_HEADERS[path.path.remote.family] - UDP_HEADER - OVERHEAD, 2032)


class Table:
    """All tunnels. Commands change it between two packets, never in the middle of one."""

    def __init__(self, window: int = DEFAULT_SIZE) -> None:
        self.own = bytes(16)
        self.by_address: dict[bytes, Tunnel] = {}
        self.by_index: dict[int, Tunnel] = {}
        self.by_number: dict[int, Tunnel] = {}
        self.allowances = Allowances()
        self._window = window
        self._senders: dict[tuple[int, int], Sender] = {}
        self._receivers: dict[tuple[int, int], Receiver] = {}

    def set_own_address(self, address: bytes) -> None:
        """The own virtual address: the only source that may leave, the only destination inside."""
        self.own = address
        for tunnel in self.by_number.values():
            tunnel.inner = tunnel.peer + address

    def install(self, entry: TunnelEntry, now: float) -> Tunnel:
        """Put ``entry`` in place of the tunnel's present one."""
        tunnel = self.by_number.get(entry.tunnel)
        if tunnel is None:
            tunnel = Tunnel(entry.tunnel, entry.peer_address, entry.peer_address + self.own)
            tunnel.young = now + timing.STREAM_YOUNG
            self.by_number[entry.tunnel] = tunnel
        self._unlist(tunnel)
        tunnel.peer = entry.peer_address
        tunnel.inner = entry.peer_address + self.own
        tunnel.own_indexes = entry.own_indexes
        tunnel.peer_index = entry.peer_index
        tunnel.takes_partial = entry.takes_partial
        self._route(tunnel, entry.paths, entry.sources)
        self._set_keys(tunnel, entry, now)
        self.by_address[tunnel.peer] = tunnel
        for index in tunnel.own_indexes:
            self.by_index[index] = tunnel
        return tunnel

    def switch(self, command: SwitchPath) -> None:
        """Change only the sending paths and the known sources."""
        tunnel = self.by_number.get(command.tunnel)
        if tunnel is not None:
            self._route(tunnel, command.paths, command.sources)

    def socket_gone(self, number: int) -> None:
        """Nothing can be sent on an own socket any more: a tunnel without another path parks."""
        for tunnel in self.by_number.values():
            left = tuple(each for each in tunnel.paths if each.path.socket != number)
            if left != tunnel.paths:
                self._route(tunnel, left, tunnel.sources)

    def _route(
        self, tunnel: Tunnel, paths: tuple[PlanePath, ...], sources: tuple[Path, ...]
    ) -> None:
        """Change the sending paths and the peer's known sources."""
        for each in paths:
            if each.allowance is not None:
                self.allowances.hold(source_of(each.path), each.allowance)
        for each in tunnel.paths:
            if each.allowance is not None:
                self.allowances.release(source_of(each.path))
        tunnel.paths, tunnel.sources = paths, sources
        tunnel.known = frozenset(source_of(p) for p in (*(e.path for e in paths), *sources))
        tunnel.room = min((_room(each) for each in paths), default=0)
        tunnel.settled = all(each.settled for each in paths)
        if paths and tunnel.settled:
            tunnel.told = tunnel.room
        tunnel.plain = len(paths) == 1 and paths[0].allowance is None

    def remove(self, number: int) -> None:
        """Forget a tunnel and its keys."""
        tunnel = self.by_number.pop(number, None)
        if tunnel is None:
            return
        self._unlist(tunnel)
        self._route(tunnel, (), ())
        if tunnel.send is not None:
            tunnel.send.erase()
        for receiver in tunnel.receive.values():
            self._retire(tunnel, receiver)
        tunnel.send, tunnel.receive = None, {}

    def expire(self, now: float) -> None:
        """Erase keys past their life (rule C1)."""
        for tunnel in self.by_number.values():
            if tunnel.send is not None and tunnel.send.expires <= now:
                tunnel.send.erase()
                tunnel.send = None
            for slot in [s for s, each in tunnel.receive.items() if each.expires <= now]:
                self._retire(tunnel, tunnel.receive.pop(slot))

    def deadline(self) -> float | None:
        """When the next key's life ends."""
        ends = [each.send.expires for each in self.by_number.values() if each.send is not None]
        for tunnel in self.by_number.values():
            ends.extend(each.expires for each in tunnel.receive.values())
        return min(ends, default=None)

    def _unlist(self, tunnel: Tunnel) -> None:
        if self.by_address.get(tunnel.peer) is tunnel:
            del self.by_address[tunnel.peer]
        for index in tunnel.own_indexes:
            if self.by_index.get(index) is tunnel:
                del self.by_index[index]

    def _set_keys(self, tunnel: Tunnel, entry: TunnelEntry, now: float) -> None:
        old_send, old_receive = tunnel.send, list(tunnel.receive.values())
        tunnel.send = None if entry.send is None else self._sender(entry.tunnel, entry.send, now)
        tunnel.receive = {key.slot: self._receiver(tunnel, key, now) for key in entry.receive}
        if old_send is not None and old_send is not tunnel.send:
            old_send.erase()
        kept = list(tunnel.receive.values())
        for receiver in old_receive:
            if receiver not in kept:
                self._retire(tunnel, receiver)

    def _retire(self, tunnel: Tunnel, receiver: Receiver) -> None:
        receiver.erase()
        tunnel.totals.lost += receiver.window.lost

    def _sender(self, number: int, key: DataKey, now: float) -> Sender:
        name = (number, key.session)
        sender = self._senders.pop(name, None)
        if sender is None:
            sender = Sender(key, now)
        elif sender.seal is _erased:
            sender.revive(key, now)
        self._senders[name] = sender  # youngest last
        _shorten(self._senders)
        return sender

    def _receiver(self, tunnel: Tunnel, key: DataKey, now: float) -> Receiver:
        name = (tunnel.number, key.session)
        receiver = self._receivers.pop(name, None)
        if receiver is None:
            receiver = Receiver(key, now, self._window)
        elif receiver.open is _erased:
            receiver.revive(key, now)
            tunnel.totals.lost -= receiver.window.lost
        self._receivers[name] = receiver
        _shorten(self._receivers)
        return receiver


def _shorten(table: dict[tuple[int, int], Any]) -> None:
    """Let the oldest sessions without a key leave when there are too many."""
    if len(table) > RETIRED:
        for name in [n for n, each in table.items() if each.expires == 0.0][: RETIRED // 2]:
            del table[name]
