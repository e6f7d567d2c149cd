"""``ntmd rehearse``: a self-test that any user can run."""

from __future__ import annotations

import re
from typing import Any

import click

from ntmd.cli import show
from ntmd.cli.options import common, complete_link, connect
from ntmd.runtime.complaints import Complaint

SLACK = 20.0  # seconds around the block: listening before, coming back after


def duration(_: click.Context, parameter: click.Parameter, value: str) -> float:
    """The seconds of ``5``, ``5s`` or ``1.5s``; a usage error for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)s?", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a number of seconds such as 5s")
    return float(found[1])


@click.command()
@common
@click.option(
    "--block",
    metavar="IFACE",
    shell_complete=complete_link,
    help="The link to block [the one that carries now].",
)
@click.option(
    "--for", "seconds", callback=duration, default="5s", metavar="TIME", help="How long [5s]."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON; progress goes to stderr.")
@click.pass_context
def rehearse(context: click.Context, block: str | None, seconds: float, as_json: bool) -> None:
    """Block the present link for a while, and say which tunnels survive it.

    Only the daemon's own sockets on that link fall silent, as on a Wi-Fi that is associated but
    dead; no other program is touched. The block ends by itself, whatever happens to this command
    or to the daemon; Ctrl-C ends it at once.

    Exit code 1 if a tunnel did not survive, 4 if no peer answers even before the block.
    """
    arguments: dict[str, Any] = {"seconds": seconds}
    if block:
        arguments["block"] = block
    result: dict[str, Any] = {}
    with connect(context) as client:
        for result in client.stream("rehearse", arguments, seconds + SLACK):
            words = show.rehearsal_phase(result)
            if words:
                click.echo(words, err=True)
    if as_json:
        show.dump(result)
    else:
        click.echo(show.rehearsal(result))
    if not result.get("survived"):
        raise Complaint("a tunnel did not survive.", *_meaning(result))


def _meaning(result: dict[str, Any]) -> tuple[str, str]:
    """What that means, and what to do."""
    link, others = result.get("interface"), result.get("other_links") or []
    if not others:
        return (
            f"While {link} was silent there was no other link to move to.",
            "Connect a second one (Wi-Fi beside cable, a phone by USB), then rehearse again.",
        )
    return (
        f"{' and '.join(others)} did not carry while {link} was silent.",
        "`ntmd netcheck` says whether UDP passes there, `ntmd why NAME` what was tried.",
    )
