"""Commands and events cross to the plane's process unchanged."""

from __future__ import annotations

import dataclasses
from typing import Any

from ntmd.dataplane.wire import CLASSES, MESSAGE_MAX, Start, pack, unpack
from ntmd.proto import plane
from ntmd.proto.io import DatagramReceived, SendDatagram, SendFailed
from ntmd.proto.types import Endpoint, Path
from tests.unit.dataplane.pair import AT_A, B, entry

PATH = Path(3, Endpoint("2001:db8::1", 4500), 77)
VALUES: list[Any] = [
    Start(10, B, 5),
    SendDatagram(b"data", PATH),
    DatagramReceived(b"data", 1, AT_A),
    SendFailed(PATH, 101, "unreachable"),
    plane.OpenSocket(1, "eth0", 6, "2001:db8::1", 0),
    plane.CloseSocket(1),
    plane.InstallTunnel(entry("a", sources=(PATH,))),
    plane.InstallTunnel(entry("a", send=False, receive=(), paths=())),
    plane.SwitchPath(5, (plane.PlanePath(PATH, 1400, 2),), (PATH, PATH)),
    plane.SwitchPath(5, (plane.PlanePath(PATH, 1400, 2, 3600, settled=False),)),
    plane.Resend(5, 1, 1 << 40, (1 << 64) - 1),
    plane.ParkStreams(5),
    plane.RemoveTunnel(5),
    plane.ReleaseParked(B, False),
    plane.BlockInterface("wlan0", 2.5),
    plane.StreamSettings(b"ca", "http://192.0.2.1:8080"),
    plane.OpenStream(3, "eth0", 4, "192.0.2.9", AT_A, "ntm-rs/1", 1 << 41, 0),
    plane.SocketOpened(1, AT_A),
    plane.SocketFailed(1, 19, "no device"),
    plane.NoTunnelFor(B),
    plane.PeerMoved(5, 1, AT_A, 90),
    plane.SlotSeen(5, 1),
    plane.UnknownIndex(1, AT_A, 4, 90),
    plane.TunnelActivity(
        5, 1, 2, 3, 4, 1, 9, 3, ((1, 4), (2, 5)), 1.5, 2.5, 0.1, 1.0, 2, 3, 1 << 40
    ),
    plane.CounterNearLimit(5, 1),
    plane.DeviceFailed(5, "gone"),
]


def test_everything_arrives_as_it_was_with_its_types() -> None:
    assert {type(each) for each in VALUES} <= set(CLASSES)
    [message] = pack(VALUES)
    back = unpack(message)
    assert back == VALUES
    for sent, got in zip(VALUES, back, strict=True):
        for field in dataclasses.fields(sent):
            assert type(getattr(got, field.name)) is type(getattr(sent, field.name))


def test_messages_are_bounded_and_keep_their_order() -> None:
    values = [SendDatagram(bytes((i,)) * 60_000, PATH) for i in range(10)]
    messages = pack(values)
    assert max(map(len, messages)) <= MESSAGE_MAX + 1000
    assert [value for message in messages for value in unpack(message)] == values
    assert pack([]) == []
