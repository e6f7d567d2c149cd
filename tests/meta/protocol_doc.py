"""Writes the tables of docs/protocol.md from the code that they describe.

``python -m tests.meta.protocol_doc --write`` puts them in place, ``--check`` says which differ. A
table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; all around it is prose.
"""

from __future__ import annotations

import argparse
import ast
import enum
import importlib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from ntmd.proto import messages, structs, timing
from ntmd.proto.fields import Range, Size
from ntmd.proto.frame import Kind
from ntmd.proto.messages import AnswerPayload, CallPayload, Message, Reply, Request
from ntmd.proto.records import Capability
from ntmd.proto.types import CandidateKind, Endpoint, PskKind, Role, Suite

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
TABLE = re.compile(r"<!-- table: ([a-z ]+) -->\n(.*?)<!-- end -->\n", re.DOTALL)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def sentence(thing: Any) -> str:
    """First sentence of a docstring, on one line, in Markdown."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    text = re.sub(r":\w+:`~?([\w.]+)`", lambda m: f"`{m[1].split('.')[-1]}`", text)
    return text.replace("``", "`").replace("|", "\\|")


# ------------------------------------------------------------------ messages


def bounds(bound: Size, unit: str = "") -> str:
    """``16``, or ``0-16``, with a unit."""
    return (str(bound.low) if bound.low == bound.high else f"{bound.low}-{bound.high}") + unit


def wire_type(annotation: Any) -> str:
    """A field's type in words."""
    bound: Any = None
    if get_origin(annotation) is Annotated:
        annotation, bound = get_args(annotation)
    if annotation is int:
        assert isinstance(bound, Range)
        return f"u{bound.high.bit_length()}"
    if annotation is bytes:
        return f"bin {bounds(bound)}"
    if annotation is str:
        return f"str {bounds(bound)}"
    if annotation is Endpoint:
        return "endpoint"
    if isinstance(annotation, UnionType):
        return " or ".join("nil" if a is type(None) else wire_type(a) for a in get_args(annotation))
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)
        if inner[-1] is Ellipsis:
            return f"array {bounds(bound)} of {wire_type(inner[0])}"
        return "[" + ", ".join(wire_type(each) for each in inner) + "]"
    return str(annotation.__name__)


def field_text(each: Field[Any], hints: Mapping[str, Any]) -> str:
    """Name and type of a field; one with a default may be missing at the end."""
    text = f"`{each.name}` {wire_type(hints[each.name])}"
    return text if each.default is MISSING else text + "?"


def struct_rows(classes: list[type[Any]]) -> list[tuple[str, str, str, str, str]]:
    """One row per struct."""
    rows = []
    for cls in classes:
        hints = get_type_hints(cls, include_extras=True)
        text = ", ".join(field_text(each, hints) for each in fields(cls)) or "none"
        tag = str(cls.tag) if hasattr(cls, "tag") else ""
        kind = "request" if cls in get_args(Request) else "reply" if cls in get_args(Reply) else ""
        rows.append((tag, f"`{cls.__name__}`", kind, text, sentence(cls)))
    return rows


def message_table() -> str:
    """Every message with its tag."""
    classes = [CallPayload, AnswerPayload, *get_args(Message)]
    rows = struct_rows(sorted(classes, key=lambda cls: int(cls.tag)))
    return table(("Tag", "Message", "", "Fields in order", "Meaning"), rows)


def struct_table() -> str:
    """What messages are made of."""
    found: list[type[Any]] = [
        cls
        for cls in vars(structs).values()
        if isinstance(cls, type) and is_dataclass(cls) and cls.__module__ == structs.__name__
    ]
    rows = [(name, text, what) for _, name, _, text, what in struct_rows(found)]
    return table(("Struct", "Fields in order", "Meaning"), rows)


# ------------------------------------------------------------------ numbers


def source_comments(module: Any) -> dict[str, str]:
    """Comment behind each assignment of a module, or the string below it."""
    source = inspect.getsource(module)
    lines, found = source.splitlines(), {}
    body = ast.parse(source).body
    for at, node in enumerate(body):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        behind = lines[(node.end_lineno or 0) - 1][node.end_col_offset or 0 :].strip()
        following = body[at + 1] if at + 1 < len(body) else None
        text = behind.removeprefix("#").strip()
        if not text and isinstance(following, ast.Expr):
            text = " ".join(ast.literal_eval(following.value).split())
        found[node.targets[0].id] = text
    return found


