"""The asking commands against a control socket that answers as the contract says."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import BashComplete

from ntmd.cli.main import cli, run
from ntmd.cli.watch import Watch
from ntmd.runtime.control_server import ControlServer, Request

STATUS: dict[str, Any] = {
    "schema": 1,
    "version": "0.1.0",
    "state": "up",
    "self": {"name": "laptop.home.test", "address": "fd5e::1", "interface": "ntm0", "mtu": 1420,
             "plane": "python", "pid": 411, "uptime_s": 12.5},
    "coordinator": {"domain": "home.test", "endpoint": "198.51.100.1:4330", "reachable": True,
                    "last_seen_s": 1.2},
    "underlay": [{"interface": "wlan0", "address": "10.1.0.2", "reflexive": "203.0.113.7:40112",
                  "mapping": "endpoint-independent", "filtering": "address-and-port-dependent",
                  "usable": True}],
    "relays": [{"name": "rs1.home.test", "endpoint": "198.51.100.1:4331", "rtt_ms": 9.1}],
    "peers": [{"name": "desk.home.test", "address": "fd5e::2", "state": "established",
               "path": {"kind": "direct", "interface": "wlan0", "local": "10.1.0.2:4330",
                        "remote": "203.0.113.9:4330", "relay": None, "rtt_ms": 8.7, "mtu": 1500},
               "paths": [], "tx_bytes": 12345, "rx_bytes": 1, "last_rx_s": 0.2}],
    "handovers": [{"id": "1", "peer": "desk.home.test", "at": "2026-01-01T00:00:00Z",
                   "cause": "link down wlan0", "from": "direct wlan0", "to": "direct wwan0",
                   "gap_ms": 21.0, "lost": 2, "duplicated": 0}],
    "dns": {"mode": "file", "address": "fd5e::53", "domains": ["home.test"]},
    "drops": {"replayed": 3, "unknown_index": 0},
    "health": [{"code": "clock", "severity": "warning", "text": "the clock is wrong",
                "since": None}],
}  # fmt: skip

Handler = Callable[[Request], None]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Handler], None]]:
    """``serve(handler)`` starts a control socket in ``tmp_path``."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[ControlServer] = []

    def start(handler: Handler) -> None:
        async def open_it() -> None:
            servers.append(ControlServer(tmp_path / "ntmd.sock", handler))

        asyncio.run_coroutine_threadsafe(open_it(), loop).result(10)

    yield start

    async def close() -> None:
        for server in servers:
            server.close()

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_status_shows_all_that_matters(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lambda request: request.answer(STATUS))
    assert run(["--state", str(tmp_path), "status"]) == 0
    text = capsys.readouterr().out
    for part in ("laptop.home.test", "fd5e::1", "up", "198.51.100.1:4330", "203.0.113.7:40112",
                 "endpoint-independent", "rs1.home.test", "direct via wlan0 203.0.113.9:4330",
                 "8.7 ms", "12.3 kB", "link down wlan0", "gap 21 ms, lost 2", "home.test",
                 "replayed 3", "warning: the clock is wrong"):  # fmt: skip
        assert part in text
    assert "unknown_index" not in text


