"""Answers of the daemon as text for people. Missing fields show as a dash, never as an error."""

from __future__ import annotations

import json
from typing import Any

import click

Answer = dict[str, Any]
DASH = "-"


def dump(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False))


def headline(answer: Answer) -> str:
    """Name, address and state of this node."""
    node = answer.get("self") or {}
    return f"{node.get('name') or DASH}  {node.get('address') or DASH}  {answer.get('state', DASH)}"


def health(answer: Answer) -> list[str]:
    """What is not as it should be."""
    return [
        f"{item.get('severity', 'note')}: {item.get('text', item.get('code'))}"
        for item in answer.get("health") or []
    ]


def quality(peer: Answer, loss: float | None, move: Answer | None) -> str:
    """One line: where data goes and since when, how well, what is warm, the last move."""
    path = peer.get("path") or {}
    since = peer.get("path_since_s")
    where = way(path) + ("" if since is None else f" for {age(since)}")
    lost = "no traffic" if loss is None else f"loss {loss:.1%}"
    warm = ", ".join(_warm(each) for each in peer.get("warm") or []) or "nothing"
    text = (
        f"{peer.get('name', DASH)} {peer.get('state', DASH)}: {where}; {milliseconds(path)},"
        f" {lost}; warm: {warm}"
    )
    if move is None:
        return f"{text}; never moved"
    gap = move.get("gap_ms")
    shown = DASH if gap is None else f"{gap:.0f} ms"
    return (
        f"{text}; last move {_clock(move.get('at'))}: {move.get('cause', DASH)},"
        f" gap {shown}, lost {_count(move.get('lost'))}"
    )


def _warm(path: Answer) -> str:
    return f"{way(path)} via {path.get('interface')}" if path.get("kind") == "relay" else way(path)


def _clock(at: Any) -> str:
    """The time of day of an instant such as 2026-01-01T12:00:00.000Z."""
    text = str(at or DASH)
    return text.partition("T")[2].partition(".")[0] or text


def status(answer: Answer) -> str:
    """The whole status on about a screen."""
    node = answer.get("self") or {}
    lines = [
        headline(answer),
        f"  interface {node.get('interface', DASH)}, MTU {node.get('mtu', DASH)}, "
        f"plane {node.get('plane', DASH)}, up {age(node.get('uptime_s'))}",
    ]
    lines += _coordinator(answer.get("coordinator") or {})
    lines += _section("underlay", [_underlay(item) for item in answer.get("underlay") or []])
    lines += _section("relays", [_relay(item) for item in answer.get("relays") or []])
    peers: list[str] = []
    for item in answer.get("peers") or []:
        peers += _peer(item)
    lines += _section("peers", peers)
    lines += _section("last moves", [handover(h) for h in (answer.get("handovers") or [])[-3:]])
    names = answer.get("dns") or {}
    if names:
        lines.append(
            f"names: {names.get('mode', DASH)}, {', '.join(names.get('domains') or []) or DASH} "
            f"at {names.get('address') or DASH}"
        )
    drops = {key: n for key, n in (answer.get("drops") or {}).items() if n}
    if drops:
        lines.append("dropped: " + ", ".join(f"{key} {n}" for key, n in sorted(drops.items())))
    return "\n".join(lines + health(answer))


