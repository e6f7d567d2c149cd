"""Console blocks of README and docs: ``python -m tests.meta.console --write [NAME ...]``.

A block is a fence behind ``<!-- console: NAME -->``. What stands in it comes from the programs: the
words of ``ntmd`` from the simulator, whose story below has all the moves; the demo from a run of
the demo (real kernel, root). Checks compare after numbers and addresses were masked.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ntmd.cli import show
from tests.sim.nat import PORT_RESTRICTED, SYMMETRIC
from tests.sim.node import SimNode
from tests.sim.story import NODE_LINK, Stage

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- console: ([\w-]+) -->\n```\w*\n(.*?)```\n", re.DOTALL)
MASKS = (
    (re.compile(r"\bf[cd][0-9a-f]{2}:[0-9a-f:]+"), "ADDRESS"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "ID"),
    (re.compile(r"\d+(?:[.:]\d+)*"), "N"),
    (re.compile(r"\[ +"), "["),
    (re.compile(r"[ \t]+"), " "),
)


def masked(text: str) -> list[str]:
    """Lines without figures, addresses, and widths of columns."""
    for pattern, word in MASKS:
        text = pattern.sub(word, text)
    return [line.strip() for line in text.strip().splitlines()]


# ------------------------------------------------------------------ the simulator's story


@cache
def story() -> dict[str, str]:
    """A laptop with two links meets a desk, moves, and rehearses; a tablet is harder to reach."""
    stage = Stage(11)
    stage.domain()
    house = stage.world.home(PORT_RESTRICTED)
    laptop = stage.node("laptop", house)
    desk = stage.node("desk", stage.world.home(PORT_RESTRICTED))
    tablet = stage.node("tablet", stage.world.home(SYMMETRIC))
    stage.all_up()
    stage.run(4.0)
    for peer in (desk, tablet):
        stage.first_answer(laptop, peer)
    stage.stream(desk, laptop, 1500)
    stage.run(5.0)
    why = said(laptop, "why", name=tablet.name)
    laptop.host.detach("eth0")
    laptop.host.attach("wlan0", stage.world.home(PORT_RESTRICTED), NODE_LINK)
    stage.run(8.0)
    laptop.host.attach("eth0", stage.world.home(PORT_RESTRICTED), NODE_LINK, metric=600)
    stage.run(5.0)
    stage.first_answer(laptop, desk)
    status = said(laptop, "status")
    moves = [e for e in said(laptop, "handovers")["handovers"] if e["peer"] == desk.name]
    return {
        "status": typed("ntmd status", shown_status(status)),
        "why": typed(f"ntmd why {tablet.name}", show.why(why)),
        "handovers": typed("ntmd handovers", show.handover_in_full(moves[0])),
        "watch": typed("ntmd status --watch | cat", watched(status, desk.name)),
        "rehearse": typed("ntmd rehearse", rehearsed(stage, laptop)),
    }


def typed(command: str, output: str) -> str:
    """A command and what it says."""
    return f"# {command}\n{output}\n"


def said(node: SimNode, what: str, **arguments: Any) -> dict[str, Any]:
    """The last answer of a node."""
    result = node.ask(what, **arguments)[-1].result
    assert isinstance(result, dict)
    return result


def shown_status(status: dict[str, Any]) -> str:
    """The status, with what the shell adds to it."""
    node = {**status["self"], "interface": "ntm0", "plane": "python"}
    dns = {"mode": "file", "address": "fd5e:1:2:1::53", "domains": ["home.test"]}
    return show.status({**status, "self": node, "dns": dns, "drops": {}})


def watched(status: dict[str, Any], name: str) -> str:
    """One quality line."""
    (peer,) = [each for each in status["peers"] if each["name"] == name]
    moves = {entry["peer"]: entry for entry in status["handovers"]}
    return f"12:00:00 {show.quality(peer, 0.0, moves.get(name))}"


def rehearsed(stage: Stage, laptop: SimNode) -> str:
    """Progress and result of a rehearsal."""
    answers = laptop.ask("rehearse", seconds=5)
    stage.run(14.0)
    phases = [answer.result for answer in answers if isinstance(answer.result, dict)]
    words = [show.rehearsal_phase(phase) for phase in phases[:-1]]
    return "\n".join([*words, show.rehearsal(phases[-1])])


# ------------------------------------------------------------------ the demo


@cache
def demo() -> str:
    """What ``make demo`` prints; fails if the demo does."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip("\n") + "\n"


SIMULATED = ("status", "watch", "why", "handovers", "rehearse")
MAKERS: dict[str, Callable[[], str]] = {
    **{name: lambda name=name: story()[name] for name in SIMULATED},  # type: ignore[misc]
    "demo": demo,
}


def blocks() -> dict[str, str]:
    """Every block that is in a page."""
    return {
        name: text
        for page in PAGES
        for name, text in BLOCK.findall(page.read_text(encoding="utf-8"))
    }


def write(names: set[str]) -> None:
    """Put fresh output into the pages."""

    def fresh(match: re.Match[str]) -> str:
        name, text = match[1], match[2]
        if name not in names:
            return match[0]
        return match[0].removesuffix(f"{text}```\n") + f"{MAKERS[name]()}```\n"

    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = BLOCK.sub(fresh, before)
        if after != before:
            page.write_text(after, encoding="utf-8")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", nargs="*", choices=MAKERS, required=True)
    write(set(parser.parse_args().write or SIMULATED))


if __name__ == "__main__":
    main()
