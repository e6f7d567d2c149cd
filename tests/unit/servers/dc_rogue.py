"""A coordinator with a valid certificate that says what it likes, towards that of lab.test."""

from __future__ import annotations

from ntmd.proto import messages as m
from ntmd.proto.crypto import public_key
from ntmd.proto.events import Established, Identity, OpenPolicy, Replied
from ntmd.proto.io import SendDatagram
from ntmd.proto.records import sign_record
from ntmd.proto.session import Sequencer, SessionEngine
from ntmd.proto.types import Endpoint, Path, Role
from tests.sim.platform import DcIdentity
from tests.unit.servers.dc_ground import Box, Ground, Station


class Rogue:
    """A coordinator with a valid certificate that says what it likes."""

    def __init__(self, ground: Ground, given: DcIdentity, host: str) -> None:
        self.ground, self.given, self.at = ground, given, {1: Endpoint(host, 4330)}
        self.replies: dict[int, object] = {}
        self.engine = SessionEngine(
            given.identity,
            ground.platform.trust,
            OpenPolicy((Role.DC,)),
            random=ground.clock.stream("rogue").randbytes,
            platform_ms=ground.platform_ms,
            sequencer=Sequencer(0, lambda mark: None),
        )
        ground.stations.append(self)  # type: ignore[arg-type]

    def call(self, box: Box) -> None:
        self.handle = self.engine.call(box.given.peer, [Path(1, box.listen[0])], self.ground.now)
        self.ground.wait(1.0)

    def ask(self, request: m.Request) -> m.Message:
        number = self.engine.ask(self.handle, request, self.ground.now)
        self.ground.wait(4.0, lambda: number in self.replies)
        reply = self.replies[number]
        assert isinstance(reply, (m.InformationResponse, m.RouteDirectionResponse, m.Done))
        return reply

    def receive(self, data: bytes, socket: int, source: Endpoint) -> None:
        self.engine.receive(data, socket, source, self.ground.now)

    def work(self) -> None:
        for output in self.engine.take_outputs():
            if isinstance(output, SendDatagram):
                self.ground.put(self.at[1], output.path.remote, output.data)
            elif isinstance(output, Replied):
                self.replies[output.request_id] = output.reply
            elif isinstance(output, Established):
                self.engine.set_primary(output.handle, output.path)

    @staticmethod
    def key_of(node: Identity) -> bytes:
        """A node's X25519 key."""
        return public_key(node.private_key)

    def record(self, name: str, key: bytes, address: bytes) -> bytes:
        now = self.ground.platform_ms(self.ground.now)
        return sign_record(
            self.given.sign_private,
            self.ground.platform.id,
            name,
            address=address,
            node_key=key,
            capabilities=0,
            issued_ms=now,
            expires_ms=now + 86_400_000,
        )


def rogue_case(ground: Ground) -> tuple[Box, Rogue, Station]:
    lab = ground.box("lab.test", "198.51.100.2")
    desk = ground.node("desk.lab.test", lab)
    desk.join("10.0.0.9")
    rogue = Rogue(ground, ground.platform.dc("dc.evil.test", "evil.test"), "203.0.113.66")
    rogue.call(lab)
    return lab, rogue, desk


def shown(rogue: Rogue, case: str) -> tuple[bytes, bytes, bytes]:
    """Certificate, record and signer that the rogue shows for its caller."""
    platform, prefix = rogue.ground.platform, rogue.given.prefix.network_address.packed[:8]
    name, domain, address, sign = "mallory.evil.test", "evil.test", prefix + bytes(7) + b"\x01", ""
    days, ago = 14.0, 0.0
    if case == "other domain's node":
        name, domain = "mallory.home.test", "home.test"
    elif case == "other prefix":
        address = bytes([0xFD]) + bytes(15)
    elif case == "expired":
        days, ago = 1.0, 3.0
    node = platform.node(name, domain, days=days, issued_days_ago=ago)
    key = public_key(node.private_key)
    record = rogue.record(name, key, address)
    certificate, signer = node.certificates[0], rogue.given.sign_certificate
    if case == "other key":
        record = rogue.record(name, bytes(32), address)
    elif case == "coordinator as node":
        certificate = rogue.given.identity.certificates[0]
    elif case == "node as signer":
        signer = certificate
    elif case == "bad signature":
        record = record[:-1] + bytes([record[-1] ^ 1])
    elif case == "other signer":
        signer = platform.dc("dc.far.test", "far.test").sign_certificate
    assert not sign
    return certificate, record, signer
