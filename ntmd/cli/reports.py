"""The commands that only ask: status, ping, resolve, netcheck, handovers, why."""

from __future__ import annotations

import math

import click

from ntmd.cli import show
from ntmd.cli.options import common, connect
from ntmd.cli.rehearse import rehearse
from ntmd.cli.show import dump
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.control import ControlError

WAY_WAIT = 15.0  # a way to a new peer, or a measurement of the NAT


def add_reports(group: click.Group) -> None:
    """Add the commands of this module to the group."""
    for command in (status, ping, resolve, netcheck, handovers, why, rehearse):
        group.add_command(command)


@click.command()
@common
@click.option("--json", "as_json", is_flag=True, help="As JSON (schema 1).")
@click.option("--watch", is_flag=True, help="Again at each change, at most once a second.")
@click.pass_context
def status(context: click.Context, as_json: bool, watch: bool) -> None:
    """Show how this node is: address, underlay, relays, peers and their paths, health."""
    try:
        client = connect(context)
    except ControlError as error:
        if as_json and error.exit_code == Exit.NOT_RUNNING:
            from ntmd import __version__

            dump({"schema": 1, "version": __version__, "state": "down", "peers": []})
        raise
    with client:
        arguments = {"watch": True} if watch else {}
        wait = math.inf if watch else None
        for answer in client.stream("status", arguments, wait):
            if as_json:
                dump(answer)
            else:
                if watch and context.find_root().params.get("color", True):
                    click.clear()
                click.echo(show.status(answer))


@click.command()
@common
@click.argument("name")
@click.option("-c", "count", type=click.IntRange(1), help="Stop after this many [for ever].")
@click.option("-i", "interval", type=click.FloatRange(0.05, 3600), default=1.0, metavar="S")
@click.option("--until-direct", is_flag=True, help="Stop at the first answer on a direct path.")
@click.pass_context
def ping(
    context: click.Context, name: str, count: int | None, interval: float, until_direct: bool
) -> None:
    """Ask NAME for a sign of life inside the tunnel, and show the way each answer took.

    Exit code 4 if nothing was answered.
    """
    arguments = {
        "name": name,
        "count": count or 0,
        "interval": interval,
        "until_direct": until_direct,
    }
    answered = 0
    with connect(context) as client:
        try:
            for answer in client.stream("ping", arguments, interval + WAY_WAIT):
                click.echo(show.ping(name, answer))
                answered += "time_ms" in answer and answer["time_ms"] is not None
        except KeyboardInterrupt:
            click.echo(err=True)
    if not answered:
        raise Complaint(
            f"{name} did not answer.",
            "There is a way to it, but nothing came back in time.",
            f"`ntmd why {name}` says what is known of the path.",
            Exit.UNREACHABLE,
        )


@click.command()
@common
@click.argument("name")
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
    """Show the journal of moves: cause, path before and after, gap and loss."""
    with connect(context) as client:
        wait = math.inf if follow else None
        for answer in client.stream("handovers", {"follow": follow}, wait):
            entries = answer.get("handovers", [answer]) if isinstance(answer, dict) else answer
            if as_json and not follow:
                dump(entries)
                continue
            for entry in entries:
                dump(entry) if as_json else click.echo(show.handover(entry))


@click.command()
@common
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def why(context: click.Context, name: str, as_json: bool) -> None:
    """Say why the path to NAME is what it is: facts, their age and evidence, what to do."""
    with connect(context) as client:
        answer = client.ask("why", {"name": name}, WAY_WAIT)
    dump(answer) if as_json else click.echo(show.why(answer))
