"""Two figures as plain SVG: how long it was silent, and what survived. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tests.survival.ground import PATIENCE
from tests.survival.measure import quantile
from tests.survival.scenarios import SCENARIOS
from tests.survival.summary import NEVER, Cell, short

Table = dict[tuple[str, str], Cell]
COLOURS = ["#0b6e4f", "#c1440e", "#3d5a80", "#8a6d3b", "#7b2d8b", "#555555"]
STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#222}.t{font-size:17px;font-weight:600}"
    ".s{font-size:12px;fill:#666}.n{font-size:13px}"
)
LEFT, WIDTH, RIGHT = 250, 560, 90
LOW, HIGH = 5.0, PATIENCE * 1000  # ms, ends of the axis; "never" stands to the right of it
ZONES = [
    (100, "nobody notices", "#e8f5ee"),
    (1000, "a syllable is missing", "#fdf6e3"),
    (HIGH, "“hello? are you still there?”", "#fbe9e2"),
]


def svg(width: int, height: int, parts: Sequence[str]) -> str:
    """A whole drawing on white."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, kind: str = "n", anchor: str = "start") -> str:
    """One line of text."""
    where = f'x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"'
    return f"<text {where}>{escape(words)}</text>"


def place(value: float) -> float:
    """x of a time in ms on the logarithmic axis."""
    if value == NEVER or value > HIGH:
        return LEFT + WIDTH + RIGHT / 2
    share = math.log(max(value, LOW) / LOW) / math.log(HIGH / LOW)
    return LEFT + share * WIDTH


def lanes(table: Table, products: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    """Which (scenario, product) has something to show, in order."""
    return [
        (name, product)
        for name in names
        for product in products
        if (product, name) in table and table[product, name].datagram_gaps()
    ]


def gaps(table: Table, products: Sequence[str], names: Sequence[str]) -> str:
    """One dot for each repetition, one lane for each product, on a logarithmic axis."""
    shown = lanes(table, products, names)
    lane, top, block = 15, 118, 12
    parts, y, last = [], float(top), ""
    bottom = top + len(shown) * lane + (len({name for name, _ in shown}) + 1) * block
    parts.append(text(20, 30, "How long was it silent?", "t"))
    parts.append(
        text(20, 50, "Longest hole in a stream of datagrams after each event, every repetition a "
             "dot, the bar is the median; logarithmic.", "s")
    )  # fmt: skip
    x = 20.0
    for product, colour in zip(products, COLOURS, strict=False):
        parts.append(f'<circle cx="{x + 5}" cy="68" r="5" fill="{colour}"/>')
        parts.append(text(x + 15, 72, product))
        x += 34 + 7.5 * len(product)
    begin = place(LOW)
    for end, words, colour in ZONES:
        parts.append(
            f'<rect x="{begin:.1f}" y="{top - 14}" width="{place(end) - begin:.1f}" '
            f'height="{bottom - top + 14}" fill="{colour}"/>'
        )
        parts.append(text((begin + place(end)) / 2, top - 20, words, "s", "middle"))
        begin = place(end)
    parts.append(text(place(NEVER), top - 20, "never", "s", "middle"))
    for mark in (10, 100, 1000, 10_000):
        parts.append(
            f'<line x1="{place(mark):.1f}" x2="{place(mark):.1f}" y1="{top - 14}" y2="{bottom}" '
            'stroke="#bbb" stroke-dasharray="2 3"/>'
        )
        parts.append(text(place(mark), bottom + 16, short(mark), "s", "middle"))
    for name, product in shown:
        if name != last:
            y += block
            parts.append(text(LEFT - 12, y + 11, SCENARIOS[name].title, "n", "end"))
            last = name
        values = table[product, name].datagram_gaps()
        colour = COLOURS[products.index(product) % len(COLOURS)]
        middle = place(quantile(values, 0.5))
        parts.append(
            f'<rect x="{middle - 1.5:.1f}" y="{y + 1:.1f}" width="3" height="{lane - 3}" '
            f'fill="{colour}"/>'
        )
        for value in values:
            parts.append(
                f'<circle cx="{place(value):.1f}" cy="{y + 7:.1f}" r="3.6" fill="{colour}" '
                'fill-opacity=".45"/>'
            )
        y += lane
    return svg(LEFT + WIDTH + RIGHT, bottom + 30, parts)


def alive(table: Table, products: Sequence[str], names: Sequence[str]) -> str:
    """Scenario against product: the share of programs that survived."""
    cell_width, height, top = 120, 24, 92
    parts = [
        text(20, 30, "What survived?", "t"),
        text(20, 50, "Share of the programs that were still the same connection, whole and alive, "
             f"at most {PATIENCE:.0f} s later.", "s"),
    ]  # fmt: skip
    for column, product in enumerate(products):
        parts.append(text(LEFT + (column + 0.5) * cell_width, top - 10, product, "n", "middle"))
    for line, name in enumerate(names):
        y = top + line * height
        parts.append(text(LEFT - 12, y + 16, SCENARIOS[name].title, "n", "end"))
        for column, product in enumerate(products):
            cell = table.get((product, name))
            if cell is None:
                continue
            every = [p["survived"] for row in cell.rows for p in row["programs"].values()]
            share = sum(every) / len(every)
            x = LEFT + column * cell_width
            parts.append(
                f'<rect x="{x + 2}" y="{y + 1}" width="{cell_width - 4}" height="{height - 2}" '
                f'rx="3" fill="{shade(share)}"/>'
            )
            words = f"{sum(every)} of {len(every)}"
            parts.append(text(x + cell_width / 2, y + 16, words, "n", "middle"))
    return svg(
        LEFT + len(products) * cell_width + 30, top + len(names) * height + 20, parts
    )  # fmt: skip


def shade(share: float) -> str:
    """Green for all, through yellow, to red for none."""
    if share == 1:
        return "#bfe3cf"
    return f"hsl({int(share * 48)} 85% 82%)"
