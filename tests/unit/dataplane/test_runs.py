"""Cutting and joining: what the TUN gave comes out at the other TUN, whatever lies between."""

from __future__ import annotations

import dataclasses
import itertools
import random
import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.dataplane.packets import (
    GSO_TCP6,
    GSO_UDP,
    TCP,
    UDP,
    VNET,
    VNET_SIZE,
    complete,
    pseudo_sum,
    total,
)
from ntmd.dataplane.switchboard import Switchboard
from ntmd.proto import timing
from ntmd.proto.plane import (
    CounterNearLimit,
    DataKey,
    InstallTunnel,
    PlanePath,
    RemoveTunnel,
    SwitchPath,
)
from ntmd.proto.types import Endpoint, Path
from tests.unit.dataplane.pair import (
    AT_A,
    AT_B,
    A,
    B,
    entry,
    ipv6,
    read_into,
    tcp_packet,
    udp_packet,
)

ARRIVAL = (1, AT_A.host, AT_A.port)


class Wire:
    """Two switchboards with virtio TUNs; datagrams lie between them until carried over."""

    def __init__(self, *, partial: bool = True, join: tuple[int, ...] = (TCP, UDP)) -> None:
        self.drops: Counter[str] = Counter()
        self.sent: list[list[bytes]] = []
        self.written: list[bytes] = []
        self.a = self._board("a", partial, join)
        self.b = self._board("b", partial, join)

    def _board(self, side: str, partial: bool, join: tuple[int, ...]) -> Switchboard:
        board = Switchboard(
            self.drops,
            send=lambda run, size, _: self.sent.append(
                [bytes(run[at : at + size]) for at in range(0, len(run), size)]
            ),
            write=lambda parts: self.written.append(b"".join(parts)),
            reply=lambda packet: None,
            up=lambda data, socket, source: None,
            vnet=True,
            join=join,
        )
        board.set_own_address(A if side == "a" else B)
        board.apply(InstallTunnel(entry(side, takes_partial=partial)), 0.0)
        return board

    def out(self, vnet: bytes, packet: bytes) -> None:
        read_into(self.a.outbound.slots, vnet + packet)
        self.a.outbound.packet(VNET_SIZE + len(packet), 1.0)

    def over(self, runs: list[list[bytes]]) -> None:
        """As the kernel's GRO hands them over: runs side by side."""
        buffer = memoryview(bytearray(70_000))
        for run in runs:
            data = b"".join(run)
            buffer[: len(data)] = data
            self.b.inbound.datagrams(buffer, len(data), len(run[0]), ARRIVAL, 1.0)
        self.b.runs.close()

    def packets(self) -> list[bytes]:
        """What a reader without offloads would see: cut by the kernel's rules, checksums filled."""
        return [packet for each in self.written for packet in kernel_cut(each)]


def kernel_cut(raw: bytes) -> list[bytes]:
    """What Linux makes of a packet written to a TUN with a virtio header (an own derivation)."""
    flags, kind, _, size, start, offset = VNET.unpack_from(raw)
    packet = bytearray(raw[VNET_SIZE:])
    assert int.from_bytes(packet[4:6], "big") == len(packet) - 40
    if not flags:
        return [bytes(packet)]
    protocol = packet[6]
    assert (start, offset) == (40, {TCP: 16, UDP: 6}[protocol])
    field = int.from_bytes(packet[40 + offset : 42 + offset], "big")
    assert field == pseudo_sum(bytes(packet[8:40]), len(packet) - 40, protocol)
    if not kind:
        complete(packet, start, offset)
        return [bytes(packet)]
    assert kind == {TCP: GSO_TCP6, UDP: GSO_UDP}[protocol]
    head = 40 + (packet[52] >> 4) * 4 if protocol == TCP else 48
    if protocol == UDP:
        assert int.from_bytes(packet[44:46], "big") == len(packet) - 40
    pieces = []
    for at in range(head, len(packet), size):
        payload = packet[at : at + size]
        piece = bytearray(packet[:head]) + payload
        struct.pack_into(">H", piece, 4, len(piece) - 40)
        if protocol == TCP:
            sequence = int.from_bytes(packet[44:48], "big") + at - head
            struct.pack_into(">I", piece, 44, sequence & 0xFFFF_FFFF)
            if at + size < len(packet):
                piece[53] &= ~0x09
        else:
            struct.pack_into(">H", piece, 44, len(piece) - 40)
        pseudo = pseudo_sum(bytes(piece[8:40]), len(piece) - 40, protocol)
        struct.pack_into(">H", piece, 40 + offset, pseudo)
        complete(piece, 40, offset)
        pieces.append(bytes(piece))
    return pieces


