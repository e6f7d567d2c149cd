"""Settings of the daemon and of its command line, and where they come from.

In order of precedence: the command line, environment variables ``NTMD_<KEY>``, ``DIR/ntmd.toml`` in
the state directory, ``/etc/ntmd/ntmd.toml``, the defaults below. The keys are the names of the
fields. A value that cannot be right is a ``Complaint`` that names where it was found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntmd.runtime.complaints import Complaint, Exit, file_complaint
from ntmd.runtime.proxy import parse_proxy

DEFAULT_STATE = Path("/var/lib/ntmd")
DEFAULT_SOCKET = Path("/run/ntmd/ntmd.sock")
SYSTEM_FILE = Path("/etc/ntmd/ntmd.toml")
FILE_NAME = "ntmd.toml"
ENVIRONMENT = "NTMD_"
PLANES = ("auto", "native", "python")
INHERITED = ("proxy",)  # settings that no command line shows
DNS_MODES = ("auto", "resolved", "file", "off")
PORTMAP_MODES = ("auto", "off")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. ``Settings()`` are the defaults."""

    state: Path = DEFAULT_STATE
    """Directory of the key, the certificates and everything remembered; mode 0700."""

    interface: str = "ntm0"
    """Name of the TUN, 1 to 15 characters."""

    port: int = 0
    """UDP port of every own socket, 0 to 65535; 0: any free one."""

    plane: str = "auto"
    """Which data plane carries packets: auto, native or python."""

    dns: str = "auto"
    """How programs find names of the platform: auto, resolved, file or off."""

    portmap: str = "auto"
    """Whether home routers are asked for a port mapping (PCP, NAT-PMP, UPnP): auto or off."""

    metered: tuple[str, ...] = ()
    """Interfaces that cost by the byte: used only while no other one works."""

    verbosity: int = 0
    """How much is logged: -1 warnings only, 0 what a user notices, 1 everything."""

    trace: Path | None = None
    """File that gets one JSON line per input and command; None: no trace."""

    keylog: Path | None = None
    """File that gets the session keys, for reading captures; None: none are written."""

    rekey: int = 120
    """Age in seconds, 3 to 120, at which data keys in use are replaced."""

    name: str = ""
    """Name asked for at the first start (one label); empty: the host's name."""

    join: str = ""
    """Join URL for the first start; ignored once the node is enrolled."""

    proxy: str = ""
    """HTTP proxy for what leaves over TLS, http://[USER:PASSWORD@]HOST:PORT; none: no proxy."""

    no_proxy: str = ""
    """Hosts that are reached without it: names, addresses, networks (CIDR), with commas; *: all."""

    @property
    def socket(self) -> Path:
        """Path of the control socket."""
        return DEFAULT_SOCKET if self.state == DEFAULT_STATE else self.state / "ntmd.sock"

    @property
    def log_file(self) -> Path:
        """Where the daemon logs when it runs in the background."""
        return self.state / "ntmd.log"

    def arguments(self) -> list[str]:
        """The command line that gives these settings to a daemon.

        A proxy's password is nobody's business who lists processes: the daemon finds it by itself,
        in the same files and environment.
        """
        given = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = ",".join(value)
            if value not in (None, "") and field.name not in INHERITED:
                given.append(f"--{field.name}={value}")
        return given


def _path(text: Any) -> Path:
    if not str(text):
        raise ValueError("a path is needed")
    return Path(str(text)).expanduser().absolute()


def _port(text: Any) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return port


def _proxy(text: Any) -> str:
    parse_proxy(str(text))
    return str(text)


def _rekey(text: Any) -> int:
    seconds = int(text)
    if not 3 <= seconds <= 120:
        raise ValueError("keys are replaced after 3 to 120 seconds")
    return seconds


def _verbosity(text: Any) -> int:
    words = {"quiet": -1, "normal": 0, "verbose": 1}
    number = words[text] if text in words else int(text)
    return max(-1, min(1, number))


def _interface(text: Any) -> str:
    name = str(text)
    if not 0 < len(name.encode()) <= 15 or any(c in "/:%" or not c.isprintable() for c in name):
        raise ValueError("an interface name has 1 to 15 characters, no slash, no colon")
    if " " in name or name in (".", ".."):
        raise ValueError("an interface name has no spaces and is not . or ..")
    return name


def _interfaces(value: Any) -> tuple[str, ...]:
    """A list of names, or one text with commas between them."""
    if not isinstance(value, str | list | tuple):
        raise TypeError("a list of interface names is needed")
    names = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(_interface(name) for name in names if name != ""))


def _choice(*choices: str) -> Callable[[Any], str]:
    def check(text: Any) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)} is needed")
        return str(text)

    return check


READERS: dict[str, Callable[[Any], Any]] = {
    "state": _path,
    "interface": _interface,
    "port": _port,
    "plane": _choice(*PLANES),
    "dns": _choice(*DNS_MODES),
    "portmap": _choice(*PORTMAP_MODES),
    "metered": _interfaces,
    "verbosity": _verbosity,
    "trace": _path,
    "keylog": _path,
    "rekey": _rekey,
    "name": str,
    "join": str,
    "proxy": _proxy,
    "no_proxy": str,
}
CUSTOMARY = {  # variables of curl(1), where NTMD_* and files are silent
    "proxy": ("https_proxy", "HTTPS_PROXY"),
    "no_proxy": ("no_proxy", "NO_PROXY"),
}


def load(given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Settings from the command line (``given``: only what was given), environment and files."""
    values = _read("the command line", given)
    variables = {
        key: environment[ENVIRONMENT + key.upper()]
        for key in READERS
        if environment.get(ENVIRONMENT + key.upper())
    }
    values = _read("the environment", variables, ENVIRONMENT) | values
    system = _file(SYSTEM_FILE)
    state = values.get("state") or system.get("state") or DEFAULT_STATE
    own = _file(state / FILE_NAME)
    own.pop("state", None)  # it says where it is itself
    merged = system | own | values
    for key, names in CUSTOMARY.items():
        found = next((environment[v] for v in names if environment.get(v)), "")
        if found and key not in merged:
            merged |= _read("the environment", {key: found})
    return Settings(**merged)


def _file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError:
        return {}  # a state directory of root's: its owner's daemon reads it
    except OSError as error:
        raise file_complaint("read", path, error) from error
    import tomllib  # rarely needed, and the command line must start quickly

    try:
        table = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Complaint(
            f"{path} is not valid TOML: {error}.",
            "None of its settings can be used.",
            "Correct the file, or move it away.",
        ) from error
    return _read(str(path), table)


def _read(where: str, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result = {}
    for key, value in values.items():
        name = prefix + key.upper() if prefix else key
        reader = READERS.get(key)
        if reader is None:
            raise Complaint(
                f"{where} has an unknown setting {name!r}.",
                "It would have no effect.",
                f"Known settings: {', '.join(READERS)}.",
                Exit.USAGE,
            )
        try:
            result[key] = reader(value)
        except (ValueError, TypeError) as error:
            raise Complaint(
                f"{where}: {name} cannot be {value!r}.", f"{error}.", "Correct it.", Exit.USAGE
            ) from error
    return result
