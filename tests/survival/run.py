"""One repetition: build the ground, start product and programs, let it happen, judge."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.e2e.lab import Lab
from tests.e2e.programs import IdleTcp
from tests.survival import measure
from tests.survival.ground import PATIENCE, Ground
from tests.survival.measure import Span
from tests.survival.products import Product
from tests.survival.programs import LIVE, Everything, Talkers
from tests.survival.scenarios import Event, Scenario
from tests.survival.talker import INTERVALS

WARM = 1.5  # seconds in which all programs run before something happens
LEAST, STEADY = 4.0, 1.5  # seconds watched afterwards: at least; calm
WORD = 5.0  # seconds that a word over the idle connection may take at least
SPEAKS = 0.5  # seconds after the event until the desk speaks, where all was idle
CALL = (-1.5, 3.5)  # the part of the call that is scored, around the event
Row = dict[str, Any]


def repetition(product: Product, scenario: Scenario, folder: Path, keep: Path | None = None) -> Row:
    """Runs it once; returns what each program noticed."""
    began = time.monotonic()
    with Lab("sv") as lab:
        ground = Ground(lab, folder, scenario.kind, scenario.lifetime)
        if scenario.before:
            scenario.before(ground)
        product.start(ground)
        started = time.monotonic()
        work = {"all": _all, "peer": _peer, "idle": _idle}[scenario.set]
        before = carried(ground, product.device)
        programs, event = work(ground, product, scenario)
        row: Row = {
            "programs": programs,
            "offline_ms": round(sum(b - a for a, b in event.offline) * 1000, 1),
            "tunnel_bytes": carried(ground, product.device) - before,
            "notes": product.notes(),
        }
        judged = time.monotonic()
        if keep:
            skip = shutil.ignore_patterns("*sock", "served", "copy")
            shutil.copytree(folder, keep, ignore=skip, dirs_exist_ok=True)
            (keep / "event.json").write_text(json.dumps(dataclasses.asdict(event)))
    marks = (began, started, judged, time.monotonic())
    row["seconds"] = [round(b - a, 1) for a, b in pairwise(marks)]  # set up, run, take down
    return row


def carried(ground: Ground, device: str) -> int:
    """Bytes that the laptop's tunnel device has seen: proof that the traffic is in it."""
    told = ground.laptop.host.ip(f"-s -j link show dev {device}", check=False)
    if not told.strip():
        return 0
    stats = json.loads(told)[0]["stats64"]
    return int(stats["rx"]["bytes"]) + int(stats["tx"]["bytes"])


def calls(ground: Ground, product: Product) -> dict[str, str]:
    """What each end calls to reach the other."""
    return {
        "laptop": product.address(ground.desk), "desk": product.address(ground.laptop)
    }  # fmt: skip


def watch(steady: Callable[[float], bool], since: float) -> float:
    """Until all is calm, or patience ends; returns that instant."""
    calm = None
    while (now := time.monotonic()) < since + PATIENCE:
        if not steady(since):
            calm = None
        elif calm is None:
            calm = now
        elif now > max(calm + STEADY, since + LEAST):
            break
        time.sleep(0.05)
    return time.monotonic()


def left(end: float, event: Event) -> float:
    """Seconds for which an idle connection may still be asked, after the others were watched."""
    return max(WORD, PATIENCE - (end - event.start))


def _all(ground: Ground, product: Product, scenario: Scenario) -> tuple[Row, Event]:
    """Every program at once, both ends send."""
    programs = Everything(
        ground.laptop.host, ground.desk.host, calls(ground, product), ground.folder
    )
    try:
        if programs.visitor.speak("before", 10) is None:
            raise RuntimeError("the idle connection does not work before anything happened")
        time.sleep(WARM)
        event = scenario.act(ground, product)
        end = watch(programs.steady, time.monotonic())
        found = programs.judge(event.start, end, event.offline, left(end, event))
        noted = programs.talkers.finish()
        return {**found, **flows(noted, event, end)}, event
    finally:
        programs.close()


def flows(noted: Row, event: Event, end: float) -> Row:
    """Verdicts on the datagram flows of both directions."""
    found: Row = {}
    for source, sink, way in (("laptop", "desk", "out"), ("desk", "laptop", "in")):
        for kind, name in (("udp", "udp"), ("rtp", "call")):
            sent, received = noted[source][kind]["sent"], noted[sink][kind]["received"]
            told = measure.flow(sent, received, event.start, end, INTERVALS[kind], event.offline)
            row = {"survived": told.back, **dataclasses.asdict(told)}
            if kind == "rtp":
                until = min(end - LIVE, event.start + CALL[1])
                row["mos"] = measure.mos(sent, received, event.start + CALL[0], until)
            found[f"{name}-{way}"] = row
    return found


def _peer(ground: Ground, product: Product, scenario: Scenario) -> tuple[Row, Event]:
    """Only the desk sends, datagrams that nobody answers."""
    talkers = _talkers(ground, product)
    talkers.tell("desk", "udp")
    time.sleep(WARM)
    event = scenario.act(ground, product)
    end = watch(lambda since: _live(talkers.last("laptop")[0], since), time.monotonic())
    noted = talkers.finish()
    told = measure.flow(
        noted["desk"]["udp"]["sent"], noted["laptop"]["udp"]["received"], event.start, end,
        INTERVALS["udp"], event.offline,
    )  # fmt: skip
    return {"udp-in": {"survived": told.back, **dataclasses.asdict(told)}}, event


def _live(last: float, since: float) -> bool:
    return last > since and last > time.monotonic() - LIVE


def _talkers(ground: Ground, product: Product) -> Talkers:
    hosts = {"laptop": ground.laptop.host, "desk": ground.desk.host}
    return Talkers(hosts, calls(ground, product), ground.folder)


def _idle(ground: Ground, product: Product, scenario: Scenario) -> tuple[Row, Event]:
    """An idle TCP connection and nothing else; after the event the desk speaks first."""
    talkers = _talkers(ground, product)
    talkers.tell("laptop", "echo")
    idle = IdleTcp(ground.desk.host, ground.laptop.host, product.address(ground.desk))
    idle.speak("before")
    time.sleep(scenario.quiet)
    event = scenario.act(ground, product)
    time.sleep(SPEAKS)
    talkers.tell("desk", "udp")
    end = watch(lambda since: _live(talkers.last("desk")[0], since), time.monotonic())
    try:
        answer: float | None = idle.speak("after", left(end, event))
    except (OSError, TimeoutError):
        answer = None
    noted = talkers.finish()
    spoke = {
        "survived": answer is not None and idle.connections() == 1,
        "gap_ms": None if answer is None else round(answer * 1000, 1),
    }
    return {"idle": spoke, "first-answer": first_answer(noted["desk"]["udp"], end)}, event


def first_answer(noted: Row, end: float) -> Row:
    """From the desk's first datagram to the first echo; includes the round trip."""
    sent: Sequence[float] = noted["sent"]
    echoed: Sequence[Span] = [each for each in noted["echoed"] if each[1] <= end]
    at = echoed[0][1] if echoed else end
    return {
        "survived": bool(echoed),
        "gap_ms": round((at - sent[0]) * 1000, 1),
        "sent": len(sent),
        "lost": len(sent) - len({number for number, _ in echoed}),
    }
