from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ntmd.node.memory import PEERS_KEPT, KnownPeer, Memory, Resumption
from ntmd.proto import msgpack
from ntmd.proto.io import Store
from ntmd.proto.messages import RelayGrant, RelayInfo
from ntmd.proto.types import Endpoint


def peer(name: str = "desk.home.test", active: int = 5) -> KnownPeer:
    at, tls = Endpoint("198.51.100.1", 4331), Endpoint("198.51.100.1", 443)
    relay = RelayInfo("rs1.home.test", b"cert", (at,), (tls,))
    return KnownPeer(
        name,
        name.encode().ljust(32, b"k")[:32],
        name.encode().ljust(16, b"a")[:16],
        b"certificate",
        b"record",
        b"dc-sign",
        (Endpoint("203.0.113.9", 4330), Endpoint("2001:db8::9", 4330)),
        (Resumption(b"i" * 16, b"s" * 32, 99),),
        (RelayGrant(relay, b"grant"),),
        "rs1.home.test",
        active,
        True,
    )


def stored(commands: list[Any]) -> dict[str, bytes]:
    kept: dict[str, bytes] = {}
    for command in commands:
        assert isinstance(command, Store)
        if command.value is None:
            kept.pop(command.key, None)
        else:
            kept[command.key] = command.value
    return kept


def test_everything_that_was_kept_comes_back() -> None:
    commands: list[Any] = []
    memory = Memory({}, commands.append)
    memory.keep_peer(peer())
    memory.keep_self(b"\xfd" * 16, b"record", b"sign", ("home.test", "lab.test"))
    memory.keep_relays((RelayInfo("rs1.home.test", b"c", (Endpoint("198.51.100.1", 1),)),))
    memory.keep_coordinator((Endpoint("198.51.100.1", 4330),))
    memory.keep_coordinator_tls((Endpoint("198.51.100.1", 443),))
    memory.keep_clock(10_000_000)
    again = Memory(stored(commands), lambda _: None)
    assert again.unreadable == []
    assert again.peers == {"desk.home.test": peer()}
    assert again.by_key(peer().key) == again.by_address(peer().address) == peer()
    assert (again.address, again.record, again.dc_sign) == (b"\xfd" * 16, b"record", b"sign")
    assert again.domains == ("home.test", "lab.test")
    assert again.relays == memory.relays
    assert again.coordinator == memory.coordinator
    assert again.coordinator_tls == (Endpoint("198.51.100.1", 443),)
    assert again.clock_ms == 10_000_000


def test_relays_kept_before_there_was_tls_are_read() -> None:
    at = Endpoint("198.51.100.1", 4331)
    entry = msgpack.pack([1, [["rs1.home.test", b"c", [at.pack()]]]])
    memory = Memory({"relays": entry}, lambda _: None)
    assert memory.unreadable == []
    assert memory.relays == (RelayInfo("rs1.home.test", b"c", (at,)),)


def test_what_did_not_change_is_not_written_again() -> None:
    commands: list[Any] = []
    memory = Memory({}, commands.append)
    for _ in range(3):
        memory.keep_peer(peer())
        memory.keep_self(b"\xfd" * 16, b"r", b"s", ())
        memory.keep_clock(10_000_000)
    assert len(commands) == 3


def test_the_least_recently_active_peer_leaves() -> None:
    commands: list[Any] = []
    memory = Memory({}, commands.append)
    for number in range(PEERS_KEPT + 3):
        memory.keep_peer(peer(f"n{number}.home.test", active=number))
    assert len(memory.peers) == PEERS_KEPT
    assert len(stored(commands)) == PEERS_KEPT
    assert "n2.home.test" not in memory.peers
    assert "n3.home.test" in memory.peers


@given(
    st.sampled_from(["peer/x", "self", "relays", "coordinator", "clock", "other"]),
    st.binary(max_size=80),
)
def test_a_damaged_entry_is_named_and_never_raises(key: str, value: bytes) -> None:
    memory = Memory({key: value}, lambda _: None)
    if key == "other":
        assert memory.unreadable == []


def test_truncations_of_a_real_entry_are_named() -> None:
    commands: list[Any] = []
    Memory({}, commands.append).keep_peer(peer())
    whole = commands[0].value
    for length in range(len(whole)):
        memory = Memory({"peer/desk.home.test": whole[:length]}, lambda _: None)
        assert memory.unreadable == ["peer/desk.home.test"]
        assert memory.peers == {}
