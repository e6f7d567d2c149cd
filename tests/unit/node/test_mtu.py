"""What the search for path sizes keeps: of a bounded number of paths, and of none that is gone."""

from __future__ import annotations

from typing import Any, cast

from ntmd.node.mtu import PATHS_KEPT, MtuSearch
from ntmd.node.underlay import Underlay
from ntmd.proto.types import Endpoint, Path


class FakeUnderlay:
    """Only what the search looks up."""

    def __init__(self) -> None:
        self.mtus: dict[Path, int] = {}
        self.places: Any = None
        self.open = {1, 2}

    def is_open(self, socket: int) -> bool:
        return socket in self.open


def paths(underlay: FakeUnderlay, search: MtuSearch, socket: int, count: int) -> None:
    """So many paths of a socket carry data, and their sizes are found."""
    for port in range(1, count + 1):
        path = Path(socket, Endpoint("192.0.2.1", port))
        search._search_of(path)
        underlay.mtus[path] = 1400


def made() -> tuple[FakeUnderlay, MtuSearch]:
    underlay = FakeUnderlay()
    none = cast("Any", None)
    return underlay, MtuSearch(none, cast("Underlay", underlay), none, none)


def test_sizes_found_on_a_socket_that_is_gone_are_forgotten_with_it() -> None:
    underlay, search = made()
    paths(underlay, search, 1, 20)
    underlay.open = {2}
    paths(underlay, search, 2, 1)
    assert {path.socket for path in underlay.mtus} == {2}


def test_no_more_than_a_number_of_sizes_is_kept_and_the_newest_are() -> None:
    underlay, search = made()
    paths(underlay, search, 1, PATHS_KEPT + 20)
    assert len(underlay.mtus) == PATHS_KEPT
    assert min(path.remote.port for path in underlay.mtus) == 21
