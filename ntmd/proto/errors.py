"""How protocol code says that a peer broke a rule.

Parsers raise :class:`ProtocolError`; it is caught in one place (the session engine, or a server's
shell), counted under ``kind``, logged at debug and the datagram is dropped. Our own mistakes are
ordinary exceptions and crash a test.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """The peer broke a rule. ``kind`` is the name of the counter it moves."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail
