"""resolv.conf: taken, kept right, and given back, whatever it was and however we end."""

import os
from pathlib import Path

import pytest

from ntmd.platform.linux import resolvconf
from ntmd.platform.linux.resolvconf import ResolvConf, choose_mode, servers
from ntmd.runtime.complaints import Complaint

STUB = "fd5e:1:2:3::53"
OLD = "# by hand\nsearch example.org\nnameserver 9.9.9.9\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n"


class Place:
    """A directory with a resolv.conf, a state directory, and a mount table."""

    def __init__(self, root: Path) -> None:
        self.etc = root / "etc"
        self.state = root / "state"
        self.mounts = root / "mountinfo"
        self.etc.mkdir()
        self.state.mkdir()
        self.mounts.write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
        self.path = self.etc / "resolv.conf"

    def file(self) -> ResolvConf:
        return ResolvConf(self.state / "saved", self.path, self.mounts)

    def mount(self) -> None:
        self.mounts.write_text(f"30 22 8:1 /x {self.path} rw - ext4 /dev/sda1 rw\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_our_stub_comes_first_and_three_lines_are_the_most(place: Place) -> None:
    place.path.write_text(OLD)
    upstreams = place.file().take(STUB)
    assert upstreams == ("9.9.9.9", "1.1.1.1", "8.8.8.8")
    text = place.path.read_text()
    assert servers(text.encode()) == (STUB, "9.9.9.9", "1.1.1.1")
    assert "search example.org" in text


def test_options_that_would_ask_others_first_are_left_out(place: Place) -> None:
    place.path.write_text("nameserver 9.9.9.9\noptions rotate edns0 trust-ad\n")
    place.file().take(STUB)
    assert "options edns0\n" in place.path.read_text()


def test_a_plain_file_comes_back_with_its_mode(place: Place) -> None:
    place.path.write_text(OLD)
    place.path.chmod(0o640)
    place.file().take(STUB)
    assert place.path.stat().st_mode & 0o777 == 0o644
    assert place.file().give_back()
    assert place.path.read_text() == OLD
    assert place.path.stat().st_mode & 0o777 == 0o640
    assert not place.file().give_back()


def test_a_symbolic_link_is_replaced_and_put_back_and_its_target_untouched(place: Place) -> None:
    target = place.etc / "stub-resolv.conf"
    target.write_text("nameserver 127.0.0.53\n")
    place.path.symlink_to("stub-resolv.conf")
    assert place.file().take(STUB) == ("127.0.0.53",)
    assert not place.path.is_symlink()
    assert target.read_text() == "nameserver 127.0.0.53\n"
    place.file().give_back()
    assert os.readlink(place.path) == "stub-resolv.conf"


def test_a_missing_file_is_missing_again(place: Place) -> None:
    assert place.file().take(STUB) == ()
    assert servers(place.path.read_bytes()) == (STUB,)
    place.file().give_back()
    assert not place.path.exists()


def test_a_mounted_file_is_written_in_place(place: Place) -> None:
    place.path.write_text(OLD)
    place.mount()
    inode = place.path.stat().st_ino
    place.file().take(STUB)
    assert place.path.stat().st_ino == inode
    assert servers(place.path.read_bytes())[0] == STUB
    place.file().give_back()
    assert place.path.stat().st_ino == inode
    assert place.path.read_text() == OLD


def test_elsewhere_it_is_renamed_so_no_reader_sees_half_of_it(place: Place) -> None:
    place.path.write_text(OLD)
    inode = place.path.stat().st_ino
    place.file().take(STUB)
    assert place.path.stat().st_ino != inode


def test_taking_twice_keeps_the_first_old_file(place: Place) -> None:
    place.path.write_text(OLD)
    place.file().take(STUB)
    inode = place.path.stat().st_ino
    assert place.file().take(STUB) == ("9.9.9.9", "1.1.1.1", "8.8.8.8")
    assert place.path.stat().st_ino == inode
    place.file().give_back()
    assert place.path.read_text() == OLD


def test_a_file_that_another_program_wrote_meanwhile_is_taken_anew(place: Place) -> None:
    place.path.write_text(OLD)
    place.file().take(STUB)
    place.path.write_text("nameserver 10.0.0.1\n")
    assert place.file().take(STUB) == ("10.0.0.1",)
    place.file().give_back()
    assert place.path.read_text() == "nameserver 10.0.0.1\n"


def test_what_another_program_wrote_is_left_when_we_go(place: Place) -> None:
    place.path.write_text(OLD)
    place.file().take(STUB)
    place.path.write_text("nameserver 10.0.0.1\n")
    assert not place.file().give_back()
    assert place.path.read_text() == "nameserver 10.0.0.1\n"
    assert not (place.state / "saved").exists()


def test_after_a_kill_the_next_run_gives_the_first_file_back(place: Place) -> None:
    place.path.write_text(OLD)
    place.file().take(STUB)  # and then nothing more: killed
    assert place.file().give_back()
    assert place.path.read_text() == OLD


def test_a_kill_between_storing_and_writing_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.path.write_text(OLD)

    def killed(self: ResolvConf, content: bytes, mode: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResolvConf, "_put", killed)
        with pytest.raises(KeyboardInterrupt):
            place.file().take(STUB)
    assert place.path.read_text() == OLD
    assert place.file().take(STUB) == ("9.9.9.9", "1.1.1.1", "8.8.8.8")


def test_two_daemons_undo_only_their_own(place: Place) -> None:
    place.path.write_text(OLD)
    place.file().take(STUB)
    other_state = place.state / "other"
    other_state.mkdir()
    other = ResolvConf(other_state / "saved", place.path, place.mounts)
    other.take("fd5e:1:2:4::53")
    assert not place.file().give_back()
    assert servers(place.path.read_bytes())[0] == "fd5e:1:2:4::53"


def test_a_damaged_saved_file_is_named_and_the_present_one_kept(place: Place) -> None:
    place.path.write_text(OLD)
    place.file().take(STUB)
    present = place.path.read_text()
    (place.state / "saved").write_text("{")
    with pytest.raises(Complaint, match="cannot be used") as caught:
        place.file().give_back()
    assert str(place.state / "saved") in caught.value.text
    assert place.path.read_text() == present


def test_a_foreign_namespace_without_a_file_of_its_own_is_left_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvconf, "same_network", lambda: False)
    mode, note = choose_mode("auto", place.file())
    assert mode == "off"
    assert "resolv.conf" in note
    place.mount()
    assert choose_mode("auto", place.file()) == ("file", "")


def test_in_the_hosts_namespace_the_file_is_used(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvconf, "same_network", lambda: True)
    assert choose_mode("auto", place.file()) == ("file", "")
    assert choose_mode("off", place.file()) == ("off", "")
    with pytest.raises(Complaint, match="not supported"):
        choose_mode("resolved", place.file())


def test_a_name_is_no_resolver() -> None:
    """The C library takes addresses alone; a name would have to be looked up to be asked."""
    lines = "nameserver resolver.test\nnameserver 9.9.9.9\nnameserver\nnameserver fe80::1%eth0\n"
    assert servers(lines.encode() * 2) == ("9.9.9.9", "fe80::1%eth0")
