"""Each test process talks on a loopback of its own."""

from __future__ import annotations

import pytest

from tests.unit.ports import network_of_its_own


@pytest.fixture(scope="session", autouse=True)
def _own_network() -> None:
    network_of_its_own()