def timer_table() -> str:
    """Every constant of timing.py, under the headings that it has there."""
    lines = inspect.getsource(timing).splitlines()
    comments, out = source_comments(timing), ""
    rows: list[tuple[str, ...]] = []
    heading = ""
    for line in [*lines, "# ---- end"]:
        if match := re.match(r"# -{4,} ?(.*)", line):
            if rows:
                out += f"\n**{heading}**\n\n" + table(("Constant", "Value", "Reason"), rows)
            heading, rows = match[1], []
        elif match := re.match(r"([A-Z][A-Z_0-9]+) = ", line):
            name = match[1]
            rows.append((f"`{name}`", shown(getattr(timing, name)), comments.get(name, "")))
    return out + "\n"


def shown(value: Any) -> str:
    """A constant without noise."""
    if isinstance(value, tuple):
        return ", ".join(shown(each) for each in value)
    if isinstance(value, float):
        return f"{round(value, 4):,}"
    return f"{value:,}"


def enum_table(*kinds: type[enum.IntEnum] | type[enum.IntFlag]) -> str:
    """Numbers that travel."""
    rows = []
    for kind in kinds:
        comments = enum_comments(kind)
        rows += [
            (kind.__name__, str(int(each)), f"`{each.name}`", comments.get(str(each.name), ""))
            for each in kind
        ]
    return table(("Table", "Number", "Name", "Remark"), rows)


def enum_comments(kind: type[enum.Enum]) -> dict[str, str]:
    """Comments behind the members of an enumeration."""
    pattern = re.compile(r"^ +([A-Z_0-9]+) = [^#\n]*# (.*)$", re.MULTILINE)
    return dict(pattern.findall(inspect.getsource(kind)))


def number_table() -> str:
    """Kinds, suites, roles and the other small numbers of the wire."""
    return enum_table(
        Kind,
        Suite,
        Role,
        PskKind,
        CandidateKind,
        messages.Status,
        messages.MoveCause,
        messages.CloseReason,
        Capability,
    )


# ------------------------------------------------------------------ states


def named(state: Any) -> tuple[str, str]:
    """Name and meaning of a state: a class with a docstring, or a member of an enumeration."""
    if isinstance(state, enum.Enum):
        return state.name.capitalize(), str(state.value)
    return state.__name__, sentence(state)


def state_diagram(transitions: Mapping[tuple[Any, enum.Enum], Any]) -> str:
    """Diagram and table of a state machine: {(state, input): next state}."""
    arrows: dict[tuple[str, str], list[str]] = {}
    rows = []
    for (state, event), following in transitions.items():
        arrows.setdefault((named(state)[0], named(following)[0]), []).append(event.name.lower())
        rows.append((named(state)[0], f"`{event.name}`", str(event.value), named(following)[0]))
    first = named(next(iter(transitions))[0])[0]
    out = f"```mermaid\nstateDiagram-v2\n    [*] --> {first}\n"
    for (start, end), events in arrows.items():
        out += f"    {start} --> {end}: {', '.join(events)}\n"
    meanings = sorted({named(state) for state, _ in transitions})
    out += "```\n\n" + table(("State", "Meaning"), meanings)
    return out + "\n" + table(("State", "Input", "What happened", "Next"), rows)


def tunnel_states() -> str:
    """The tunnel state machine of the node."""
    return state_diagram(importlib.import_module("ntmd.node.tunnel").TRANSITIONS)


def path_states() -> str:
    """What is known of a path."""
    return state_diagram(importlib.import_module("ntmd.node.validity").TRANSITIONS)


TABLES = {
    "messages": message_table,
    "structs": struct_table,
    "numbers": number_table,
    "timers": timer_table,
    "tunnel states": tunnel_states,
    "path states": path_states,
}


def render(page: str) -> str:
    """The page with every table made anew."""
    return TABLE.sub(lambda m: f"<!-- table: {m[1]} -->\n{TABLES[m[1]]()}<!-- end -->\n", page)


def stale(page: str) -> list[str]:
    """Names of tables that differ from the code, or are missing."""
    present = dict(TABLE.findall(page))
    return [name for name, make in TABLES.items() if present.get(name) != make()]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables in place")
    parser.add_argument("--check", action="store_true", help="only say which differ (default)")
    wanted = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    if wanted.write:
        PAGE.write_text(page := render(page), encoding="utf-8")
    different = stale(page)
    for name in different:
        print(f"docs/protocol.md: table {name!r} differs from the code; run with --write")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
