"""The key log has each data key once, in a private file."""

from pathlib import Path

from ntmd.keylog import KeyLog
from ntmd.proto.plane import DataKey, InstallTunnel, TunnelEntry
from ntmd.proto.types import Suite


def test_each_key_is_written_once_with_its_direction(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    log = KeyLog(path)
    incoming = DataKey(3, Suite.CHACHA, b"\x01" * 32, 9)
    outgoing = DataKey(4, Suite.AES_GCM, b"\x02" * 32, 9)
    entry = TunnelEntry(7, bytes(16), (1,), (incoming,), outgoing, 2, ())
    log.installed(InstallTunnel(entry))
    log.installed(InstallTunnel(entry))
    assert path.read_text().splitlines() == [
        f"ntm-data 7 9 3 2 in {'01' * 32}",
        f"ntm-data 7 9 4 1 out {'02' * 32}",
    ]
    assert path.stat().st_mode & 0o777 == 0o600
