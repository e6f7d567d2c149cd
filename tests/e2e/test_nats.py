"""NATs of every kind, proved first by a prober that knows nothing of ntmd; then who meets whom."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.actors import together, wait_for
from tests.e2e.conftest import SERVER4, Town
from tests.e2e.lab import Lab, Nat
from tests.e2e.lab.nats import BEHAVIOUR, NatKind
from tests.e2e.lab.netns import Namespace

PROBER = str(Path(__file__).parent / "lab" / "prober.py")
KINDS: tuple[NatKind, ...] = ("full-cone", "address-restricted", "port-restricted", "symmetric")
LIVES = 4  # seconds that an unused mapping stays in the proof
WAITS = (2.0, 3.0, 5.0, 6.0)


class Prober:
    """The prober's server on a public host."""

    def __init__(self, host: Namespace) -> None:
        server = host.start(
            sys.executable, PROBER, "serve", *SERVER4, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def ask(self, host: Namespace) -> dict[str, Any]:
        """What the prober finds between ``host`` and the public Internet."""
        waits = [str(wait) for wait in WAITS]
        said = host.run(sys.executable, PROBER, "probe", *SERVER4, *waits).stdout
        found: dict[str, Any] = json.loads(said)
        return found


def test_nats_are_what_they_are_called(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Mapping, filtering, hairpin and lifetime of every kind, also behind a carrier's NAT."""
    prober = Prober(lab.public("prober", SERVER4))
    carrier = lab.nat("full-cone", carrier=True, hairpin=True, lifetime=LIVES)
    boxes: list[tuple[str, Nat, bool]] = [
        *((kind, lab.nat(kind, lifetime=LIVES), False) for kind in KINDS),
        *((kind, lab.nat(kind, lifetime=LIVES, hairpin=True), True) for kind in KINDS[:3]),
        ("behind a carrier's", lab.nat(behind=carrier, lifetime=LIVES), True),
    ]
    found: dict[int, dict[str, Any]] = {}

    def look(box: Nat, host: Namespace) -> None:
        found[box.number] = prober.ask(host)

    looks = []
    for _, box, _ in boxes:
        host = lab.space(f"host{box.number}")
        lab.plug(host, "eth0", box)
        looks.append(functools.partial(look, box, host))
    together(looks)
    with capsys.disabled():
        print("\nwhat the prober found:")
        for name, box, _ in boxes:
            told = found[box.number]
            lives = [wait for wait, alive in told["alive_after_s"].items() if alive]
            print(
                f"  {name:19} mapping {told['mapping']:26} filtering {told['filtering']:26} "
                f"hairpin {told['hairpin']!s:5} alive after {', '.join(lives)} s of {LIVES}"
            )
    for _, box, turns in boxes:
        told = found[box.number]
        assert (told["mapping"], told["filtering"]) == BEHAVIOUR[box.kind], told
        assert told["hairpin"] is turns, told
        assert told["alive_after_s"] == {str(wait): wait < LIVES for wait in WAITS}, told
        outer = carrier.public4 if box.public4 and box.public4.startswith("100.") else box.public4
        assert {address for address, _ in told["seen_as"]} == {outer}


def direct_allowed(one: NatKind, other: NatKind) -> bool:
    """What RFC 4787's behaviours let a punch without port prediction do."""
    hard = {"symmetric", "port-restricted"}
    return not ("symmetric" in (one, other) and {one, other} <= hard)


def test_every_pair_of_kinds(town: Town) -> None:
    """All 16 connect at once; direct exactly where the NATs allow it; what ntmd measured is so."""
    callers = {kind: (f"a-{kind}", town.lab.nat(kind)) for kind in KINDS}
    called = {kind: (f"b-{kind}", town.lab.nat(kind)) for kind in KINDS}
    nodes = town.join(*callers.values(), *called.values())
    first = dict(zip(KINDS, nodes, strict=False))
    second = dict(zip(KINDS, nodes[len(KINDS) :], strict=True))
    pairs = [(one, other) for one in KINDS for other in KINDS]

    def call(one: NatKind, other: NatKind) -> None:
        said = first[one].ping(f"{second[other].name}.home.test", "-c3", "-i0.2", "-W5")
        assert "3 received" in said, f"{one} to {other}: {said}"

    together(functools.partial(call, *pair) for pair in pairs)
    wanted = {
        (one, other): "direct" if direct_allowed(one, other) else "relay" for one, other in pairs
    }

    def ways() -> dict[tuple[NatKind, NatKind], str]:
        """One status of each caller tells four ways."""
        found = {}
        for one, node in first.items():
            kinds = {peer["name"]: peer["path"]["kind"] for peer in node.status()["peers"]}
            for other in KINDS:
                found[one, other] = kinds.get(f"{second[other].name}.home.test", "none")
        return found

    wait_for(lambda: ways() == wanted, 10, 0.2)
    for kind, node in [*first.items(), *second.items()]:
        wait_for(lambda: node.look()["underlay"][0]["mapping"] != "unknown", 10)  # noqa: B023
        (underlay,) = node.status()["underlay"]
        assert underlay["mapping"] == BEHAVIOUR[kind][0], (kind, underlay)


def test_a_nat_behind_a_carriers_nat(town: Town) -> None:
    """Two NATs in a row; neighbours under one carrier meet if it turns packets back (hairpin)."""
    turning, strict = town.lab.nat(carrier=True, hairpin=True), town.lab.nat(carrier=True)
    anna, ben, carl, dora, desk = town.join(
        ("anna", town.lab.nat(behind=turning)),
        ("ben", town.lab.nat(behind=turning)),
        ("carl", town.lab.nat(behind=strict)),
        ("dora", town.lab.nat(behind=strict)),
        ("desk", town.lab.nat()),
    )
    ways = [(anna, desk, "direct"), (anna, ben, "direct"), (carl, dora, "relay")]
    for one, other, _ in ways:
        assert "2 received" in one.ping(f"{other.name}.home.test", "-c2", "-i0.3", "-W5")
    for one, other, kind in ways:
        name = f"{other.name}.home.test"
        wait_for(lambda one=one, name=name, kind=kind: one.path_kind(name) == kind, 10)
    remote = anna.peer("ben.home.test")["path"]["remote"]
    assert remote.startswith(f"{turning.public4}:"), "neighbours meet at the carrier's address"


def test_neighbours_in_one_house(town: Town) -> None:
    """Two nodes behind one NAT, which turns nothing back: direct, by their private addresses."""
    home = town.lab.nat()
    anna, _ = town.join(("anna", home), ("ben", home))
    assert "2 received" in anna.ping("ben.home.test", "-c2", "-i0.3", "-W5")
    wait_for(lambda: anna.path_kind("ben.home.test") == "direct", 10)
    assert anna.peer("ben.home.test")["path"]["remote"].startswith(f"10.{home.number}.")
