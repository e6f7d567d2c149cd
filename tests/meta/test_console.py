"""README and docs show what the programs say, and only commands that exist."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from ntm_server.main import cli as server_cli
from ntmd.cli.main import cli as node_cli
from tests.meta import console

COMMANDS: dict[str, click.Command] = {"ntmd": node_cli, "ntm-server": server_cli}
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
TARGETS = re.compile(r"^([\w-]+):", re.MULTILINE)


@pytest.mark.parametrize("name", console.SIMULATED)
def test_a_block_is_what_the_program_says(name: str) -> None:
    stale = "run: python -m tests.meta.console --write"
    assert console.masked(console.blocks()[name]) == console.masked(console.MAKERS[name]()), stale


def test_every_block_has_a_maker_and_every_maker_a_block() -> None:
    assert set(console.blocks()) == set(console.MAKERS)


def test_masking_hides_figures_and_nothing_else() -> None:
    one = console.masked("[ 0.2 s] path: direct via eth0 to 203.0.113.5:46129\nfdbe:1c16::1  yes")
    two = console.masked("[12.9 s] path: direct via eth0 to 198.51.100.1:1\nfd00:2:3::4      yes")
    assert one == two == ["[N s] path: direct via ethN to N", "ADDRESS yes"]
    assert console.masked("relay rs1 lost 2") != console.masked("direct rs1 lost 2")


def commands() -> list[str]:
    """What a reader is told to type."""
    found = []
    for page in console.PAGES:
        for block in CONSOLE.findall(page.read_text(encoding="utf-8")):
            lines = [line[2:] for line in block.splitlines() if line.startswith("# ")]
            found += [part.partition(" #")[0] for line in lines for part in line.split("&&")]
    return found


def test_what_a_reader_is_told_to_type_exists() -> None:
    makefile = (console.ROOT / "Makefile").read_text(encoding="utf-8")
    checked = 0
    for line in commands():
        words = shlex.split(line.replace("|", " ").rstrip("& "))
        if not words or words[0] not in (*COMMANDS, "make"):
            continue
        checked += 1
        if words[0] == "make":
            assert words[1] in TARGETS.findall(makefile), line
            continue
        command, rest = COMMANDS[words[0]], words[1:]
        while isinstance(command, click.Group):
            found = command.commands.get(rest[0])
            assert found is not None, line
            command, rest = found, rest[1:]
        options = {name for each in command.params for name in each.opts}
        used = {word for word in rest if word.startswith("-")}
        assert used <= options, line
    assert checked >= 10
