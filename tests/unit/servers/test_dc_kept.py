"""Rows that the coordinator kept and something damaged: refused, and all else goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ntmd.proto import messages as m
from tests.unit.servers.dc_ground import Ground
from tests.unit.servers.test_dc_interdomain import two_domains

FOR_BOTH: dict[str, Any] = {
    "a list": [1],
    "a text": "x",
    "endpoints a number": {"endpoints": 5},
    "endpoint of one part": {"endpoints": [["198.51.100.2"]]},
    "port without end": {"endpoints": [["198.51.100.2", float("inf")]]},
    "port below": {"endpoints": [["198.51.100.2", -5]]},
    "port beyond": {"endpoints": [["198.51.100.2", 70_000]]},
    "no address": {"endpoints": [["dc.lab.test", 4330]]},
}
DOMAIN: dict[str, Any] = FOR_BOTH | {
    "key a number": {"key": 5},
    "short key": {"key": "00"},
    "no name": {"name": "a b"},
    "prefix a list": {"prefix": [1]},
    "prefix with host": {"prefix": "fd00::1/64"},
    "prefix beyond": {"prefix": 1 << 200},
}
RELAY: dict[str, Any] = FOR_BOTH | {
    "certificate cut": {"certificate": "30"},
    "path of one part": {"path": [1]},
    "path without end": {"path": [float("inf"), "198.51.100.2", 4331]},
    "path nowhere": {"path": [1, "nowhere", 4331]},
}
RAW = {"not text": b"\xff", "nothing": b"", "deep": b"[" * 200_000}


def rows(good: bytes, damage: dict[str, Any]) -> dict[str, bytes]:
    """Each damaged row: what stands there instead of the good one's fields, or of all of it."""
    right = json.loads(good)
    changed = {
        name: json.dumps({**right, **with_} if isinstance(with_, dict) else with_).encode()
        for name, with_ in damage.items()
    }
    return {**changed, **RAW}


@pytest.mark.parametrize("name", [*DOMAIN, *RAW])
def test_a_damaged_row_of_a_domain(name: str) -> None:
    ground = Ground()
    home, _, laptop, _ = two_domains(ground)
    assert laptop.ask(m.DirectionRequest(0, "desk.lab.test")).status == m.Status.OK
    home.values["domain/lab.test"] = rows(home.values["domain/lab.test"], DOMAIN)[name]
    home.start()
    assert home.events["stored_refused"] == 1
    ground.wait(3.0)
    assert laptop.ask(m.DirectionRequest(0, "desk.lab.test")).status == m.Status.OK


@pytest.mark.parametrize("name", [*RELAY, *RAW])
def test_a_damaged_row_of_a_relay(name: str) -> None:
    ground = Ground()
    home, _, laptop, _ = two_domains(ground)
    [key] = [key for key in home.values if key.startswith("relay/")]
    home.values[key] = rows(home.values[key], RELAY)[name]
    home.start()
    assert home.events["stored_refused"] == 1
    ground.wait(3.0)
    assert laptop.ask(m.DirectionRequest(0, "desk.lab.test")).status == m.Status.OK
