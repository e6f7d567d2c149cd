"""Every complaint of the command line, provoked: exit code, cause, next step, no traceback."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ntmd.nodefiles import NodeFiles
from ntmd.proto.types import Endpoint
from tests.unit.complaint_table import LIMIT, ComplaintTable, small_disk, unprivileged
from tests.unit.enrolled import enrolled
from tests.unit.ports import free_port

TABLE = ComplaintTable(Path(__file__).with_name("complaints.json"), "ntmd.cli.main")
provokes, expect = TABLE.provokes, TABLE.expect


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something that listens at ``path`` and does ``answer`` with its first caller."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(LIMIT)


@provokes("not-running")
@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["ping", "x"],
        ["resolve", "x"],
        ["netcheck"],
        ["handovers"],
        ["why", "x"],
        ["rehearse"],
    ],
)
def test_every_question_needs_a_daemon(tmp_path: Path, command: list[str]) -> None:
    expect("not-running", "--state", tmp_path, *command)


@provokes("unknown-option")
def test_an_unknown_option() -> None:
    expect("unknown-option", "status", "--colour")


@provokes("unknown-command")
def test_an_unknown_command() -> None:
    expect("unknown-command", "statsu")


@provokes("port-out-of-range")
def test_a_port_out_of_range() -> None:
    expect("port-out-of-range", "up", "--port", "99999")


@provokes("interface-name")
def test_an_impossible_interface_name(tmp_path: Path) -> None:
    expect("interface-name", "up", "--state", tmp_path, "--interface", "much/too-long-a-name")


@provokes("settings-syntax")
def test_a_settings_file_with_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "ntmd.toml").write_text("port = \n")
    expect("settings-syntax", "status", "--state", tmp_path)


@provokes("settings-unknown")
def test_a_settings_file_with_an_unknown_key(tmp_path: Path) -> None:
    (tmp_path / "ntmd.toml").write_text('colour = "red"\n')
    expect("settings-unknown", "status", NTMD_STATE=str(tmp_path))


@provokes("socket-path-too-long")
def test_a_state_directory_with_a_very_long_path() -> None:
    expect("socket-path-too-long", "status", "--state", "/tmp/" + "long/" * 25)


@provokes("socket-permission")
@pytest.mark.e2e
def test_a_user_who_may_not_use_the_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ntmd.sock"))
        listener.listen()
        (tmp_path / "ntmd.sock").chmod(0o600)
        expect("socket-permission", "status", "--state", tmp_path, prefix=unprivileged(tmp_path))


@provokes("socket-of-another-program")
def test_another_program_at_the_socket(tmp_path: Path) -> None:
    with answering(tmp_path / "ntmd.sock", lambda caller: caller.sendall(b"220 hello\r\n")):
        expect("socket-of-another-program", "status", "--state", tmp_path)


@provokes("daemon-hung-up")
def test_a_daemon_that_hangs_up(tmp_path: Path) -> None:
    with answering(tmp_path / "ntmd.sock", lambda caller: None):
        expect("daemon-hung-up", "status", "--state", tmp_path)


@provokes("daemon-stuck")
def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ntmd.sock"))
        listener.listen()
        expect("daemon-stuck", "up", "--state", tmp_path)


@provokes("state-is-a-file")
def test_a_state_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    expect("state-is-a-file", "up", "--state", tmp_path / "file")


@provokes("state-permission")
@pytest.mark.e2e
def test_a_state_directory_that_may_not_be_made(tmp_path: Path) -> None:
    prefix = unprivileged(tmp_path)
    expect("state-permission", "up", "--state", tmp_path / "sub", prefix=prefix)


@provokes("state-of-another-user")
@pytest.mark.e2e
def test_a_state_directory_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    expect("state-of-another-user", "up", "--state", tmp_path / "state")


@provokes("state-disk-full")
@pytest.mark.e2e
def test_a_full_disk(tmp_path: Path) -> None:
    prefix = small_disk(tmp_path, "4k,nr_inodes=3")
    expect("state-disk-full", "up", "--state", tmp_path / "a" / "b", prefix=prefix)


@provokes("not-joined")
def test_the_first_start_without_a_join_url(tmp_path: Path) -> None:
    expect("not-joined", "up", "--state", tmp_path / "new")


@provokes("leave-without-terminal")
def test_leaving_without_being_asked(tmp_path: Path) -> None:
    expect("leave-without-terminal", "leave", "--state", tmp_path)


@provokes("state-in-use")
def test_a_second_daemon_on_one_state_directory(tmp_path: Path) -> None:
    NodeFiles(tmp_path).lock()
    expect("state-in-use", "up", "--state", tmp_path)


@provokes("join-url-malformed")
@pytest.mark.parametrize("url", ["x", "http://h/join#v=1", "https://h/join", "https://[::1/join#"])
def test_a_join_url_with_a_part_missing(tmp_path: Path, url: str) -> None:
    expect("join-url-malformed", "up", "--state", tmp_path / "s", "--join", url)


@provokes("account-server-unreachable")
def test_an_account_server_that_does_not_run(tmp_path: Path) -> None:
    url = f"https://127.0.0.1:1/join#v=1&ca={'0' * 64}&k={'k' * 32}"
    expect("account-server-unreachable", "up", "--state", tmp_path / "s", "--join", url)


def listener() -> socket.socket:
    """A TCP server on loopback that accepts and says nothing by itself."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


@provokes("account-server-silent")
def test_an_account_server_that_says_nothing(tmp_path: Path) -> None:
    with listener() as server:
        port = server.getsockname()[1]
        url = f"https://127.0.0.1:{port}/join#v=1&ca={'0' * 64}&k={'k' * 32}"
        expect("account-server-silent", "up", "--state", tmp_path / "s", "--join", url)


@provokes("account-server-foreign")
def test_an_account_server_that_speaks_something_else(tmp_path: Path) -> None:
    with listener() as server:
        port = server.getsockname()[1]

        def answer() -> None:
            caller, _ = server.accept()
            with caller:
                caller.sendall(b"220 mail.example.org ready\r\n")
                caller.recv(100)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{port}/join#v=1&ca={'0' * 64}&k={'k' * 32}"
        expect("account-server-foreign", "up", "--state", tmp_path / "s", "--join", url)


IN_NAMESPACE = (
    "unshare", "--net", "--mount", "sh", "-c",
    "mount --make-rprivate / && ip link set lo up && ip link add v0 type veth peer name v0p"
    " && ip addr add 10.1.0.2/24 dev v0 && ip link set v0p up && ip link set v0 up"
    " && {extra} exec \"$@\"", "sh",
)  # fmt: skip


def namespace(extra: str = "") -> tuple[str, ...]:
    """Prefix that runs a command in namespaces of its own, after ``extra`` was run there."""
    then = f"{extra} &&" if extra else ""
    return tuple(word.replace("{extra}", then) for word in IN_NAMESPACE)


@provokes("coordinator-silent")
@pytest.mark.e2e
def test_a_coordinator_that_never_answers(tmp_path: Path) -> None:
    enrolled(tmp_path, Endpoint("10.1.0.9", 4330))
    expect("coordinator-silent", "up", "--state", tmp_path, prefix=namespace())


@provokes("udp-port-taken")
@pytest.mark.e2e
def test_a_udp_port_that_is_taken(tmp_path: Path) -> None:
    enrolled(tmp_path, Endpoint("10.1.0.9", 4330))
    ready = tmp_path / "ready"
    taker = tmp_path / "taker.py"
    taker.write_text(
        "import pathlib, socket, time\n"
        "taken = socket.socket(type=socket.SOCK_DGRAM)\n"
        "taken.bind(('0.0.0.0', 4444))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(9)\n"
    )
    background = f"({sys.executable} {taker} >/dev/null 2>&1 &)"
    prefix = namespace(f"{background} && until [ -e {ready} ]; do :; done")
    expect("udp-port-taken", "up", "--state", tmp_path, "--port", 4444, prefix=prefix)


@provokes("tun-missing")
@pytest.mark.e2e
def test_a_kernel_without_tun(tmp_path: Path) -> None:
    enrolled(tmp_path / "s", Endpoint("10.1.0.9", 4330))
    (tmp_path / "empty").mkdir()
    prefix = namespace(f"mount --bind {tmp_path}/empty /dev/net")
    expect("tun-missing", "up", "--state", tmp_path / "s", prefix=prefix)


