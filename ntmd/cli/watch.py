"""``ntmd status --watch``: one quality line for each peer, again every second.

In a terminal the lines are drawn anew in place; elsewhere a line is printed when what it says has
changed, with its time of day.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from ntmd.cli import show

Answer = dict[str, Any]


class Watch:
    """Shows successive answers to ``status``."""

    def __init__(self, terminal: bool | None = None) -> None:
        self._terminal = sys.stdout.isatty() if terminal is None else terminal
        self._counted: dict[str, tuple[int, int]] = {}
        self._said: dict[str, tuple[Any, ...]] = {}

    def show(self, answer: Answer) -> None:
        """One more answer."""
        moves = {entry.get("peer"): entry for entry in answer.get("handovers") or []}
        peers = answer.get("peers") or []
        lines = [
            (str(peer.get("name")), self._key(peer, moves), self._line(peer, moves))
            for peer in peers
        ]
        if self._terminal:
            head = show.headline(answer)
            text = "\n".join([head, *(line for _, _, line in lines), *show.health(answer)])
            click.clear()
            click.echo(text)
            return
        state = (answer.get("state"), tuple(show.health(answer)))
        lines.insert(0, ("", state, "; ".join([show.headline(answer), *show.health(answer)])))
        now = time.strftime("%H:%M:%S")
        for name, key, line in lines:
            if self._said.get(name) != key:
                self._said[name] = key
                click.echo(f"{now} {line}")

    def _line(self, peer: Answer, moves: dict[Any, Answer]) -> str:
        entry = moves.get(peer.get("name"))
        return show.quality(peer, self._loss(peer), entry)

    def _loss(self, peer: Answer) -> float | None:
        """Share of what the peer sent since the last answer that did not come; None if nothing."""
        name = str(peer.get("name"))
        now = int(peer.get("rx_packets") or 0), int(peer.get("lost") or 0)
        before = self._counted.get(name, now)
        self._counted[name] = now
        came, lost = now[0] - before[0], now[1] - before[1]
        return lost / (came + lost) if came >= 0 and lost >= 0 and came + lost else None

    @staticmethod
    def _key(peer: Answer, moves: dict[Any, Answer]) -> tuple[Any, ...]:
        """What has to change for a line to be said again: no ages, no round trips."""
        warm = tuple(show.way(path) for path in peer.get("warm") or [])
        entry = moves.get(peer.get("name")) or {}
        move = entry.get("id"), entry.get("gap_ms") is None
        return peer.get("state"), show.way(peer.get("path") or {}), warm, move