def super_packet(protocol: int, payload: bytes, size: int, sequence: int, flags: int) -> tuple:
    """(virtio header, packet) as a TUN gives it, checksum left out."""
    if protocol == TCP:
        options = bytes.fromhex("0101080a0000000100000002")
        body = struct.pack(">HHIIBBHHH", 5, 6, sequence, 7, 8 << 4, flags, 500, 0, 0) + options
    else:
        body = struct.pack(">HHHH", 5, 6, 8 + len(payload), 0)
    packet = bytearray(ipv6(protocol, body + payload, None))
    offset = {TCP: 16, UDP: 6}[protocol]
    pseudo = pseudo_sum(A + B, len(packet) - 40, protocol)
    struct.pack_into(">H", packet, 40 + offset, pseudo)
    kind = {TCP: GSO_TCP6, UDP: GSO_UDP}[protocol] if len(payload) > size else 0
    return VNET.pack(1, kind, 40 + len(body), size if kind else 0, 40, offset), bytes(packet)


@given(
    protocol=st.sampled_from([TCP, UDP]),
    shapes=st.lists(
        st.tuples(
            st.integers(1, 60_000), st.integers(1, 1300), st.sampled_from([0x10, 0x18, 0x19])
        ),
        min_size=1,
        max_size=4,
    ),
    sequence=st.sampled_from([0, 1 << 31, 0xFFFF_FFFF, 0xFFFF_8000]),
    partial=st.booleans(),
    seed=st.integers(0, 100),
)
def test_cut_and_joined_again_is_the_same(protocol, shapes, sequence, partial, seed) -> None:
    wire = Wire(partial=partial)
    dice, wanted = random.Random(seed), []
    for length, size, flags in shapes:
        size = max(size, length // 60 + 1)
        vnet, packet = super_packet(protocol, dice.randbytes(length), size, sequence, flags)
        wanted += kernel_cut(vnet + packet)
        wire.out(vnet, packet)
        sequence = sequence + length & 0xFFFF_FFFF
    wire.a.outbound.flush(1.0)
    assert all(len({len(each) for each in run[:-1]}) <= 1 for run in wire.sent)
    wire.over(wire.sent)
    assert wire.packets() == wanted
    assert not wire.drops


@given(
    lost=st.lists(st.floats(0, 1), max_size=6),
    swapped=st.lists(st.floats(0, 1), max_size=3),
    protocol=st.sampled_from([TCP, UDP]),
    group=st.integers(1, 50),
)
def test_what_arrives_of_a_lossy_reordering_path_is_whole(lost, swapped, protocol, group) -> None:
    wire = Wire()
    dice = random.Random(1)
    vnet, packet = super_packet(protocol, dice.randbytes(50_000), 1200, 9, 0x18)
    wire.out(vnet, packet)
    wire.a.outbound.flush(1.0)
    wanted = kernel_cut(vnet + packet)
    datagrams = list(zip((each for run in wire.sent for each in run), wanted, strict=True))
    for place in lost:
        if datagrams:
            datagrams.pop(int(place * (len(datagrams) - 1)))
    for place in swapped:
        if len(datagrams) > 1:
            datagrams.append(datagrams.pop(int(place * (len(datagrams) - 1))))
    runs: list[list[bytes]] = []
    short: list[bytes] = []
    for datagram, _ in datagrams:
        if short and (
            len(short) >= group or len(short[-1]) != len(short[0]) or len(datagram) > len(short[0])
        ):
            runs.append(short)
            short = []
        short.append(datagram)
    wire.over([*runs, short] if short else runs)
    assert wire.packets() == [each for _, each in datagrams]


def test_one_super_packet_comes_out_as_one() -> None:
    wire = Wire()
    vnet, packet = super_packet(TCP, bytes(1348 * 44), 1348, 1, 0x18)
    wire.out(vnet, packet)
    wire.a.outbound.flush(1.0)
    assert [len(run) for run in wire.sent] == [44]
    wire.over(wire.sent)
    assert wire.written == [vnet + packet]


def test_flows_are_never_mixed() -> None:
    wire = Wire()
    packets = []
    for i in range(40):
        port = i % 2
        packets.append(udp_packet(bytes((i,)) * 100, port=port))
        wire.out(bytes(VNET_SIZE), packets[-1])
    packets.append(tcp_packet(b"x" * 88, flags=0x02))
    packets.append(tcp_packet(b"x" * 88, flags=0x10))
    packets.append(tcp_packet(b"y" * 88, sequence=89, flags=0x10))
    packets.append(tcp_packet(b"z" * 88, sequence=178, flags=0x10))  # one byte is missing
    for packet in packets[-4:]:
        wire.out(bytes(VNET_SIZE), packet)
    wire.a.outbound.flush(1.0)
    wire.over(wire.sent)
    assert wire.packets() == packets
    assert len(wire.written) == len(packets) - 1


def test_a_wrong_checksum_is_not_made_right_by_joining() -> None:
    wire = Wire(partial=False)
    good = [udp_packet(bytes((i,)) * 64) for i in range(3)]
    bad = bytearray(good[1])
    bad[-1] ^= 1
    for packet in (good[0], bytes(bad), good[2]):
        wire.out(bytes(VNET_SIZE), packet)
    wire.a.outbound.flush(1.0)
    wire.over(wire.sent)
    assert bytes(bad) in wire.packets()
    assert wire.packets()[0] == good[0]


def test_a_peer_in_another_tunnel_cannot_join_a_run() -> None:
    """Its packets carry the addresses of the open run, and are refused all the same."""
    wire = Wire()
    other = entry("b", tunnel=6, peer_address=bytes(15) + b"\x09", own_indexes=(7,), session=2)
    keys = tuple(key.__class__(5, key.suite, bytes(32), 2) for key in other.receive)
    wire.b.apply(
        InstallTunnel(
            entry("b", tunnel=6, peer_address=b"\xfd" + bytes(15), own_indexes=(7,), receive=keys)
        ),
        0.0,
    )
    first = udp_packet(b"1" * 64)
    wire.out(bytes(VNET_SIZE), first)
    wire.a.outbound.flush(1.0)
    forger = Wire()
    key = DataKey(5, keys[0].suite, bytes(32), 2)
    forger.a.apply(InstallTunnel(dataclasses.replace(entry("a"), send=key, peer_index=7)), 0.0)
    for _ in range(3):
        forger.out(bytes(VNET_SIZE), first)
    forger.a.outbound.flush(1.0)
    run = wire.sent[0] + forger.sent[0]
    wire.over([run])
    assert wire.packets() == [first]
    assert wire.drops == {"in_wrong_source": 3}


@given(
    plains=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=200),
            st.binary(min_size=0, max_size=120).map(
                lambda tail: (
                    struct.pack(">IHBB", 6 << 28, len(tail), tail[0] if tail else 6, 64)
                    + A
                    + B
                    + tail
                )
            ),
            st.binary(min_size=0, max_size=60).map(lambda tail: b"\x01" + tail),
        ),
        min_size=1,
        max_size=8,
    ),
    partial=st.booleans(),
)
def test_a_malicious_peer_raises_nothing(plains, partial) -> None:
    wire = Wire()
    outbound, tunnel = wire.a.outbound, wire.a.table.by_number[5]
    sender = tunnel.send
    assert sender is not None
    for plain in plains:
        outbound.buffer[: len(plain)] = plain
        word = sender.partial if partial else sender.plain
        outbound._seal(tunnel, sender, word, 0, len(plain), 1.0)
    outbound.flush(1.0)
    wire.over(wire.sent)
    for raw in wire.written:
        packet = raw[VNET_SIZE:]
        assert packet[0] >> 4 == 6
        assert packet[8:40] == A + B
        assert len(packet) == 40 + int.from_bytes(packet[4:6], "big")


