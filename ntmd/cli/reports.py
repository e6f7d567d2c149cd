"""The commands that only ask: status, ping, resolve, netcheck, handovers, why."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ntmd.cli import show
from ntmd.cli.options import common, complete_peer, connect
from ntmd.cli.rehearse import rehearse
from ntmd.cli.show import dump
from ntmd.cli.watch import Watch
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.control import ControlError

WAY_WAIT = 15.0  # a way to a new peer, or a measurement of the NAT
DIRECT_WITHIN = 10.0  # what --until-direct waits for without -c: a direct way is found in 1 s or
DIRECT_TRIES = 10  # ... not at all; but with a long -i this often


def add_reports(group: click.Group) -> None:
    """Add the commands of this module to the group."""
    for command in (status, ping, resolve, netcheck, handovers, why, rehearse):
        group.add_command(command)


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C is how a command without an end is meant to end."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(err=True)


@click.command()
@common
@click.option("--json", "as_json", is_flag=True, help="As JSON (schema 1).")
@click.option("--watch", is_flag=True, help="A quality line for each peer, every second.")
@click.pass_context
def status(context: click.Context, as_json: bool, watch: bool) -> None:
    """Show how this node is: address, underlay, relays, peers and their paths, health.

    With --watch: for each peer where its data goes and since when, round trip and loss, what is
    warm and would take over, and the last move. In a terminal the lines are drawn anew in place;
    otherwise a line is printed when it changes. With --json: one status object each second.
    """
    try:
        client = connect(context)
    except ControlError as error:
        if as_json and error.exit_code == Exit.NOT_RUNNING:
            from ntmd import __version__

            dump({"schema": 1, "version": __version__, "state": "down", "peers": []})
        raise
    with client:
        if watch:
            view = Watch()
            with until_interrupted():
                for answer in client.stream("status", {"watch": True}, math.inf):
                    dump(answer) if as_json else view.show(answer)
        else:
            answer = client.ask("status")
            dump(answer) if as_json else click.echo(show.status(answer))


@click.command()
@common
@click.argument("name", shell_complete=complete_peer)
@click.option(
    "-c",
    "count",
    type=click.IntRange(1),
    help="Stop after this many [for ever; with --until-direct those of 10 s].",
)
@click.option(
    "-i",
    "interval",
    type=click.FloatRange(0.05, 3600),
    metavar="S",
    help="Seconds between two [1; with --until-direct 0.2].",
)
@click.option("--until-direct", is_flag=True, help="Stop at the first answer on a direct path.")
@click.pass_context
def ping(
    context: click.Context,
    name: str,
    count: int | None,
    interval: float | None,
    until_direct: bool,
) -> None:
    """Ask NAME for a sign of life inside the tunnel, and show the way each answer took.

    A change of the way, such as from relay to direct, is a line of its own.

    Exit code 4 if nothing was answered, 1 if no answer came directly although --until-direct.
    """
    pause = interval or (0.2 if until_direct else 1.0)
    if until_direct and not count:
        count = max(DIRECT_TRIES, math.ceil(DIRECT_WITHIN / pause))
    arguments = {
        "name": name,
        "count": count or 0,
        "interval": pause,
        "until_direct": until_direct,
    }
    ways: list[str] = []
    began = time.monotonic()
    with connect(context) as client, until_interrupted():
        for answer in client.stream("ping", arguments, pause + WAY_WAIT):
            if answer.get("time_ms") is not None:
                ways.append(show.ping_way(answer))
                if len(ways) > 1 and ways[-1] != ways[-2]:
                    since = time.monotonic() - began
                    click.echo(f"{name}: {ways[-2]} -> {ways[-1]} after {since:.1f} s")
            click.echo(show.ping(name, answer))
    if not ways:
        raise Complaint(
            f"{name} did not answer.",
            "There is a way to it, but nothing came back in time.",
            f"`ntmd why {name}` says what is known of the path.",
            Exit.UNREACHABLE,
        )
    if until_direct and not ways[-1].startswith("direct"):
        raise Complaint(
            f"{name} is still reached over a relay.",
            "It answers, but no direct way was found in this time.",
            f"`ntmd why {name}` says why, and what would help.",
        )


@click.command()
@common
@click.argument("name", shell_complete=complete_peer)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def resolve(context: click.Context, name: str, as_json: bool) -> None:
    """Show the virtual address of NAME, and who vouches for it."""
    with connect(context) as client:
        answer = client.ask("resolve", {"name": name}, WAY_WAIT)
    dump(answer) if as_json else click.echo(show.resolve(answer))


@click.command()
@common
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def netcheck(context: click.Context, as_json: bool) -> None:
    """Measure each underlay interface: families, reflexive address, NAT, relays."""
    with connect(context) as client:
        answer = client.ask("netcheck", {}, WAY_WAIT)
    dump(answer) if as_json else click.echo(show.netcheck(answer))


@click.command()
@common
@click.option("--json", "as_json", is_flag=True, help="As JSON, one a line with --follow.")
@click.option("--follow", is_flag=True, help="Stay, and show each move as it ends.")
@click.pass_context
def handovers(context: click.Context, as_json: bool, follow: bool) -> None:
    """Show the journal of moves: cause, path before and after, gap and loss.

    Both ends have the same entry under the same id. "in" is what this end noticed of the data that
    came, "out" what the other end told of the data that left here.
    """
    with connect(context) as client, until_interrupted():
        wait = math.inf if follow else None
        for answer in client.stream("handovers", {"follow": follow}, wait):
            entries = answer.get("handovers", [answer]) if isinstance(answer, dict) else answer
            if as_json and not follow:
                dump(entries)
                continue
            if not entries and not as_json and not follow:
                click.echo("no moves since the start")
            for entry in entries:
                dump(entry) if as_json else click.echo(show.handover_in_full(entry))


@click.command()
@common
@click.argument("name", shell_complete=complete_peer)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def why(context: click.Context, name: str, as_json: bool) -> None:
    """Say why the path to NAME is what it is: facts, their age and evidence, what to do."""
    with connect(context) as client:
        answer = client.ask("why", {"name": name}, WAY_WAIT)
    dump(answer) if as_json else click.echo(show.why(answer))
