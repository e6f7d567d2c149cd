"""Options that every command has, before or after its name, and the connection they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ntmd.config import DNS_MODES, PLANES, Settings, load
from ntmd.runtime.control import ControlClient

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
