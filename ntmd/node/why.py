"""``ntmd why NAME``: why the path to a peer is what it is, as a chain of facts.

Each fact says how old it is and what it rests on; the last ones draw the conclusion, and what the
user could do follows. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ntmd.node.common import Common
from ntmd.node.journal import Journal
from ntmd.node.names import Refusal
from ntmd.node.nat import NatFacts
from ntmd.node.registration import Registration
from ntmd.node.relays import Relays
from ntmd.node.status import Status
from ntmd.node.steering import Steering
from ntmd.node.tunnel import Failed, word
from ntmd.node.tunnels import Tunnel
from ntmd.node.underlay import Underlay
from ntmd.proto.certs import parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.messages import NatView
from ntmd.proto.messages import Status as Code
from ntmd.proto.records import parse_record
from ntmd.proto.timing import LADDER
from ntmd.proto.types import NatFiltering, NatMapping

YOUNG = sum(LADDER) + 1.0  # a direct way that is tried for less has not failed yet, seconds
PORT_PER_DESTINATION = (NatMapping.ADDRESS_DEPENDENT, NatMapping.ADDRESS_AND_PORT_DEPENDENT)
OPEN_FILTERS = (
    NatFiltering.NONE,
    NatFiltering.ENDPOINT_INDEPENDENT,
    NatFiltering.ADDRESS_DEPENDENT,
)
PSK_WORDS = {
    "none": "certificates alone: they had met before",
    "direction": "certificates and the coordinator's key for this pair",
    "resumption": "certificates and a key left by an earlier session",
}

Fact = dict[str, Any]


def fact(text: str, age: float | None = None, evidence: str = "") -> Fact:
    """One fact; ``age`` in seconds."""
    found: Fact = {"text": text}
    if age is not None:
        found["age_s"] = round(max(0.0, age), 1)
    if evidence:
        found["evidence"] = evidence
    return found


class Why:
    """Collects what the parts know of one peer."""

    def __init__(
        self,
        common: Common,
        underlay: Underlay,
        registration: Registration,
        relays: Relays,
        steering: Steering,
        journal: Journal,
        status: Status,
    ) -> None:
        self._common, self._underlay, self._registration = common, underlay, registration
        self._relays, self._steering = relays, steering
        self._journal, self._status = journal, status

    def explain(self, tunnel: Tunnel, now: float) -> dict[str, Any]:
        """The answer for a peer that is known."""
        conclusion, advice = self._conclusion(tunnel, now)
        parts: tuple[Callable[[Tunnel, float], list[Fact]], ...] = (
            self._present,
            lambda _, at: self.here(at),
            self._there,
            self._decision,
            self._tried,
            self._identity,
            self._moves,
        )
        facts = [each for part in parts for each in part(tunnel, now)]
        return {
            "name": tunnel.peer.name,
            "path": self._status.path(tunnel, tunnel.paths.primary),
            "facts": [*facts, fact(conclusion)],
            "advice": advice,
        }

    def refused(self, name: str, refusal: Refusal, now: float) -> dict[str, Any]:
        """The answer for a name to which there never was a way."""
        words = refusal.text or refusal.status.name.lower().replace("_", " ")
        advice = {
            Code.NO_SUCH_NAME: "check the name; names are full ones",
            Code.COORDINATOR_UNREACHABLE: "try again; only a coordinator knows the way to who was"
            " never met",
        }
        last = fact(f"the last question for {name} failed: {words}", now - refusal.at)
        return {
            "name": name,
            "path": {"kind": "none"},
            "facts": [*self.here(now), last],
            "advice": [advice.get(refusal.status, f"look whether {name} is up, then try again")],
        }

    # -------------------------------------------------------------- facts

    def _present(self, tunnel: Tunnel, now: float) -> list[Fact]:
        state, session = tunnel.state, tunnel.session()
        found = [fact(f"the tunnel is {word(state)}", now - state.since)]
        if isinstance(state, Failed) and state.reason:
            found.append(fact(f"the last call failed: {state.reason}", now - state.since))
        primary = tunnel.paths.primary
        if primary is not None:
            proven = tunnel.paths.proven.get(primary)
            rtt = tunnel.paths.rtt(primary)
            took = f"a sealed challenge came back after {rtt * 1000:.0f} ms" if rtt else ""
            where = self._steering.describe(primary)
            found.append(fact(f"data goes {where}", now - proven.at if proven else None, took))
        if session is not None:
            how = PSK_WORDS.get(tunnel.psk_used, tunnel.psk_used or "certificates")
            found.append(fact("the present keys were agreed", now - session.born, how))
        return found

    def here(self, now: float) -> list[Fact]:
        """This end: each link, and whether the coordinator answers."""
        found = []
        for row in self._status.netcheck(now)["underlay"]:
            seen = row["reflexive"] or "nothing"
            text = f"here, {row['interface']} (IPv{row['families'][0]}) {row['address']}"
            nat = f"mapping {row['mapping']}, filtering {row['filtering']}"
            evidence = f"{nat}, UDP {row['udp']}"
            found.append(fact(f"{text} is seen as {seen}", None, evidence))
        if not found:
            found.append(fact("here, no link has an address that could carry a tunnel"))
        uplink = self._registration.uplink
        heard = None if uplink.last_heard is None else now - uplink.last_heard
        words = "answers" if uplink.up else "does not answer"
        found.append(fact(f"the coordinator {words}", heard, "last sealed frame from it"))
        return found

    def _there(self, tunnel: Tunnel, now: float) -> list[Fact]:
        families = sorted({endpoint.family for endpoint in tunnel.candidates})
        names = " and ".join(f"IPv{family}" for family in families) or "no address"
        found = [fact(f"there, {names} in {_many(len(tunnel.candidates), 'candidate')}")]
        directed = tunnel.directed
        if directed is not None:
            mapping, filtering = nat_words(directed.nat)
            text = f"there, the NAT's mapping is {mapping.value}, its filtering {filtering.value}"
            if mapping is NatMapping.UNKNOWN:
                text = "there, the NAT had not been measured"
            found.append(fact(text, now - directed.at, "told by the coordinator with the way"))
        return found

    def _decision(self, tunnel: Tunnel, now: float) -> list[Fact]:
        found = []
        directed = tunnel.directed
        if directed is not None:
            who = "this end" if directed.starts else "the peer"
            alone = ", and the relay alone" if tunnel.relay_only else ""
            text = f"the coordinator chose: {who} calls{alone}"
            relays = ", ".join(directed.relays) or "none"
            found.append(fact(text, now - directed.at, f"its direction; relays granted: {relays}"))
        else:
            text = "no coordinator was asked since this node is up"
            found.append(fact(text, None, "the peer is known from before"))
        for relay, path in self._relays.ways_to(tunnel.peer.key, tunnel.home_relay):
            home = " (the peer's home relay)" if relay == tunnel.home_relay else ""
            found.append(fact(f"a leg at relay {relay}{home} is open", None, f"leg {path.leg}"))
        return found

    def _tried(self, tunnel: Tunnel, now: float) -> list[Fact]:
        found = []
        if tunnel.foretold:
            ports = ", ".join(map(str, tunnel.foretold))
            text = f"the NAT here gives ports in a row, so the peer was told to try {ports}"
            found.append(fact(text, None, "a prediction, from ports that servers saw"))
        for path, tried in tunnel.paths.tried.items():
            if path.relayed:
                continue
            proven = tunnel.paths.proven.get(path)
            kind = tunnel.candidates.get(path.remote)
            state = tunnel.paths.validity(path).name.lower()
            where = f"{path.remote} from {self._underlay.interface(path.socket) or 'a past link'}"
            label = f" ({kind.name.lower()})" if kind is not None else ""
            if proven is not None:
                text, age = f"{where}{label}: answered", now - proven.at
                evidence = f"{state}, rtt {proven.rtt * 1000:.0f} ms"
            else:
                text, age = f"{where}{label}: never answered a challenge", now - tried.last
                times = f"tried {_many(tried.times, 'time')}"
                evidence = f"{state}, {times}, first {now - tried.first:.0f} s ago"
            found.append(fact(text, age, evidence))
        return found

    def _identity(self, tunnel: Tunnel, now: float) -> list[Fact]:
        found = []
        now_ms = self._common.clock(now)
        try:
            record, leaf = parse_record(tunnel.record), parse_leaf(tunnel.certificate)
        except ProtocolError:
            return [fact("no signed record of the peer is kept")]
        left = (record.expires_ms - now_ms) / 3_600_000
        good = f"good for {left:.0f} h more" if left > 0 else "expired"
        signed = "signed by the coordinator of its domain"
        found.append(
            fact(f"the peer's record is {good}", (now_ms - record.issued_ms) / 1000, signed)
        )
        days = (leaf.not_after_ms - now_ms) / 86_400_000
        if days < 3:
            words = f"expires in {days * 24:.0f} h" if days > 0 else "has expired"
            found.append(fact(f"the peer's certificate {words}"))
        return found

    def _moves(self, tunnel: Tunnel, now: float) -> list[Fact]:
        mine = [e for e in self._journal.entries if e.peer == tunnel.peer.name]
        if not mine:
            return []
        entry = mine[-1]
        return [
            fact(
                f"the last move went to {entry.after}", now - entry.started, f"cause: {entry.cause}"
            )
        ]

    # -------------------------------------------------------------- the conclusion

    def _conclusion(self, tunnel: Tunnel, now: float) -> tuple[str, list[str]]:
        """What the facts come to, and what the user could do."""
        primary, name = tunnel.paths.primary, tunnel.peer.name
        if primary is None:
            return "so there is no way at present", [
                f"look whether {name} is up (`ntmd status` there)"
            ]
        if not primary.relayed:
            return "so it goes direct, by the best way that answered", []
        if self._underlay.streams.has(primary.socket):
            link = self._underlay.interface(primary.socket)
            return f"so it goes over the relay, and over TLS: nothing answers over UDP on {link}", [
                "a network that lets UDP pass would allow a direct path; it is tried every minute"
            ]
        ways = self._underlay.ways(tuple(tunnel.candidates))
        if tunnel.candidates and not ways:
            return self._no_common_family(tunnel)
        here = self._registration.nat.facts.get(primary.socket, NatFacts())
        there = nat_words(tunnel.directed.nat if tunnel.directed else NatView())
        text, advice = verdict((here.mapping, here.filtering), there, name)
        if tunnel.relay_only:
            return self._decided(text, advice)
        tried = [tunnel.paths.tried[w] for w in ways if w in tunnel.paths.tried]
        if not tried or now - max(each.first for each in tried) < YOUNG:
            return "so it goes over the relay while direct ways are still being tried", [
                f"wait a moment, or watch `ntmd ping {name} --until-direct`"
            ]
        return f"so it goes over the relay: {text}", advice

    def _decided(self, text: str, advice: list[str]) -> tuple[str, list[str]]:
        """The coordinator wants the relay alone: by the NATs, or for reasons of its own."""
        decided = "so it goes over the relay, as the coordinator decided"
        if "another port" in text:
            return f"{decided}: {text}", advice
        domain = self._common.home.domain
        return decided, [f"ask the operator of {domain} why this pair may not go direct"]

    def _no_common_family(self, tunnel: Tunnel) -> tuple[str, list[str]]:
        here = {s.network.family for s in self._underlay.usable()}
        text = "so it goes over the relay: the two ends have no address family in common"
        lacking = "IPv6" if 6 not in here else "IPv4"
        return text, [
            f"get {lacking} here, or the other family at {tunnel.peer.name}, for a direct path"
        ]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def nat_words(view: NatView) -> tuple[NatMapping, NatFiltering]:
    """What a peer said of its NAT; positions that are unknown here are unknown."""
    mappings, filterings = list(NatMapping), list(NatFiltering)
    mapping = mappings[view.mapping] if view.mapping < len(mappings) else NatMapping.UNKNOWN
    filtering = (
        filterings[view.filtering] if view.filtering < len(filterings) else NatFiltering.UNKNOWN
    )
    return mapping, filtering


def verdict(
    here: tuple[NatMapping, NatFiltering], there: tuple[NatMapping, NatFiltering], peer: str
) -> tuple[str, list[str]]:
    """Why no direct way answers, by what RFC 4787 lets two such NATs do, and what would help."""
    ends = (("here", *here), (f"at {peer}", *there))
    shifty = [place for place, mapping, _ in ends if mapping in PORT_PER_DESTINATION]
    unknown = [place for place, mapping, _ in ends if mapping is NatMapping.UNKNOWN]
    open_end = any(
        filtering in OPEN_FILTERS and mapping not in PORT_PER_DESTINATION
        for _, mapping, filtering in ends
    )
    if shifty and not open_end:
        where = " and ".join(shifty)
        other = "the other end lets nothing in that it had not sent to before"
        if len(shifty) == 1 and unknown:
            other = f"the NAT {unknown[0]} could not be measured"
        elif len(shifty) == 2:
            other = "so neither can be told where to send"
        text = f"the NAT {where} gives every destination another port, and {other}"
        return text, [
            f"a router {shifty[0]} that keeps one port for all destinations, a forwarded UDP port,"
            " or IPv6 at both ends would allow a direct path"
        ]
    if unknown:
        text = f"no direct way answered, and the NAT {' and '.join(unknown)} could not be measured"
        return text, ["`ntmd netcheck` measures again; it needs a coordinator with two addresses"]
    text = "no direct way answered, although two such NATs would allow one"
    return text, [
        "look for a firewall that drops UDP at either end; `ntmd netcheck` says what passes"
    ]