def _section(title: str, rows: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {row}" for row in rows)] if rows else []


def _coordinator(item: Answer) -> list[str]:
    if not item:
        return []
    reach = "answers" if item.get("reachable") else "does not answer"
    seen = item.get("last_seen_s")
    heard = "not heard yet" if seen is None else f"last heard {age(seen)} ago"
    return [
        f"coordinator: {item.get('domain', DASH)} at {item.get('endpoint', DASH)}"
        f"{_over(item)} {reach}, {heard}"
    ]


def _underlay(item: Answer) -> str:
    return (
        f"{item.get('interface', DASH)} {item.get('address', DASH)} seen as "
        f"{item.get('reflexive') or DASH}, mapping {item.get('mapping', 'unknown')}, "
        f"filtering {item.get('filtering', 'unknown')}"
        + (", UDP blocked" if item.get("udp") == "blocked" else "")
        + (", metered" if item.get("metered") else "")
        + ("" if item.get("usable", True) else " (not usable)")
    )


def _relay(item: Answer) -> str:
    where = f"{item.get('endpoint', DASH)}{_over(item)}"
    return f"{item.get('name', DASH)} {where} {milliseconds(item)}"


def _peer(item: Answer) -> list[str]:
    path = item.get("path") or {}
    first = f"{item.get('name', DASH)}  {item.get('address', DASH)}  {item.get('state', DASH)}"
    second = (
        f"  {way(path)} {milliseconds(path)}, sent {size(item.get('tx_bytes'))}, "
        f"received {size(item.get('rx_bytes'))}, heard {age(item.get('last_rx_s'))} ago"
    )
    return [first, second]


def way(path: Answer) -> str:
    """A path in words: ``direct via eth0 203.0.113.7:4330`` or ``relay rs1``."""
    kind = path.get("kind", "none")
    if kind == "direct":
        return f"direct via {path.get('interface', DASH)} {path.get('remote', DASH)}"
    if kind == "relay":
        return f"relay {path.get('relay') or DASH}{_over(path)}"
    return "no path"


def _over(item: Answer) -> str:
    return " over TLS" if item.get("transport") == "tls" else ""


def ping(name: str, answer: Answer) -> str:
    """One line of ``ntmd ping``."""
    number = answer.get("seq", DASH)
    if answer.get("time_ms") is None:
        return f"{name}: seq={number} {answer.get('error') or 'no answer'}"
    return f"{name}: seq={number} {ping_way(answer)} time={answer['time_ms']:.1f} ms"


def ping_way(answer: Answer) -> str:
    """The way that a ping's answer took."""
    return str(answer.get("way") or way(answer.get("path") or answer))


def resolve(answer: Answer) -> str:
    """Address, name and voucher."""
    head = f"{answer.get('name', DASH)} {answer.get('address', DASH)}"
    vouched = answer.get("vouched_by") or answer.get("signer")
    return head + (f"\n  vouched for by {vouched}" if vouched else "")


def netcheck(answer: Answer) -> str:
    """A paragraph per interface."""
    lines = []
    for item in answer.get("underlay") or answer.get("interfaces") or []:
        lines.append(_underlay(item))
        families = item.get("families")
        if families:
            lines.append(f"  families: {', '.join(f'IPv{family}' for family in families)}")
        if item.get("udp"):
            lines.append(f"  UDP: {item['udp']}")
    lines += _section("relays", [_relay(item) for item in answer.get("relays") or []])
    return "\n".join(lines) or "no underlay interface is usable"


def handover(entry: Answer) -> str:
    """One move on one line."""
    gap = entry.get("gap_ms")
    shown = DASH if gap is None else f"{gap:.0f} ms"
    return (
        f"{entry.get('at', DASH)} {entry.get('peer', DASH)}: {entry.get('cause', DASH)}; "
        f"{entry.get('from', DASH)} -> {entry.get('to', DASH)}; gap {shown}, "
        f"lost {_count(entry.get('lost'))}, duplicated {_count(entry.get('duplicated'))}"
    )


def handover_in_full(entry: Answer) -> str:
    """One move with all that both ends noticed."""
    end = "this end" if entry.get("own") else "the peer"
    lines = [
        handover(entry),
        f"  {entry.get('id', DASH)}: {end} moved; evidence: {entry.get('evidence') or DASH};"
        f" decision: {entry.get('decision') or DASH}",
        f"  first datagram out {_ms(entry.get('first_out_ms'))},"
        f" in {_ms(entry.get('first_in_ms'))};"
        f" gap in {_ms(entry.get('gap_in_ms'))}, out {_ms(entry.get('gap_out_ms'))};"
        f" lost in {_count(entry.get('lost'))}, out {_count(entry.get('lost_out'))}",
    ]
    if entry.get("notes"):
        lines.append(f"  noted: {', '.join(entry['notes'])}")
    return "\n".join(lines)


def _ms(value: Any) -> str:
    return DASH if value is None else f"{value:.0f} ms"


def rehearsal_phase(answer: Answer) -> str:
    """Progress of ``ntmd rehearse``; empty for its result."""
    link, peers = answer.get("interface", DASH), len(answer.get("peers") or [])
    match answer.get("phase"):
        case "listening":
            return f"  listening whether {_count_of(peers, 'peer')} answer"
        case "blocked":
            return f"  {link} is blocked for {answer.get('seconds', 0):.0f} s, for ntmd alone"
        case "unblocked":
            return f"  {link} is free again"
    return ""


def _count_of(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def rehearsal(answer: Answer) -> str:
    """What survived, a line or two for each peer."""
    others = ", ".join(answer.get("other_links") or []) or "none"
    lines = [
        f"{answer.get('interface', DASH)} was silent for {answer.get('seconds', 0):.0f} s;"
        f" other links: {others}"
    ]
    for peer in answer.get("peers") or []:
        gap = peer.get("gap_ms")
        lines.append(
            f"{peer.get('peer', DASH)}: {peer.get('verdict', DASH)};"
            f" gap {DASH if gap is None else f'{gap:.0f} ms'},"
            f" lost {_count(peer.get('lost'))} of {_count(peer.get('sent'))}"
        )
        lines.append(
            f"  {peer.get('before', DASH)} -> {peer.get('during', DASH)}"
            f" -> {peer.get('after', DASH)}"
        )
    return "\n".join(lines)


def why(answer: Answer) -> str:
    """The chain of facts."""
    lines = [f"{answer.get('name', DASH)}: {way(answer.get('path') or {})}"]
    for fact in answer.get("facts") or []:
        if not isinstance(fact, dict):
            lines.append(f"  {fact}")
            continue
        evidence = f" [{fact['evidence']}]" if fact.get("evidence") else ""
        old = f" ({age(fact['age_s'])} ago)" if fact.get("age_s") is not None else ""
        lines.append(f"  {fact.get('text') or fact.get('fact', DASH)}{old}{evidence}")
    advice = answer.get("advice") or answer.get("do")
    for item in advice if isinstance(advice, list) else [advice] if advice else []:
        lines.append(f"  you could: {item}")
    return "\n".join(lines)


def _count(value: Any) -> str:
    return DASH if value is None else str(value)


def milliseconds(item: Answer) -> str:
    """The round trip of a path or relay."""
    value = item.get("rtt_ms")
    return "rtt -" if value is None else f"rtt {value:.1f} ms"


def age(seconds: Any) -> str:
    """A duration as a person says it."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: Any) -> str:
    """Bytes with a unit."""
    if count is None:
        return DASH
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable: the last unit always returns")