@provokes("no-capability")
@pytest.mark.e2e
def test_a_user_without_the_capability(tmp_path: Path) -> None:
    enrolled(tmp_path, Endpoint("10.1.0.9", 4330))
    prefix = (*namespace(), "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    expect("no-capability", "up", "--state", tmp_path, prefix=prefix)


@provokes("plane-native")
def test_a_plane_that_is_not_there(tmp_path: Path) -> None:
    enrolled(tmp_path, Endpoint("10.1.0.9", 4330))
    expect("plane-native", "up", "--state", tmp_path, "--plane", "native")


@provokes("interface-foreign")
@pytest.mark.e2e
def test_an_interface_of_that_name_that_is_not_ours(tmp_path: Path) -> None:
    enrolled(tmp_path, Endpoint("10.1.0.9", 4330))
    prefix = namespace("ip tuntap add dev ntm0 mode tun")
    expect("interface-foreign", "up", "--state", tmp_path, prefix=prefix)


@provokes("key-damaged")
def test_a_key_that_was_cut_short(tmp_path: Path) -> None:
    enrolled(tmp_path, Endpoint("10.1.0.9", 4330))
    (tmp_path / "node.key").write_bytes(b"ntmd-key 1\nhalf")
    expect("key-damaged", "up", "--state", tmp_path)


@provokes("key-of-another-node")
def test_a_key_that_does_not_belong_to_the_certificate(tmp_path: Path) -> None:
    enrolled(tmp_path / "a", Endpoint("10.1.0.9", 4330))
    enrolled(tmp_path / "b", Endpoint("10.1.0.9", 4330))
    (tmp_path / "a/node.key").write_bytes((tmp_path / "b/node.key").read_bytes())
    expect("key-of-another-node", "up", "--state", tmp_path / "a")


@provokes("enrolment-damaged")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 9}', '{"schema": 1}', "[" * 9000])
def test_an_enrolment_that_is_no_enrolment(tmp_path: Path, text: str) -> None:
    enrolled(tmp_path, Endpoint("10.1.0.9", 4330))
    (tmp_path / "enrolment.json").write_text(text)
    expect("enrolment-damaged", "up", "--state", tmp_path)


@provokes("memory-damaged")
@pytest.mark.e2e
def test_a_memory_that_was_bent(tmp_path: Path) -> None:
    enrolled(tmp_path, Endpoint("10.1.0.9", 4330))
    store = NodeFiles(tmp_path).store()
    store.put("self", b"value")
    path = store.path("self")
    path.write_bytes(path.read_bytes() + b"x")
    expect("memory-damaged", "up", "--state", tmp_path, prefix=namespace())


AHEAD = """
import sys, time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + 86_400
time.time_ns = lambda: real_ns() + 86_400 * 10**9
from ntm_server.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def invite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Makes invitations at a real account server on loopback."""
    program = str(Path(sys.executable).parent / "ntm-server")
    with inviting(tmp_path_factory.mktemp("server"), program) as make:
        yield make


@contextmanager
def inviting(data: Path, *program: str) -> Iterator[Callable[[], str]]:
    """An account server, started by this command line."""
    port = free_port()
    server = subprocess.Popen(
        [*program, "all", "--data", str(data), "--domain", "home.test", "--listen", "127.0.0.1",
         "--https-port", str(port), "--udp-port", str(port), "--dns-port", "0",
         "--tls-port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    assert "ready" in server.stdout.readline()

    def make() -> str:
        done = subprocess.run(
            [*program, "invite", "--data", str(data)], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    yield make
    server.terminate()
    server.wait(15)
    server.stdout.close()


def join(name: str, state: Path, url: str, label: str = "laptop") -> None:
    expect(name, "up", "--state", state, "--join", url, "--name", label)


@provokes("invitation-used")
def test_an_invitation_that_was_used(tmp_path: Path, invite: Callable[[], str]) -> None:
    url = invite()
    enrol = (
        "import sys, os; from ntmd.runtime.account import enrol_node;"
        "enrol_node(sys.argv[1], 'first', os.urandom(32))"
    )
    subprocess.run([sys.executable, "-c", enrol, url], check=True)
    join("invitation-used", tmp_path / "b", url)


@provokes("invitation-unknown")
def test_an_invitation_that_was_never_made(tmp_path: Path, invite: Callable[[], str]) -> None:
    join("invitation-unknown", tmp_path / "s", invite().partition("&k=")[0] + "&k=" + "x" * 32)


@provokes("wrong-fingerprint")
def test_a_server_with_another_fingerprint(tmp_path: Path, invite: Callable[[], str]) -> None:
    head, _, tail = invite().partition("&k=")
    join("wrong-fingerprint", tmp_path / "s", f"{head[:-64]}{'0' * 64}&k={tail}")


@provokes("name-impossible")
def test_a_name_that_cannot_be(tmp_path: Path, invite: Callable[[], str]) -> None:
    join("name-impossible", tmp_path / "s", invite(), "my_laptop!")


@provokes("clock-wrong")
def test_a_clock_that_is_a_day_behind(tmp_path: Path) -> None:
    """The server's clock is moved instead of this machine's."""
    with inviting(tmp_path / "server", sys.executable, "-c", AHEAD) as make:
        join("clock-wrong", tmp_path / "s", make())


@provokes("disk-full-while-joining")
@pytest.mark.e2e
def test_a_disk_that_is_full_once_the_key_is_made(
    tmp_path: Path, invite: Callable[[], str]
) -> None:
    (tmp_path / "s").mkdir()
    arguments = ("--state", tmp_path / "s", "--join", invite(), "--name", "laptop")
    prefix = small_disk(tmp_path / "s", "8k")
    expect("disk-full-while-joining", "up", *arguments, prefix=prefix)


def test_each_complaint_of_the_table_is_provoked() -> None:
    assert TABLE.complete()
