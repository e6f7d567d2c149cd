"""Options that every command has, before or after its name, and the connection they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ntmd.config import DNS_MODES, PLANES, PORTMAP_MODES, Settings, load
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.control import ControlClient

COMPLETION_SECONDS = 0.5  # nobody waits longer behind the tabulator key
Function = TypeVar("Function", bound=Callable[..., Any])


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        context.ensure_object(dict)[parameter.name] = value


OPTIONS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("--state",), {"metavar": "DIR", "help": "State directory [/var/lib/ntmd]."}),
    (("--interface",), {"metavar": "NAME", "help": "Name of the TUN [ntm0]."}),
    (("-v", "--verbose", "verbosity"), {"flag_value": 1, "help": "Say and log more."}),
    (("-q", "--quiet", "verbosity"), {"flag_value": -1, "help": "Say and log less."}),
    (("--trace",), {"metavar": "FILE", "help": "One JSON line per input and command."}),
    (("--keylog",), {"metavar": "FILE", "help": "Session keys, for reading captures."}),
    (("--plane",), {"type": click.Choice(PLANES), "help": "Data plane [auto]."}),
    (("--dns",), {"type": click.Choice(DNS_MODES), "help": "How names get here [auto]."}),
    (("--rekey",), {"type": click.IntRange(3, 120), "help": "Seconds between data keys [120]."}),
    (
        ("--portmap",),
        {"type": click.Choice(PORTMAP_MODES), "help": "Ask for open ports [auto]."},
    ),
    (
        ("--metered",),
        {"metavar": "NAME[,NAME]", "help": "Links that cost by the byte, used last [none]."},
    ),
    (("--port",), {"type": click.IntRange(0, 65535), "help": "UDP port, 0 is any [0]."}),
]


def common(function: Function) -> Function:
    """Decorator that adds the common options to a command or group."""
    for names, attributes in reversed(OPTIONS):
        extra = {"default": None, "expose_value": False, "callback": _keep, **attributes}
        function = click.option(*names, **extra)(function)
    return function


def settings(context: click.Context, **given: Any) -> Settings:
    """The settings for this invocation; ``given`` are options of the command itself."""
    values = dict(context.ensure_object(dict))
    values.update({key: value for key, value in given.items() if value})
    return load(values, os.environ)


def connect(context: click.Context, timeout: float = 10.0) -> ControlClient:
    """A connection to the running daemon; complains (exit code 3) if there is none."""
    chosen = settings(context)
    return ControlClient(chosen.socket, start=start_command(chosen), timeout=timeout)


def start_command(chosen: Settings) -> str:
    """What to type to start this daemon."""
    state = "" if chosen.state == Settings().state else f" --state {chosen.state}"
    return f"ntmd{state} up"


def _told(context: click.Context, *keys: str) -> list[str]:
    """For completion: names and links that a running daemon tells of; nothing without one."""
    try:
        with ControlClient(settings(context).socket, timeout=COMPLETION_SECONDS) as client:
            answer = client.ask("status")
    except Complaint:
        return []
    part, key = keys
    return sorted({str(item.get(key)) for item in answer.get(part) or [] if item.get(key)})


def complete_peer(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of peers that begin so."""
    return [name for name in _told(context, "peers", "name") if name.startswith(incomplete)]


def complete_link(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Underlay interfaces that begin so."""
    links = _told(context, "underlay", "interface")
    return [name for name in links if name.startswith(incomplete)]
