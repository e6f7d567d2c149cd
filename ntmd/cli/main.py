"""``ntmd``: the group, its life-cycle commands, and how every failure is shown."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ntmd import __version__
from ntmd.cli import launch
from ntmd.cli.options import common, connect, settings
from ntmd.cli.reports import add_reports
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.control import ControlClient, ControlError

DOWN_SECONDS = 15.0
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@common
def cli() -> None:
    """Connections that survive every move.

    First time: `ntmd up --join URL` with the line that the operator gave you.
    Later: `ntmd up`, `ntmd status`, `ntmd down`.

    \b
    Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not running,
    4 peer or server unreachable in time, 5 no permission.
    Settings may also stand in /etc/ntmd/ntmd.toml, DIR/ntmd.toml, or NTMD_* variables.
    """


@cli.command()
@common
@click.option("--join", metavar="URL", help="Join with this line from `ntm-server invite`.")
@click.option("--name", metavar="NAME", help="Name to ask for [the host's name].")
@click.option("--foreground", is_flag=True, help="Stay, and print one line per event.")
@click.pass_context
def up(context: click.Context, join: str | None, name: str | None, foreground: bool) -> None:
    """Bring this node up; the first time with --join.

    Shows each step; returns when the node is usable. Already up: says so.
    """
    chosen = settings(context, join=join, name=name)
    running = _running(chosen.socket)
    if running is not None:
        node = running.get("self", {})
        click.echo(f"already up: {node.get('name')} {node.get('address')} ({running['state']})")
        return
    if foreground:
        launch.run_in_foreground(chosen)
    node = launch.start(chosen)
    click.echo(f"up: {node.get('name')} {node.get('address')} on {node.get('interface')}")


def _running(path: Any) -> dict[str, Any] | None:
    """Status of a running daemon, or None."""
    try:
        with ControlClient(path, timeout=5.0) as client:
            return dict(client.ask("status"))
    except ControlError as error:
        if error.exit_code == Exit.NOT_RUNNING:
            return None
        raise


@cli.command()
@common
@click.pass_context
def down(context: click.Context) -> None:
    """Take this node down: tell peers, remove the TUN, give DNS and routes back.

    Also cleans up after a daemon that was killed. Not up: nothing to do.
    """
    chosen = settings(context)
    if _stop(context):
        click.echo("down")
        return
    removed = launch.run_helper(chosen, "clean").get("removed", [])
    click.echo(f"down: removed {', '.join(removed)}" if removed else "already down")


def _stop(context: click.Context) -> bool:
    """End a running daemon; False if there was none."""
    try:
        with connect(context, DOWN_SECONDS) as client:
            pid = 0
            for answer in client.stream("down"):
                pid = int(answer.get("pid", pid))
    except ControlError as error:
        if error.exit_code == Exit.NOT_RUNNING and "hung up" not in error.what:
            return False
        if "hung up" not in error.what:
            raise
        return True
    if pid and not launch.wait_until_gone(pid, DOWN_SECONDS):
        raise Complaint(
            f"the daemon (process {pid}) does not end.",
            "It told its peers, but still runs.",
            f"End it with `kill -9 {pid}`, then run `ntmd down` again to clean up.",
        )
    return True


@cli.command()
@common
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def leave(context: click.Context, yes: bool) -> None:
    """Leave the platform: go down, remove this node at the account server, delete its keys."""
    chosen = settings(context)
    if not yes:
        if not sys.stdin.isatty():
            raise Complaint(
                "leaving deletes the keys of this node.",
                "There is no terminal to ask whether that is meant.",
                "If it is, run `ntmd leave --yes`.",
                Exit.USAGE,
            )
        click.confirm(f"Delete the keys in {chosen.state} and leave the platform?", abort=True)
    _stop(context)
    result = launch.run_helper(chosen, "forget")
    if result.get("note"):
        click.echo(f"note: {result['note']}", err=True)
    click.echo(f"left: {result.get('name') or 'this node'} is forgotten")


@cli.command()
@common
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def version(as_json: bool) -> None:
    """Print the version."""
    click.echo(json.dumps({"version": __version__}) if as_json else f"ntmd {__version__}")


@cli.command()
@common
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script: `source <(ntmd completion bash)`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "ntmd", "_NTMD_COMPLETE").source())


add_reports(cli)


def main() -> None:
    """Run the command line; the exit code is part of the contract."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    try:
        result = cli.main(arguments, prog_name="ntmd", standalone_mode=False)
    except Complaint as complaint:
        click.echo(f"ntmd: {complaint.text}", err=True)
        return complaint.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        click.echo("ntmd: stopped.", err=True)
        return Exit.FAILED
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more: end without a word
        return Exit.FAILED
    except OSError as error:
        click.echo(f"ntmd: the system refused: {error}.\nNothing was changed.", err=True)
        return Exit.FAILED
    return result if isinstance(result, int) else Exit.DONE