@given(data=st.binary(min_size=1, max_size=300), size=st.integers(1, 80))
def test_garbage_from_the_underlay_raises_nothing(data, size) -> None:
    wire = Wire()
    wire.b.inbound.datagrams(memoryview(bytearray(data)), len(data), size, ARRIVAL, 1.0)
    wire.b.runs.close()
    assert wire.written == []


@given(raw=st.binary(min_size=1, max_size=300), vnet=st.booleans())
def test_garbage_from_the_tun_raises_nothing(raw, vnet) -> None:
    wire = Wire()
    if vnet:
        raw = VNET.pack(1, 4 if len(raw) % 2 else 5, 60, raw[0], 40, 16) + udp_packet(raw)
    read_into(wire.a.outbound.slots, raw)
    wire.a.outbound.packet(len(raw), 1.0)
    wire.a.outbound.flush(1.0)


@pytest.mark.parametrize("length", [0, 1, 2, 1419, 1420])
def test_sums_are_those_of_rfc_1071(length: int) -> None:
    data = random.Random(length).randbytes(length)
    padded = data + bytes(len(data) % 2)
    words = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    assert total(data) == words % 65535


def test_a_run_on_two_paths_differs_only_in_the_index() -> None:
    wire = Wire()
    relay = PlanePath(Path(2, Endpoint("2001:db8::9", 4500), 0xA1B2C3D4), 1500)
    direct = entry("a").paths[0]
    wire.a.apply(SwitchPath(5, (direct, relay)), 0.0)
    vnet, packet = super_packet(TCP, bytes(1348 * 47), 1348, 1, 0x18)
    for _ in range(2):
        wire.out(vnet, packet)
    wire.a.outbound.flush(1.0)
    once, twice = wire.sent[0::2], wire.sent[1::2]
    assert len(once) == len(twice) >= 2
    for one, two in zip(once, twice, strict=True):
        for left, right in zip(one, two, strict=True):
            assert left[4:8] == (102).to_bytes(4, "big")
            assert right[4:8] == (0xA1B2C3D4).to_bytes(4, "big")
            assert left[:4] + left[8:] == right[:4] + right[8:]
    wire.over(once)
    assert wire.written == [vnet + packet] * 2


