"""The command ``ntm-server``: run servers, invite nodes, keep accounts."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ntm_server.options import Settings, data_option, options, seconds, usage
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.control import ControlClient
from ntmd.runtime.journal import start_logging

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def cli(verbose: bool) -> None:
    """Servers of ntmd: account server (as), direction coordinator (dc), relay server (rs).

    `ntm-server all` runs the three in one process; that is all a small platform needs. Each option
    is also a key of DIR/server.toml and an environment variable NTM_SERVER_*.
    """
    start_logging("debug" if verbose else "info")


# ------------------------------------------------------------------ servers


def _serve(roles: tuple[str, ...], data: Path, **given: Any) -> None:
    from ntm_server.serving import serve

    source = click.get_current_context().get_parameter_source("tls_port")
    asked = source not in (None, ParameterSource.DEFAULT)
    serve(Settings(data=data, tls_asked=asked, **given), roles)


@cli.command("all")
@options(
    "domain", "listen", "https_port", "udp_port", "tls_port", "dns_port", "database", "resolver"
)
def run_all(data: Path, domain: str, **given: Any) -> None:
    """Run account server, coordinator and relay of one domain in this process.

    The first start makes the CA, the platform's prefix and the database in DIR. Says "ready" on
    stdout once it serves; SIGTERM ends it.
    """
    if not domain:
        raise usage("ntm-server all needs --domain NAME, like --domain home.test.")
    _serve(("as", "dc", "rs"), data, domain=domain, **given)


@cli.command("as")
@options("listen", "https_port", "database")
def run_as(data: Path, **given: Any) -> None:
    """Run the account server alone."""
    _serve(("as",), data, **given)


@cli.command("dc")
@options(
    "domain",
    "listen",
    "https_port",
    "udp_port",
    "tls_port",
    "dns_port",
    "database",
    "resolver",
    "join",
)
def run_dc(data: Path, **given: Any) -> None:
    """Run a direction coordinator alone; --join URL from `ntm-server enrol dc` the first time."""
    _serve(("dc",), data, **given)


@cli.command("rs")
@options("listen", "https_port", "udp_port", "tls_port", "join")
def run_rs(data: Path, **given: Any) -> None:
    """Run a relay alone; --join URL from `ntm-server enrol rs` the first time."""
    _serve(("rs",), data, **given)


# ------------------------------------------------------------------ invitations


def _ask(data: Path, what: str, **arguments: Any) -> Any:
    path = Settings(data).admin_socket
    with ControlClient(path, "ntm-server", f"ntm-server all --data {data} ...") as client:
        return client.ask(what, arguments)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
expires = click.option(
    "--expires",
    default="24h",
    show_default=True,
    callback=lambda context, parameter, value: seconds(value),
    help="How long it can be used: 30m, 24h, 7d.",
)


@cli.command()
@data_option
@click.option("--name", default="", help="The only name that can join with it.")
@click.option("--domain", default="", help="The domain it is for, where there are several.")
@click.option("--user", default="", help="The user whom the node will belong to.")
@click.option("--reusable", is_flag=True, help="For any number of nodes until it expires.")
@expires
@as_json
def invite(data: Path, as_json: bool, expires: int, **given: Any) -> None:
    """Print one line: the URL with which a node joins (`ntmd up --join URL`)."""
    _print_url(_ask(data, "invite", expires_s=expires, **given), as_json)


@cli.group()
def enrol() -> None:
    """Print the URL with which a server joins this account server."""


@enrol.command("dc")
@data_option
@click.option("--domain", required=True, help="The domain that it will serve.")
@expires
@as_json
def enrol_dc(data: Path, domain: str, expires: int, as_json: bool) -> None:
    """Invite the direction coordinator of a domain: `ntm-server dc --join URL`."""
    _print_url(_ask(data, "enrol", role="dc", domain=domain, expires_s=expires), as_json)


@enrol.command("rs")
@data_option
@click.option("--dc", "domain", required=True, help="The domain whose coordinator will use it.")
@expires
@as_json
def enrol_rs(data: Path, domain: str, expires: int, as_json: bool) -> None:
    """Invite a relay: `ntm-server rs --join URL`."""
    _print_url(_ask(data, "enrol", role="rs", domain=domain, expires_s=expires), as_json)


def _print_url(answer: dict[str, Any], as_json: bool) -> None:
    click.echo(json.dumps(answer) if as_json else answer["url"])


# ------------------------------------------------------------------ accounts


@cli.group()
def user() -> None:
    """Accounts: people who can log in and whose nodes are shown with their names."""


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return given


from_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")


@user.command("add")
@data_option
@click.argument("name")
@from_stdin
@click.option("--no-password", is_flag=True, help="No login: the user joins by invitation only.")
def user_add(data: Path, name: str, password_stdin: bool, no_password: bool) -> None:
    """Add the user NAME; asks for a password."""
    password = "" if no_password else _password(password_stdin)
    _ask(data, "user.add", user=name, password=password)
    click.echo(f"added {name}", err=True)


@user.command("passwd")
@data_option
@click.argument("name")
@from_stdin
def user_passwd(data: Path, name: str, password_stdin: bool) -> None:
    """Change the password of NAME."""
    _ask(data, "user.passwd", user=name, password=_password(password_stdin))
    click.echo(f"changed the password of {name}", err=True)


@user.command("list")
@data_option
@as_json
def user_list(data: Path, as_json: bool) -> None:
    """List all users with their nodes."""
    users = _ask(data, "user.list")
    if as_json:
        click.echo(json.dumps(users))
        return
    _table(
        ("user", "login", "since", "nodes"),
        [
            (
                u["user"],
                "password" if u["password"] else "-",
                _day(u["created_ms"]),
                " ".join(u["nodes"]) or "-",
            )
            for u in users
        ],
    )


@user.command("remove")
@data_option
@click.argument("name")
def user_remove(data: Path, name: str) -> None:
    """Remove the user NAME; the nodes stay (`node remove` ends those)."""
    _ask(data, "user.remove", user=name)
    click.echo(f"removed {name}", err=True)


# ------------------------------------------------------------------ nodes


@cli.group()
def node() -> None:
    """Nodes and servers that have joined."""


@node.command("list")
@data_option
@as_json
def node_list(data: Path, as_json: bool) -> None:
    """List all members of the platform."""
    nodes = _ask(data, "node.list")
    if as_json:
        click.echo(json.dumps(nodes))
        return
    _table(
        ("name", "role", "user", "joined", "certificate until"),
        [
            (n["name"], n["role"], n["user"] or "-", _day(n["joined_ms"]), _day(n["expires_ms"]))
            for n in nodes
        ],
    )


@node.command("show")
@data_option
@click.argument("name")
@as_json
def node_show(data: Path, name: str, as_json: bool) -> None:
    """Show what is known of NAME."""
    found = _ask(data, "node.show", name=name)
    if as_json:
        click.echo(json.dumps(found))
        return
    for key, value in found.items():
        shown = _day(value) if key.endswith("_ms") else value
        click.echo(f"{key.removesuffix('_ms'):12} {shown or '-'}")


@node.command("remove")
@data_option
@click.argument("name")
def node_remove(data: Path, name: str) -> None:
    """Remove NAME for good: its certificate is not renewed, its key never admitted again."""
    removed = _ask(data, "node.remove", name=name)
    click.echo(f"removed {removed['name']}", err=True)


# ------------------------------------------------------------------ relay


@cli.command()
@data_option
@click.option("--undo", is_flag=True, help="Take new pairs again.")
@as_json
def drain(data: Path, undo: bool, as_json: bool) -> None:
    """Have nodes carry their traffic elsewhere before this relay is stopped.

    The relay forwards on. Run it again to see how many legs still carry something; with none (and
    another relay in the domain) stopping it interrupts nobody.
    """
    found = _ask(data, "drain", on=not undo)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(
        f"{'draining' if found['draining'] else 'serving'}: {found['nodes']} nodes, "
        f"{found['legs']} legs, {found['busy_legs']} of them carried something in the last second"
    )


# ------------------------------------------------------------------ status


@cli.command()
@data_option
@as_json
def status(data: Path, as_json: bool) -> None:
    """Show what the running server does."""
    found = _ask(data, "status")
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{found['state']}, up {found['uptime_s']:.0f} s")
    for name, values in (*found["roles"].items(), ("tls", found["tls"])):
        click.echo(f"{name}:")
        for key, value in values.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
            elif isinstance(value, list):
                value = " ".join(map(str, value)) or "-"
            click.echo(f"  {key:20} {value}")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script: `source <(ntm-server completion bash)`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "ntm-server", "_NTM_SERVER_COMPLETE").source())


def _day(ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(text.rstrip())


def main() -> None:
    """Run the command line; the exit code is part of the contract."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    try:
        cli.main(arguments, prog_name="ntm-server", standalone_mode=False)
    except Complaint as complaint:
        click.echo(f"ntm-server: {complaint.text}", err=True)
        return complaint.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("ntm-server: stopped.", err=True)
        return Exit.FAILED
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except BrokenPipeError:
        return Exit.FAILED
    return Exit.DONE
