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

if TYPE_CHECKING:
    from tests.sim.node import SimNode


class SimPlane:
    """Between a node's sockets and its inner host. Reports reach the core as in production."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._plane = SimplePlane(node.inner.address or None)
        self._timer: Timer | None = None
        self._closed = False
        self._keys: dict[tuple[int, bytes], DataKey] = {}

    @property
    def drops(self) -> dict[str, int]:
        """Drop counters."""
        return dict(self._plane.drops)

    def configured(self, command: ConfigureDevice) -> None:
        """The TUN has its address."""
        self._plane.set_own_address(command.address)

    def command(self, command: Any) -> None:
        """A command about tunnels, or CloseSocket."""
        if isinstance(command, InstallTunnel) and command.entry.send is not None:
            self._keys[command.entry.send.slot, command.entry.send.key] = command.entry.send
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
        """Write down which key and nonce sealed a datagram, found by opening it again."""
        for (slot, key), entry in self._keys.items():
            if slot == data[1]:
                try:
                    Aead(entry.suite, key).open(nonce_of(data), data[HEADER_SIZE:])
                except ProtocolError:
                    continue
                self._node.sealed.setdefault((key, nonce_of(data)), set()).add(data[HEADER_SIZE:])
                return
        raise AssertionError("sealed under a key that was never installed")

    def _after(self) -> None:
        for reply in self._plane.take_replies():
            self._node.inner.receive(reply)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._plane.deadline()
        if deadline is not None and not self._closed:
            when = max(deadline, self._now) - self._node.host.boot
            self._timer = self._node.host.world.clock.at(when, self._report)

    def _report(self) -> None:
        self._timer = None
        if self._closed:
            return
        for event in self._plane.take_events(self._now):
            self._node.post(event)
        self._after()
