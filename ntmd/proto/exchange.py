"""Request and reply: the retransmission ladder, matching, and the cache of replies.

A request is retransmitted on the ladder, each copy sealed anew; a repeated request gets the reply
that the first one got, without a word to the owner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ntmd.proto import timing
from ntmd.proto.association import Asked, Association
from ntmd.proto.codec import encode, encode_greased
from ntmd.proto.context import Context
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import MessageReceived, Replied, RequestFailed
from ntmd.proto.messages import Reply, Request
from ntmd.proto.types import Path

ANSWERED_KEPT = 256  # requests of one peer that are remembered at once


class Exchange:
    """Requests of ours and of peers. ``send`` seals an encoded message and puts it out."""

    def __init__(
        self, context: Context, send: Callable[[Association, bytes, Path | None], None]
    ) -> None:
        self._context = context
        self._send = send
        self._kept: deque[tuple[float, dict[int, bytes | None], int]] = deque()

    # -------------------------------------------------------------- ours

    def ask(
        self,
        association: Association,
        request: Request,
        path: Path | None,
        timeout: float,
        now: float,
    ) -> int:
        """Send a request and repeat it until it is answered; queued until there is a session."""
        number = association.next_request
        association.next_request = number % 0xFFFF_FFFF + 1
        request = replace(request, id=number)
        asked = Asked(request, encode_greased(request), path, now + timeout)
        association.asked[number] = asked
        if association.current is not None:
            asked.started = True
            self._step(association, number, asked, now)
        else:
            self._context.at(asked.expires, self._expired, association, number, asked)
        return number

    def begun(self, association: Association, now: float) -> None:
        """There is a session: send what was queued."""
        for number, asked in list(association.asked.items()):
            if not asked.started:
                asked.started = True
                self._step(association, number, asked, now)

    def _step(self, association: Association, number: int, asked: Asked, now: float) -> None:
        if association.asked.get(number) is not asked:
            return
        if now >= asked.expires:
            self._expired(association, number, asked, now)
            return
        due = asked.expires
        if asked.rung <= len(timing.LADDER):
            self._send(association, asked.body, asked.path)
            if asked.rung < len(timing.LADDER):
                due = min(due, now + timing.LADDER[asked.rung])
            asked.rung += 1
        self._context.at(due, self._step, association, number, asked)

    def _expired(self, association: Association, number: int, asked: Asked, now: float) -> None:
        if association.asked.get(number) is asked:
            del association.asked[number]
            self._context.emit(RequestFailed(association.handle, number, "timeout"))

    def replied(self, association: Association, reply: Any) -> None:
        """A reply came; only the first to a request that waits counts."""
        if association.asked.pop(reply.id, None) is None:
            raise ProtocolError("unmatched_reply")
        self._context.emit(Replied(association.handle, reply.id, reply))

    # -------------------------------------------------------------- the peer's

    def repeated(self, association: Association, request: Any, path: Path, now: float) -> bool:
        """Whether a request was seen before; if it was answered, the same answer leaves again."""
        self._forget_old(now)
        answered = association.answered
        if request.id in answered:
            reply = answered[request.id]
            self._context.counters["repeated_request"] += 1
            if reply is not None:
                self._send(association, reply, path)
            return True
        if len(answered) >= ANSWERED_KEPT:
            del answered[next(iter(answered))]
        answered[request.id] = None
        self._kept.append((now + timing.REPLY_CACHE, answered, request.id))
        return False

    def reply(self, association: Association, received: MessageReceived, reply: Reply) -> None:
        """Answer a request where it came from, and keep the answer for repetitions."""
        body = encode(reply)
        request_id = getattr(received.message, "id", None)
        if request_id in association.answered:
            association.answered[request_id] = body
        self._send(association, body, received.path)

    def _forget_old(self, now: float) -> None:
        kept = self._kept
        while kept and kept[0][0] <= now:
            _, answered, number = kept.popleft()
            answered.pop(number, None)
