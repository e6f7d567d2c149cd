"""Logs stay one line each; traces carry no keys."""

import io
import json
from pathlib import Path

import pytest

from ntmd.proto.plane import DataKey, InstallTunnel, OpenSocket, TunnelEntry
from ntmd.proto.types import Endpoint, Suite
from ntmd.proto.types import Path as Way
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.journal import Trace, journal, start_logging


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    return io.StringIO()


def test_fields_are_key_and_value_and_a_newline_from_outside_stays_inside(
    lines: io.StringIO,
) -> None:
    start_logging("info", lines)
    journal("ntmd.x").info("peer said %s", name="a\nb 100%", count=3, key=b"\x01")
    text = lines.getvalue()
    assert text.endswith('info ntmd.x peer said %s name="a\\nb 100%" count=3 key=01\n')
    assert text.count("\n") == 1


def test_levels_are_kept(lines: io.StringIO) -> None:
    start_logging("warning", lines)
    log = journal("ntmd.x")
    log.debug("no")
    log.info("no")
    log.tell("info", "no", {})
    log.tell("warning", "yes", {"a": 1.5})
    assert lines.getvalue().endswith("warning ntmd.x yes a=1.5\n")
    assert "no" not in lines.getvalue()


def test_under_systemd_lines_have_a_priority_and_no_time(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    start_logging("info", lines)
    journal("ntmd.x").warning("look")
    assert lines.getvalue() == "<4>warning ntmd.x look\n"


def test_a_failure_shows_its_traceback(lines: io.StringIO) -> None:
    start_logging("info", lines)
    try:
        raise ZeroDivisionError("ours")
    except ZeroDivisionError as error:
        journal("ntmd.x").failure("the core failed", error)
    assert "ZeroDivisionError: ours" in lines.getvalue()


def test_a_trace_is_json_without_keys(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t")
    key = DataKey(1, Suite.CHACHA, b"\xaa" * 32, 5)
    trace.write(
        "command", InstallTunnel(TunnelEntry(1, b"\x01" * 16, (2,), (key,), key, 3, ())), 2.5
    )
    trace.write("input", OpenSocket(1, "eth0", 4, "10.0.0.1", 0), 3.0)
    trace.write("command", Way(1, Endpoint("::1", 5)), 4.0)
    trace.close()
    text = (tmp_path / "t").read_text()
    first, second, third = map(json.loads, text.splitlines())
    assert "aa" * 8 not in text
    assert first["entry"]["receive"][0]["key"] == "..."
    assert (second["at"], second["input"], second["interface"]) == (3.0, "OpenSocket", "eth0")
    assert third["remote"] == "[::1]:5"


def test_a_trace_that_cannot_be_opened_is_a_complaint(tmp_path: Path) -> None:
    with pytest.raises(Complaint, match="cannot write the trace"):
        Trace(tmp_path / "no" / "where")


def test_a_full_disk_ends_the_trace_only() -> None:
    trace = Trace(Path("/dev/full"))
    trace.write("input", "a", 1.0)
    trace.write("input", "b", 2.0)
    trace.close()