def test_status_json_is_the_daemons_answer(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lambda request: request.answer(STATUS))
    assert run(["status", "--json", "--state", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def watched(**changes: Any) -> dict[str, Any]:
    peer = {**STATUS["peers"][0], "path_since_s": 61.0, "rx_packets": 100, "lost": 0,
            "warm": [{"kind": "relay", "relay": "rs1.home.test", "interface": "wlan0"}],
            **changes}  # fmt: skip
    return {**STATUS, "peers": [peer]}


LINE = (
    "desk.home.test established: direct via wlan0 203.0.113.9:4330 for 1 min; rtt 8.7 ms,"
    " no traffic; warm: relay rs1.home.test via wlan0; last move 00:00:00Z: link down wlan0,"
    " gap 21 ms, lost 2"
)


def test_watch_prints_a_line_only_when_it_says_something_new(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def handler(request: Request) -> None:
        assert request.arguments == {"watch": True}
        request.answer(watched(), last=False)
        request.answer(watched(path_since_s=62.0, rx_packets=190, lost=10), last=False)
        request.answer(watched(path={"kind": "relay", "relay": "rs1"}, warm=[], rx_packets=280))

    serve(handler)
    assert run(["status", "--watch", "--state", str(tmp_path)]) == 0
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("laptop.home.test  fd5e::1  up; warning: the clock is wrong")
    assert lines[1] == LINE
    assert "relay rs1 for 1 min; rtt -" in lines[2]
    assert "warm: nothing" in lines[2]
    assert len(lines) == 3


def test_watch_in_a_terminal_draws_all_lines_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    view = Watch(terminal=True)
    view.show(watched())
    view.show(watched(rx_packets=190, lost=10))
    text = capsys.readouterr().out
    assert text.count("desk.home.test established") == 2
    assert "loss 10.0%" in text
    assert text.count("warning: the clock is wrong") == 2


def test_watch_as_json_is_a_status_each_time(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def handler(request: Request) -> None:
        request.answer(STATUS, last=False)
        request.answer(STATUS)

    serve(handler)
    assert run(["status", "--watch", "--json", "--state", str(tmp_path)]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [STATUS] * 2


@pytest.mark.parametrize("answer", [{"state": "joining"}, {"self": None, "peers": [{}]}, STATUS])
def test_missing_fields_never_fail(
    serve: Callable[[Handler], None], tmp_path: Path, answer: dict[str, Any]
) -> None:
    serve(lambda request: request.answer(answer))
    assert run(["status", "--state", str(tmp_path)]) == 0


def test_status_of_a_node_that_is_down_is_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "--json", "--state", str(tmp_path)]) == 3
    assert json.loads(capsys.readouterr().out)["state"] == "down"


def test_up_when_up_says_so_and_is_done(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lambda request: request.answer(STATUS))
    assert run(["up", "--state", str(tmp_path)]) == 0
    assert "already up: laptop.home.test fd5e::1" in capsys.readouterr().out


def test_ping_prints_each_answer_with_its_way(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def handler(request: Request) -> None:
        asked.append(request.arguments)
        request.answer({"seq": 1, "way": "relay rs1.home.test", "time_ms": 31.24}, last=False)
        request.answer({"seq": 2, "time_ms": None}, last=False)
        request.answer({"seq": 3, "way": "direct via eth0 203.0.113.7:4330", "time_ms": 8.0})

    serve(handler)
    arguments = ["ping", "desk.home.test", "-c", "3", "-i", "0.1", "--until-direct"]
    assert run([*arguments, "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "desk.home.test: seq=1 relay rs1.home.test time=31.2 ms",
        "desk.home.test: seq=2 no answer",
        "desk.home.test: relay rs1.home.test -> direct via eth0 203.0.113.7:4330 after 0.0 s",
        "desk.home.test: seq=3 direct via eth0 203.0.113.7:4330 time=8.0 ms",
    ]
    assert asked[0]["until_direct"] is True
    assert (asked[0]["count"], asked[0]["interval"]) == (3, 0.1)


def test_ping_until_direct_that_stays_relayed_is_a_failure_that_says_more(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def handler(request: Request) -> None:
        asked.append((request.arguments["count"], request.arguments["interval"]))
        request.answer({"seq": 1, "way": "relay rs1.home.test", "time_ms": 31.24})

    serve(handler)
    words = ["ping", "desk.home.test", "--until-direct", "--state", str(tmp_path)]
    for more in (["-c", "1"], [], ["-i", "2.5"]):
        assert run([*words, *more]) == 1
        assert "still reached over a relay" in capsys.readouterr().err
    assert asked == [(1, 0.2), (50, 0.2), (10, 2.5)]


def test_ping_without_any_answer_is_exit_code_4(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lambda request: request.answer({"seq": 1, "time_ms": None}))
    assert run(["ping", "desk.home.test", "-c", "1", "--state", str(tmp_path)]) == 4
    assert "ntmd why desk.home.test" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["resolve", "why", "ping"])
def test_a_refusal_of_the_daemon_is_shown_with_its_exit_code(
    serve: Callable[[Handler], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    serve(lambda request: request.fail("there is no nobody.home.test.\nCheck the name.", 4))
    assert run([command, "nobody.home.test", "--state", str(tmp_path)]) == 4
    assert "Check the name." in capsys.readouterr().err


def test_handovers_show_both_ends_of_a_move(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {**STATUS["handovers"][0], "own": True, "evidence": "link down wlan0, noticed",
             "decision": "tell the peer on 3 ways", "first_out_ms": 1.2, "first_in_ms": 20.0,
             "gap_in_ms": 21.0, "gap_out_ms": 40, "lost_out": 3, "notes": ["odd"]}  # fmt: skip
    serve(lambda request: request.answer({"handovers": [entry, {}]}))
    assert run(["handovers", "--state", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for part in ("this end moved; evidence: link down wlan0, noticed; decision: tell the peer",
                 "first datagram out 1 ms, in 20 ms; gap in 21 ms, out 40 ms; lost in 2, out 3",
                 "noted: odd"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("options", "said"), [([], "no moves since the start"), (["--json"], "[]")]
)
def test_an_empty_journal_says_so(
    serve: Callable[[Handler], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    serve(lambda request: request.answer({"handovers": []}))
    assert run(["handovers", *options, "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == said


def test_handovers_follow_prints_one_line_each(
    serve: Callable[[Handler], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def handler(request: Request) -> None:
        assert request.arguments["follow"] is True
        request.answer(STATUS["handovers"], last=False)
        request.answer(STATUS["handovers"])

    serve(handler)
    assert run(["handovers", "--follow", "--json", "--state", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["cause"] for line in lines] == ["link down wlan0"] * 2


REHEARSED: dict[str, Any] = {
    "phase": "done", "interface": "eth0", "seconds": 5.0, "other_links": ["wlan0"],
    "peers": [{"peer": "desk.home.test", "before": "direct via eth0 203.0.113.9:4330",
               "during": "relay rs1 via wlan0", "after": "direct via wlan0 203.0.113.9:4330",
               "gap_ms": 300.4, "sent": 101, "lost": 6, "verdict": "survived",
               "survived": True}],
    "survived": True,
}  # fmt: skip


@pytest.mark.parametrize(("survived", "links"), [(True, ["wlan0"]), (False, []), (False, ["w"])])
def test_rehearse_shows_what_survived(
    serve: Callable[[Handler], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    survived: bool,
    links: list[str],
) -> None:
    asked = []

    def handler(request: Request) -> None:
        asked.append(request.arguments)
        for phase in ("listening", "blocked", "unblocked"):
            request.answer({**REHEARSED, "phase": phase}, last=False)
        request.answer({**REHEARSED, "survived": survived, "other_links": links})

    serve(handler)
    command = ["rehearse", "--block", "eth0", "--for", "1.5s", "--state", str(tmp_path)]
    assert run(command) == (0 if survived else 1)
    said = capsys.readouterr()
    assert "desk.home.test: survived; gap 300 ms, lost 6 of 101" in said.out
    assert "eth0 is blocked for 5 s, for ntmd alone" in said.err
    assert ("a tunnel did not survive" in said.err) is not survived
    assert run([*command, "--json"]) == (0 if survived else 1)
    assert json.loads(capsys.readouterr().out)["survived"] is survived
    assert asked == [{"seconds": 1.5, "block": "eth0"}] * 2
    assert run(["rehearse", "--for", "soon"]) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell]) == 0
    assert "ntmd" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ntmd why de", ["desk.home.test"]),
        ("ntmd ping x", []),
        ("ntmd rehearse --block w", ["wlan0"]),
        ("ntmd reh", ["rehearse"]),
    ],
)
def test_completion_knows_peers_links_and_commands(
    serve: Callable[[Handler], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    found: list[str],
) -> None:
    monkeypatch.setenv("NTMD_STATE", str(tmp_path))
    serve(lambda request: request.answer(STATUS))
    *before, last = words.split()[1:]
    complete = BashComplete(cli, {}, "ntmd", "_NTMD_COMPLETE")
    assert [item.value for item in complete.get_completions(before, last)] == found


def test_completion_without_a_daemon_offers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NTMD_STATE", str(tmp_path))
    assert BashComplete(cli, {}, "ntmd", "_NTMD_COMPLETE").get_completions(["why"], "") == []


def test_common_options_work_before_and_after_the_command(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert run(["--state", str(tmp_path / "x"), "status"]) == 3
    assert run(["status", "-q", "--state", str(tmp_path / "x")]) == 3
    assert run(["-v", "status", "--plane", "rust"]) == 2


@pytest.mark.parametrize(
    "command",
    ["up", "down", "status", "ping", "resolve", "netcheck", "handovers", "why", "rehearse",
     "leave",
     "version", "completion"],
)  # fmt: skip
def test_every_command_has_help_worth_reading(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "--help"]) == 0
    assert len(capsys.readouterr().out) > 300
