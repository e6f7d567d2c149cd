"""What is remembered of a network is a hint, whatever stands on the disk."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ntmd.node.memory import PLACES, PLACES_KEPT, VERSION, Memory
from ntmd.node.places import FILTERINGS, MAPPINGS, Place, read
from ntmd.proto.io import Store
from ntmd.proto.msgpack import pack

VALUES: Any = st.none() | st.booleans() | st.integers(-5, 2**63) | st.text(max_size=3)


@given(st.lists(VALUES, max_size=12))
def test_whatever_was_stored_reads_as_a_place(values: list[Any]) -> None:
    place = read(tuple(values))
    assert place.mapping < len(MAPPINGS)
    assert place.filtering < len(FILTERINGS)
    assert min(place.kept, place.lapsed, place.mtu) >= 0


@given(VALUES | st.lists(VALUES | st.lists(VALUES, max_size=9), max_size=4))
def test_an_entry_of_another_shape_is_reported_or_read(rows: Any) -> None:
    memory = Memory({PLACES: pack([VERSION, rows])}, lambda _: None)
    assert memory.unreadable == [PLACES] or len(memory.places) <= PLACES_KEPT


def test_places_come_back_as_they_were_kept() -> None:
    wishes: list[Store] = []
    memory = Memory({}, wishes.append)
    memory.keep_place("10.0.0.1 10.0.0.0/24", (0, 1, 2, 3, 30_000, 45_000, 1400))
    again = Memory({PLACES: wishes[-1].value or b""}, wishes.append)
    place = read(again.places["10.0.0.1 10.0.0.0/24"])
    assert place == Place(0, 1, 2, 3, 30_000, 45_000, 1400)
