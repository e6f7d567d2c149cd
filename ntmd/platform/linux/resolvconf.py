"""``/etc/resolv.conf`` while the daemon is up: our stub first, the old resolvers behind it.

The old file is stored durably before anything is changed, with what it was: a file, a symbolic
link, missing, or a bind mount. A mounted file cannot be renamed over, so it is written in place;
elsewhere the new file is renamed into place, also over a symbolic link, which is put back later.
The resolvers stay in the file (three lines at most, resolv.conf(5)): when no daemon answers on the
stub's address, the kernel refuses at once and programs ask the next one.

Only a file that carries our mark is ever given back, so whatever another program wrote meanwhile
stays; our mark names the state directory, so that several daemons do not undo each other.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path

from ntmd.runtime.complaints import Complaint, file_complaint
from ntmd.runtime.statefiles import damaged, read_file, remove_file, write_file

RESOLV_CONF = Path("/etc/resolv.conf")
MOUNTS = Path("/proc/self/mountinfo")
SERVERS_MAX = 3  # MAXNS of resolv.conf(5)
MARK = "# written by ntmd; `ntmd down` puts the old file back; state: "
SIZE_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Saved:
    """What the file was: ``kind`` is file, link or missing; ``link`` the target of a link."""

    kind: str
    content: bytes
    link: str = ""
    mode: int = 0o644

    def pack(self) -> bytes:
        """For the state directory."""
        content = base64.b64encode(self.content).decode()
        fields = {"kind": self.kind, "content": content, "link": self.link, "mode": self.mode}
        return json.dumps(fields).encode()


def system_resolvers(path: Path = RESOLV_CONF) -> tuple[str, ...]:
    """The resolvers that programs of this system ask now; none if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return servers(file.read(SIZE_MAX))
    except OSError:
        return ()


class ResolvConf:
    """One ``resolv.conf``; ``saved`` is the file in the state directory that keeps the old one."""

    def __init__(self, saved: Path, path: Path = RESOLV_CONF, mounts: Path = MOUNTS) -> None:
        self.path = path
        self.saved = saved
        self._mounts = mounts
        self._mark = MARK + str(saved.parent)

    def mounted(self) -> bool:
        """Whether the file is a mount point of its own (as in containers and namespaces)."""
        try:
            lines = self._mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        return any(line.split(" ")[4:5] == [str(self.path)] for line in lines)

    def ours(self) -> bool:
        """Whether the file carries our mark now."""
        return self._mark.encode() in self._content().splitlines()

    def take(self, stub: str) -> tuple[str, ...]:
        """Put ``stub`` first; returns the addresses of the resolvers that were there before.

        May be repeated: a file that is ours and right is left alone; one that another program wrote
        since becomes the new old file.
        """
        if self.ours() and self.saved.exists():
            saved = self._load()
        else:
            saved = self._look()
            write_file(self.saved, saved.pack())
        wanted = self._compose(saved.content, stub)
        if self._content() != wanted:
            self._put(wanted, 0o644)
        return tuple(server for server in servers(saved.content) if server != stub)

    def give_back(self) -> bool:
        """Put the old file back if ours is there; True if anything was done. Idempotent."""
        if not self.saved.exists():
            return False
        done = self.ours()
        if done:
            self._restore(self._load())
        remove_file(self.saved)
        return done

    def _content(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(SIZE_MAX)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise file_complaint("read", self.path, error) from error

    def _look(self) -> Saved:
        content = self._content()
        if self.path.is_symlink():
            return Saved("link", content, os.readlink(self.path))
        if not self.path.exists():
            return Saved("missing", b"")
        return Saved("file", content, mode=self.path.stat().st_mode & 0o777)

    def _load(self) -> Saved:
        try:
            fields = json.loads(read_file(self.saved, 4 * SIZE_MAX))
            return Saved(
                str(fields["kind"]),
                base64.b64decode(fields["content"], validate=True),
                str(fields["link"]),
                int(fields["mode"]) & 0o777,
            )
        except (ValueError, KeyError, TypeError):
            raise damaged(self.saved, "it is not what ntmd stores there") from None

    def _compose(self, old: bytes, stub: str) -> bytes:
        """Our file: mark, stub, at most two old resolvers, and the old search list and options."""
        lines = [self._mark, f"nameserver {stub}"]
        behind = [server for server in servers(old) if server != stub]
        lines += [f"nameserver {server}" for server in behind[: SERVERS_MAX - 1]]
        for line in old.decode("utf-8", "replace").splitlines():
            words = line.split()
            if words[:1] in (["search"], ["domain"], ["sortlist"]):
                lines.append(line)
            elif words[:1] == ["options"]:
                # rotate would ask the others first; trust-ad vouches for resolvers we are not
                kept = [word for word in words if word not in ("rotate", "trust-ad")]
                if len(kept) > 1:
                    lines.append(" ".join(kept))
        return ("\n".join(lines) + "\n").encode()

    def _put(self, content: bytes, mode: int) -> None:
        if not self.mounted():
            write_file(self.path, content, mode)
            return
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                # one write, then the rest is cut off: no reader sees half a line
                os.write(descriptor, content)
                os.ftruncate(descriptor, len(content))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise file_complaint("write", self.path, error) from error

    def _restore(self, saved: Saved) -> None:
        try:
            if saved.kind == "missing" and not self.mounted():
                self.path.unlink(missing_ok=True)
            elif saved.kind == "link" and not self.mounted():
                beside = self.path.with_name(self.path.name + ".ntmd")
                beside.unlink(missing_ok=True)
                os.symlink(saved.link, beside)
                os.rename(beside, self.path)
            else:
                self._put(saved.content, saved.mode)
        except OSError as error:
            raise file_complaint("put back", self.path, error) from error


def servers(content: bytes) -> tuple[str, ...]:
    """Addresses of the ``nameserver`` lines, in order; as in the C library, a name is none."""
    found = []
    for line in content.decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return tuple(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def same_network(
    one: Path = Path("/proc/self/ns/net"), other: Path = Path("/proc/1/ns/net")
) -> bool:
    """Whether this process is in the network namespace of the system's first process."""
    try:
        return os.stat(one).st_ino == os.stat(other).st_ino
    except OSError:
        return False  # not to be seen: certainly not ours to change


def choose_mode(wanted: str, resolv_conf: ResolvConf) -> tuple[str, str]:
    """The mode to use for ``--dns wanted``, and a note for the user when names stay untouched."""
    if wanted in ("file", "off"):
        return wanted, ""
    if wanted == "resolved":
        raise Complaint(
            "--dns resolved is not supported by this version.",
            "Names of the platform would not resolve.",
            "Use --dns file, which works beside systemd-resolved as well, or --dns off.",
        )
    if same_network() or resolv_conf.mounted():
        return "file", ""
    return "off", (
        "names of the platform do not resolve: this network namespace has no resolv.conf of its "
        "own, and the host's is left alone. Mount one over /etc/resolv.conf, or use --dns file."
    )