def test_a_key_is_told_to_be_nearly_used_up_and_then_stops(monkeypatch) -> None:
    monkeypatch.setattr(timing, "COUNTER_REKEY", 50)
    monkeypatch.setattr(timing, "COUNTER_LIMIT", 100)
    wire = Wire()
    for _ in range(4):
        wire.out(*super_packet(TCP, bytes(1000 * 30), 1000, 1, 0x18))
    wire.a.outbound.flush(1.0)
    counters = [int.from_bytes(each[8:16], "big") for run in wire.sent for each in run]
    assert counters == list(range(1, 101))
    assert wire.drops == {"out_counter_limit": 20}
    told = [each for each in wire.a.reports.take(1.0) if isinstance(each, CounterNearLimit)]
    assert set(told) == {CounterNearLimit(5, 1)}
    assert 2 <= len(told) <= 10, "again, as long as nobody acts"
    wire.over(wire.sent)
    assert wire.b.table.by_number[5].receive[2].window.distinct == 100
    assert wire.drops == {"out_counter_limit": 20}


def test_no_nonce_is_used_twice_whatever_the_core_does() -> None:
    """Random installs, removals, rekeys and super-packets: (key, nonce) stay unique."""
    dice = random.Random(4)
    wire, used = Wire(), set()
    first = entry("a").send
    assert first is not None
    sessions: dict[int | None, bytes] = {1: first.key}
    for _ in range(300):
        what = dice.random()
        if what < 0.1:
            wire.a.apply(RemoveTunnel(5), 1.0)
        elif what < 0.3:
            session = dice.randrange(1, 5)
            key = sessions.setdefault(session, dice.randbytes(32))
            data = DataKey(2, first.suite, key, session)
            entry_ = dataclasses.replace(entry("a"), send=data, takes_partial=dice.random() < 0.7)
            wire.a.apply(InstallTunnel(entry_), 1.0)
        else:
            tunnel = wire.a.table.by_number.get(5)
            name = tunnel.send.number if tunnel and tunnel.send else None
            wire.out(*super_packet(TCP, bytes(dice.randrange(1, 40_000)), 1200, 1, 0x18))
            wire.a.outbound.flush(1.0)
            if name is None:
                wire.a.parking.release(B)
            for each in (datagram for run in wire.sent for datagram in run):
                nonce = (sessions[name], each[:4] + each[8:16])
                assert nonce not in used
                used.add(nonce)
        wire.sent.clear()
    assert len(used) > 2000


@given(
    lengths=st.lists(st.integers(1, 46 * 1348), min_size=2, max_size=8),
    stamps=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    lost=st.sets(st.integers(0, 8 * 46), max_size=6),
    sequence=st.sampled_from([1, 0xFFFF_0000]),
)
def test_a_bulk_flow_is_whole_whatever_changes_from_one_super_packet_to_the_next(
    lengths, stamps, lost, sequence
) -> None:
    """Time stamps, lengths and pushes change; options come and go; some datagrams are lost."""
    wire, sent = Wire(), []
    for length, stamp in zip(lengths, stamps, strict=False):
        payload = random.Random(length).randbytes(length)
        vnet, packet = super_packet(TCP, payload, 1348, sequence & 0xFFFF_FFFF, 0x10 | stamp & 8)
        packet = bytearray(packet)
        packet[64:68] = bytes((0, 0, 0, stamp))
        wire.out(vnet, bytes(packet))
        sent += kernel_cut(vnet + bytes(packet))
        sequence += length
    wire.a.outbound.flush(1.0)
    datagrams = [each for run in wire.sent for each in run]
    assert len(datagrams) == len(sent)
    kept = [i for i in range(len(sent)) if i not in lost]
    for run in itertools.groupby(kept, key=lambda i: (i // 44, len(datagrams[i]))):
        wire.over([[datagrams[i] for i in run[1]]])
    assert wire.packets() == [sent[i] for i in kept]


def test_a_udp_super_packet_over_a_narrow_path_arrives_in_pieces() -> None:
    wire = Wire()
    narrow = PlanePath(Path(1, AT_B), 1280)
    wire.a.apply(SwitchPath(5, (narrow,)), 1.0)
    vnet, packet = super_packet(UDP, bytes(range(256)) * 40, 1300, 0, 0)
    wire.out(vnet, packet)
    wire.a.outbound.flush(1.0)
    assert all(len(each) <= 1280 - 28 for run in wire.sent for each in run)
    for run in wire.sent:
        wire.over([run])
    assert wire.packets() == kernel_cut(vnet + packet)
