"""Settings of a server: command line, then ``NTM_SERVER_*``, then ``DIR/server.toml``."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from ntmd.runtime.complaints import Complaint, Exit, file_complaint
from ntmd.runtime.enrolment import is_domain

DEFAULT_DATA = "/var/lib/ntm-server"
KEYS = (
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
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdw])\Z")
MOST_ADDRESSES = 8

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``all``, ``as``, ``dc`` and ``rs`` run with.

    HTTPS port 0: any free one. DNS port 0: no name server. The relay listens on ``udp_port`` + 1;
    + 2 is the coordinator's second port, for the mapping test. ``resolver`` is ``ADDR[:PORT]``,
    empty for the system's. TLS port 0: none; ``tls_asked``: it was named, so it must be had.
    """

    data: Path
    listen: tuple[str, ...] = ()
    domain: str = ""
    https_port: int = 8443
    udp_port: int = 4330
    dns_port: int = 53
    database: str = ""
    resolver: str = ""
    join: str = ""
    tls_port: int = 443
    tls_asked: bool = False

    @property
    def admin_socket(self) -> Path:
        """Where commands find the running server."""
        return self.data / "admin.sock"


def _read_toml(context: click.Context, parameter: click.Parameter, value: str) -> Path:
    data = Path(value)
    path = data / "server.toml"
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        return data
    except PermissionError:
        return data  # commands that only use the socket need not read it
    except NotADirectoryError:
        raise Complaint(
            f"{data} is not a directory.",
            "Keys and database cannot be kept there.",
            "Choose another directory with --data.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Complaint(
            f"{path} is not TOML: {error}.", "No setting was taken from it.", "Correct that line."
        ) from error
    except OSError as error:
        raise file_complaint("read", path, error) from error
    settings = {key.replace("-", "_"): each for key, each in found.items()}
    if unknown := sorted(set(settings) - set(KEYS)):
        raise Complaint(
            f"{path} has unknown settings: {', '.join(unknown)}.",
            "They would have no effect.",
            f"Known ones: {', '.join(KEYS)}.",
        )
    if isinstance(settings.get("listen"), list):
        settings["listen"] = ",".join(map(str, settings["listen"]))
    context.default_map = {**(context.default_map or {}), **settings}
    return data


def _addresses(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    addresses: dict[str, None] = {}
    for text in filter(None, (part.strip().strip("[]") for part in (value or "").split(","))):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not an IP address") from None
        if address.is_unspecified or address.is_multicast:
            raise click.BadParameter(
                f"{text} cannot be announced; give the addresses at which others reach this server"
            )
        addresses[str(address)] = None
    if not addresses or len(addresses) > MOST_ADDRESSES:
        raise click.BadParameter(f"one to {MOST_ADDRESSES} addresses are needed, like 203.0.113.1")
    return tuple(addresses)


def _domain(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    name = (value or "").lower().rstrip(".")
    if name and not (is_domain(name) and "." in name and len(name) <= 100):
        raise click.BadParameter(
            f"{value!r} is not a domain; use letters, digits, hyphens and dots, like home.test"
        )
    return name


def _resolver(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    if not value:
        return ""
    host, _, port = value.rpartition(":") if value.count(":") == 1 else (value, "", "53")
    if value.startswith("["):
        host, _, rest = value[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    try:
        ipaddress.ip_address(host)
        good = 0 < int(port) < 65_536
    except ValueError:
        good = False
    if not good:
        raise click.BadParameter(f"{value!r} is not ADDR or ADDR:PORT (IPv6: [ADDR]:PORT)")
    return value


def seconds(text: str) -> int:
    """Seconds of a duration like ``90s``, ``30m``, ``24h``, ``7d`` or ``2w``."""
    match = DURATION.match(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a duration like 30m, 24h or 7d")
    return int(match[1]) * UNITS[match[2]]


def data_option(function: Function) -> Function:
    """``--data DIR``."""
    return click.option(
        "--data",
        metavar="DIR",
        default=DEFAULT_DATA,
        show_default=True,
        envvar="NTM_SERVER_DATA",
        is_eager=True,
        callback=_read_toml,
        help="Directory with keys, database, settings and the admin socket.",
    )(function)


def _port(name: str, default: int, text: str) -> Callable[[Function], Function]:
    return click.option(
        f"--{name}",
        type=click.IntRange(1 if name == "udp-port" else 0, 65_533),
        default=default,
        show_default=True,
        envvar=f"NTM_SERVER_{name.replace('-', '_').upper()}",
        help=text,
    )


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "listen": click.option(
        "--listen",
        metavar="A[,B...]",
        required=True,
        envvar="NTM_SERVER_LISTEN",
        callback=_addresses,
        help="Addresses of this machine to serve on, both families; all are announced.",
    ),
    "domain": click.option(
        "--domain",
        metavar="NAME",
        envvar="NTM_SERVER_DOMAIN",
        callback=_domain,
        help="The domain that is served, like home.test.",
    ),
    "join": click.option(
        "--join",
        metavar="URL",
        default="",
        envvar="NTM_SERVER_JOIN",
        help="First start only: the line that `ntm-server enrol` printed.",
    ),
    "https_port": _port("https-port", 8443, "TCP port of the account server."),
    "udp_port": _port("udp-port", 4330, "UDP port of the coordinator; relay: the next."),
    "tls_port": _port(
        "tls-port",
        443,
        "TCP port for networks that block UDP (TLS; HTTPS in `all`); 0 is off. If only the default "
        "cannot be had, that is a warning.",
    ),
    "dns_port": _port("dns-port", 53, "Port of the domain's name server; 0 is off."),
    "database": click.option(
        "--database",
        metavar="URL",
        default="",
        envvar="NTM_SERVER_DATABASE",
        help="SQLAlchemy URL of the database [SQLite in DIR].",
    ),
    "resolver": click.option(
        "--resolver",
        metavar="ADDR[:PORT]",
        default="",
        envvar="NTM_SERVER_RESOLVER",
        callback=_resolver,
        help="Recursive resolver to ask for other domains [the system's].",
    ),
}


def options(*names: str) -> Callable[[Function], Function]:
    """Decorator: ``--data`` and these options."""

    def decorate(function: Function) -> Function:
        for name in reversed(names):
            function = OPTIONS[name](function)
        return data_option(function)

    return decorate


def usage(text: str) -> Complaint:
    """A complaint about how the command was called."""
    return Complaint(text, exit_code=Exit.USAGE)
