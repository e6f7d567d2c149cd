"""The production data plane, driven by the world's clock instead of descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ntmd.dataplane.simple import SimplePlane
from ntmd.node.commands import ConfigureDevice
from ntmd.proto.crypto import Aead
from ntmd.proto.errors import ProtocolError
from ntmd.proto.frame import HEADER_SIZE, nonce_of
from ntmd.proto.plane import DataKey, InstallTunnel
from ntmd.proto.types import Endpoint, Path
from tests.sim.clock import Timer
from tests.sim.process import SPINS

if TYPE_CHECKING:
    from tests.sim.node import SimNode

OPENED_AGAIN = 16  # one datagram of so many is opened again to prove its key


class SimPlane:
    """Between a node's sockets and its inner host. Reports reach the core as in production."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._plane = SimplePlane(node.inner.address or None)
        self._timer: Timer | None = None
        self._closed = False
        self._due: float | None = None
        self._spins = (0.0, 0)
        self._keys: dict[int, list[DataKey]] = {}  # by slot
        self._noted = 0

    @property
    def drops(self) -> dict[str, int]:
        """Drop counters."""
        return dict(self._plane.drops)

    @property
    def gauges(self) -> dict[str, int]:
        """What is held, and work done."""
        return self._plane.stats().gauges

    def configured(self, command: ConfigureDevice) -> None:
        """The TUN has its address."""
        self._plane.set_own_address(command.address)

    def command(self, command: Any) -> None:
        """A command about tunnels, or CloseSocket."""
        if isinstance(command, InstallTunnel) and command.entry.send is not None:
            key = command.entry.send
            kept = self._keys.setdefault(key.slot, [])
            if all(other.key != key.key for other in kept):
                kept.append(key)
        self._send(self._plane.apply(command, self._now))
        self._after()

    def packet(self, packet: bytes) -> None:
        """A packet from the inner host."""
        self._send(self._plane.outbound_packet(packet, self._now))
        self._after()

    def datagram(self, data: bytes, socket: int, source: Endpoint) -> None:
        """A data datagram from the underlay."""
        packet = self._plane.inbound_datagram(data, socket, source, self._now)
        if packet is not None:
            self._node.inner.receive(packet)
        self._after()

    def close(self) -> None:
        """The plane dies with its process."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    @property
    def _now(self) -> float:
        return self._node.host.now

    def _send(self, datagrams: list[tuple[bytes, Path]]) -> None:
        for data, path in datagrams:
            self._note(data)
            self._node.send(path.socket, data, path.remote)

    def _note(self, data: bytes) -> None:
        """Write down which key and nonce sealed a datagram. The slot names the key where only one
        was ever installed for it; that, and every ambiguous datagram, is checked by opening it."""
        keys = self._keys.get(data[1], [])
        self._noted += 1
        if len(keys) != 1 or self._noted % OPENED_AGAIN == 1:
            keys = [key for key in keys if _opens(key, data)]
        assert len(keys) == 1, "sealed under a key that was never installed"
        place = (keys[0].key, nonce_of(data))
        self._node.sealed.setdefault(place, set()).add(data[HEADER_SIZE:])

    def _after(self) -> None:
        for reply in self._plane.take_replies():
            self._node.inner.receive(reply)
        deadline = self._plane.deadline()
        if self._timer is not None:
            if deadline == self._due:
                return
            self._timer.cancel()
            self._timer = None
        self._due = deadline
        if deadline is not None and not self._closed:
            when = max(deadline, self._now) - self._node.host.boot
            self._timer = self._node.host.world.clock.at(when, self._report)

    def woke(self) -> None:
        """The machine slept: reports that became due meanwhile go up now."""
        self._after()

    def _report(self) -> None:
        self._timer = None
        if self._closed or self._node.host.asleep:
            return
        now = max(self._now, self._due or 0.0)  # a timer is never early, a difference may round
        at, count = self._spins
        self._spins = (now, count + 1 if at == now else 0)
        assert count < SPINS, f"the plane of {self._node.name} spins at {now}"
        for event in self._plane.take_events(now):
            self._node.post(event)
        self._after()


def _opens(key: DataKey, data: bytes) -> bool:
    try:
        Aead(key.suite, key.key).open(nonce_of(data), data[HEADER_SIZE:])
    except ProtocolError:
        return False
    return True
