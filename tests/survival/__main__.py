"""``make survival``: run what is missing of the matrix, append it to a file, write the page.

    python -m tests.survival [--products ntmd,...] [--only SCENARIO,...] [--repeat N]
                             [--minutes M] [--out FILE] [--keep DIR] [--write]

A repetition that stands in the file already, with the same version on the same machine, is not run
again. Needs root.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.survival import page
from tests.survival.ground import RTT, machine
from tests.survival.products import Product, Unfit
from tests.survival.products.nebula import Nebula
from tests.survival.products.ntmd import Ntmd
from tests.survival.products.openvpn import Openvpn
from tests.survival.products.tailscale import Tailscale
from tests.survival.products.wireguard import Wireguard
from tests.survival.run import repetition
from tests.survival.scenarios import SCENARIOS, Scenario

OUT = Path("out/survival.jsonl")
PEERS = ("wireguard-go", "nebula", "openvpn", "tailscale")
Row = dict[str, Any]


def make(name: str, scenario: Scenario) -> Product:
    """The product of that name. Raises SystemExit for an unknown one."""
    folder = OUT.parent / "bin"
    match name:
        case "ntmd":
            return Ntmd(apart=scenario.apart)
        case "wireguard-go":
            return Wireguard(folder)
        case "nebula":
            return Nebula(folder)
        case "openvpn":
            return Openvpn()
        case "tailscale":
            return Tailscale(folder)
    raise SystemExit(f"no product {name!r}")


def rows(path: Path) -> list[Row]:
    """What the file holds."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def key(row: Row) -> tuple[str, ...]:
    """Rows with the same key are repetitions of the same thing."""
    return tuple(str(row[name]) for name in ("product", "version", "setup", "scenario", "machine"))


def once(name: str, scenario: Scenario, keep: Path | None) -> Row:
    """One repetition as a line for the file."""
    product = make(name, scenario)
    told = product.version()
    row: Row = {
        "product": told.name,
        "version": told.version,
        "setup": told.setup,
        "scenario": scenario.name,
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "load": round(os.getloadavg()[0], 1),
        "rtt_ms": RTT * 1000,
    }
    with tempfile.TemporaryDirectory(prefix="ntmd-sv-") as folder:
        try:
            return {**row, **repetition(product, scenario, Path(folder), keep)}
        except Unfit as unfit:
            return {**row, "unfit": unfit.why}


def say(row: Row) -> str:
    """A repetition in one line."""
    if "unfit" in row:
        return f"does not apply: {row['unfit']}"
    cells = [
        f"{name} {'' if each['survived'] else 'DEAD '}{each['gap_ms']}"
        + (f" lost {each['lost']}" if "lost" in each else "")
        + (f" mos {each['mos']}" if "mos" in each else "")
        for name, each in row["programs"].items()
    ]
    return f"{row['seconds']} s; " + "; ".join(cells)


def run(options: argparse.Namespace) -> int:
    """Everything that is missing, round by round; returns how many repetitions failed to run."""
    until = time.monotonic() + options.minutes * 60
    failed = 0
    for number in range(options.repeat):
        for scenario in (SCENARIOS[name] for name in options.only):
            for name in options.products:
                told = make(name, scenario).version()
                wanted = {
                    "product": told.name, "version": told.version, "setup": told.setup,
                    "scenario": scenario.name, "machine": machine(),
                }  # fmt: skip
                done = [row for row in rows(options.out) if key(row) == key(wanted)]
                if len(done) > number or any("unfit" in row for row in done):
                    continue
                if time.monotonic() > until:
                    return failed
                label = f"{name}-{scenario.name}-{number + 1}"
                print(f"{label}: ", end="", flush=True)
                try:
                    row = once(name, scenario, options.keep and options.keep / label)
                except Exception:  # a lab that did not come up is no result; it is run again
                    failed += 1
                    traceback.print_exc()
                    continue
                with options.out.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                print(say(row), flush=True)
    return failed


def words(text: str) -> list[str]:
    """A list with commas."""
    return [word for word in text.split(",") if word]


def main() -> int:
    """Exit code 0 if every repetition ran, whatever it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=words, default=["ntmd"], help="or: peers")
    parser.add_argument("--only", type=words, default=list(SCENARIOS), help="scenarios")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=60, help="start nothing after these")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--keep", type=Path, help="keep the raw notes of each repetition here")
    parser.add_argument("--write", action="store_true", help="write docs/survival.*")
    options = parser.parse_args()
    if options.products == ["peers"]:
        options.products = list(PEERS)
    if os.geteuid() != 0:
        print("the matrix needs network namespaces: run it as root", file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    failed = run(options)
    if options.write:
        page.keep(rows(options.out))
        page.write()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
