"""Requests of the user: status, resolve, ping, netcheck, handovers, why, rehearse."""

from __future__ import annotations

from typing import Any

from ntmd.node.common import Common
from ntmd.node.journal import Journal
from ntmd.node.names import Names, Wait
from ntmd.node.probing import Prober, Proof
from ntmd.node.registration import Registration
from ntmd.node.rehearsal import Rehearsal
from ntmd.node.relays import Relays
from ntmd.node.status import Status
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Asleep
from ntmd.node.tunnels import Tunnel, Tunnels
from ntmd.node.why import Why
from ntmd.proto.certs import parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.io import UserAnswered, UserAsked
from ntmd.proto.messages import Status as Code
from ntmd.proto.timing import LADDER
from ntmd.proto.types import format_address

REFUSED, USAGE, UNREACHABLE = 1, 2, 4
RESOLVE_WITHIN = 8.0  # a person waits longer than a resolver, seconds
PING_LADDER = LADDER[:5]
WATCH = 1.0


class Asked:
    """Answers :class:`UserAsked`."""

    def __init__(
        self,
        common: Common,
        names: Names,
        tunnels: Tunnels,
        steering: Steering,
        prober: Prober,
        registration: Registration,
        relays: Relays,
        journal: Journal,
        status: Status,
        rehearsal: Rehearsal,
        explain: Why,
    ) -> None:
        self._common, self._names, self._tunnels = common, names, tunnels
        self._steering, self._prober, self._registration = steering, prober, registration
        self._relays, self._journal, self._status = relays, journal, status
        self._rehearsal, self._explain = rehearsal, explain
        self._pings: dict[int, None] = {}
        journal.followers.append(self._tell_followers)
        self._followers: list[int] = []

    def asked(self, event: UserAsked, now: float) -> None:
        """One request."""
        answers = {
            "status": self._status_asked,
            "resolve": self._resolve,
            "ping": self._ping,
            "netcheck": self._netcheck,
            "handovers": self._handovers,
            "why": self._why,
            "rehearse": self._rehearse,
            "cancel": self._cancel,
        }
        answer = answers.get(event.what)
        if answer is None:
            self._fail(event.token, f"the node knows no request {event.what!r}", USAGE)
        else:
            answer(event, now)

    def _answer(self, token: int, result: Any, last: bool = True) -> None:
        self._common.emit(UserAnswered(token, result, last))

    def _fail(self, token: int, error: str, code: int) -> None:
        self._common.emit(UserAnswered(token, None, True, error, code))

    def _cancel(self, event: UserAsked, now: float) -> None:
        """The client of request ``of`` hung up."""
        number = event.arguments.get("of", event.token)
        for name in ("watch", "ping"):
            self._common.timers.cancel((name, number))
        self._pings.pop(number, None)
        self._rehearsal.cancel(number)
        if number in self._followers:
            self._followers.remove(number)

    # -------------------------------------------------------------- simple ones

    def _status_asked(self, event: UserAsked, now: float) -> None:
        watch = bool(event.arguments.get("watch"))
        self._answer(event.token, self._status.whole(now), not watch)
        if watch:
            self._common.timers.set(
                ("watch", event.token), now + WATCH, lambda at: self._status_asked(event, at)
            )

    def _netcheck(self, event: UserAsked, now: float) -> None:
        for relay in self._relays.by_name.values():
            relay.uplink.challenge(now, lambda *_: None)
        self._common.timers.set(
            ("netcheck", event.token),
            now + sum(LADDER[:4]),
            lambda at: self._answer(event.token, self._status.netcheck(at)),
        )

    def _handovers(self, event: UserAsked, now: float) -> None:
        follow = bool(event.arguments.get("follow"))
        entries = [e.as_json() for e in self._journal.entries]
        self._answer(event.token, {"handovers": entries}, not follow)
        if follow:
            self._followers.append(event.token)

    def _tell_followers(self, entry: dict[str, Any]) -> None:
        for token in self._followers:
            self._answer(token, {"handovers": [entry]}, False)

    def _rehearse(self, event: UserAsked, now: float) -> None:
        token = event.token
        self._rehearsal.start(
            token,
            event.arguments,
            lambda result, last: self._answer(token, result, last),
            lambda error, code: self._fail(token, error, code),
            now,
        )

    # -------------------------------------------------------------- names

    def _name(self, event: UserAsked) -> str:
        return str(event.arguments.get("name", "")).rstrip(".").lower()

    def _resolve(self, event: UserAsked, now: float) -> None:
        name = self._name(event)

        def known(address: bytes, at: float) -> None:
            self._common.timers.cancel(("resolve", event.token))
            self._answer(event.token, self._voucher(name, address))

        self._when_known(event, name, known, now)

    def _when_known(self, event: UserAsked, name: str, known: Any, now: float) -> None:
        """Call ``known(address, now)`` once there is a way; complain if there is none in time."""
        done: list[bool] = []

        def late(at: float) -> None:
            unknown(Code.TRY_AGAIN, "no answer in time", at)

        def unknown(status: Code, text: str, at: float) -> None:
            if not done:
                done.append(True)
                self._common.timers.cancel(("resolve", event.token))
                code = REFUSED if status is Code.NO_SUCH_NAME else UNREACHABLE
                self._fail(event.token, _complaint(name, status, text), code)

        def reached(address: bytes, at: float) -> None:
            if not done:
                done.append(True)
                self._common.timers.cancel(("resolve", event.token))
                known(address, at)

        self._common.timers.set(("resolve", event.token), now + RESOLVE_WITHIN, late)
        self._names.wait(name, Wait(reached, unknown), now)

    def _voucher(self, name: str, address: bytes) -> dict[str, Any]:
        tunnel = self._tunnels.by_name(name)
        signer = tunnel.dc_sign if tunnel is not None else self._common.memory.dc_sign
        try:
            vouched = parse_leaf(signer).name if signer else ""
        except ProtocolError:
            vouched = ""
        text = f"the coordinator of its domain ({vouched})" if vouched else None
        return {"name": name, "address": format_address(address), "vouched_by": text}

    # -------------------------------------------------------------- ping

    def _ping(self, event: UserAsked, now: float) -> None:
        name = self._name(event)
        if name == self._common.identity.name:
            text = f"{name} is this node itself. Give the name of another node."
            self._fail(event.token, text, REFUSED)
            return
        self._pings[event.token] = None
        self._when_known(event, name, lambda _, at: self._one_ping(event, name, 1, at), now)

    def _one_ping(self, event: UserAsked, name: str, seq: int, now: float) -> None:
        tunnel = self._tunnels.by_name(name)
        path = tunnel.paths.primary if tunnel is not None else None
        if tunnel is None or tunnel.handle is None or path is None:
            self._answered(event, name, seq, {"seq": seq, "error": "no way at present"}, now)
            return

        def won(proof: Proof, at: float) -> None:
            self._steering.on_proof(tunnel, proof, at)
            self._answered(event, name, seq, self._ping_line(tunnel, seq, proof), at)

        def lost(at: float) -> None:
            self._answered(event, name, seq, {"seq": seq, "error": "no answer"}, at)

        self._prober.start(
            tunnel.handle, path, now, won, lost=lost, ladder=PING_LADDER, purpose="ping"
        )
        tunnel.busy_at = now
        if path.relayed and isinstance(tunnel.state, Asleep):
            self._steering.explore(tunnel, now)

    def _ping_line(self, tunnel: Tunnel, seq: int, proof: Proof) -> dict[str, Any]:
        return {
            "seq": seq,
            "time_ms": round(proof.rtt * 1000, 2),
            "path": self._status.path(tunnel, proof.path),
        }

    def _answered(
        self, event: UserAsked, name: str, seq: int, line: dict[str, Any], now: float
    ) -> None:
        if event.token not in self._pings:
            return  # the client hung up
        count = _number(event.arguments.get("count"), 4)
        interval = max(0.05, _number(event.arguments.get("interval"), 1.0))
        direct = line.get("path", {}).get("kind") == "direct"
        last = bool(count and seq >= count) or bool(event.arguments.get("until_direct") and direct)
        self._answer(event.token, line, last)
        if last:
            del self._pings[event.token]
        else:
            self._common.timers.set(
                ("ping", event.token),
                now + interval,
                lambda at: self._one_ping(event, name, seq + 1, at),
            )

    # -------------------------------------------------------------- why

    def _why(self, event: UserAsked, now: float) -> None:
        name = self._name(event)
        tunnel = self._tunnels.by_name(name)
        refusal = self._names.refusals.get(name)
        if tunnel is None and refusal is not None:
            self._answer(event.token, self._explain.refused(name, refusal, now))
            return
        if tunnel is None:
            text = f"nothing is known of {name}: no program asked for it since this node is up."
            self._fail(event.token, f"{text} Try `ntmd ping {name}`.", REFUSED)
            return
        self._answer(event.token, self._explain.explain(tunnel, now))


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _complaint(name: str, status: Code, text: str) -> str:
    """What happened, what it means, what to do."""
    why = f" ({text})" if text else ""
    if status is Code.NO_SUCH_NAME:
        return f"there is no node named {name}{why}. Check the name; names are full ones."
    if status is Code.COORDINATOR_UNREACHABLE:
        return (
            f"no way to {name}: a coordinator does not answer{why}. It was never met before, so"
            " only the coordinators could say where it is. Try again; see `ntmd status`."
        )
    return f"no way to {name}: it is not reachable now{why}. Look whether it is up, then try again."
