"""The decision: how two nodes can meet, from their candidates and NAT kinds (rules S7, C5).

Pure functions. *Direct* means that one end can simply be sent to, *punch* that both must send
first, *relay* that no direct way can be expected. NAT words are RFC 4787's; that two ends behind
address-dependent mappings cannot be punched, and that a mapping which depends on the destination
cannot meet a filter which wants the exact port, follows from sections 4.1 and 5 there.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass

from ntmd.proto.messages import CandidateField, NatView
from ntmd.proto.private import is_private
from ntmd.proto.types import CandidateKind, NatFiltering, NatMapping

LOWEST_PORT = 1024
MAX_CANDIDATES = 16
MAPPINGS = tuple(NatMapping)
FILTERINGS = tuple(NatFiltering)

_HARD = (NatMapping.ADDRESS_DEPENDENT, NatMapping.ADDRESS_AND_PORT_DEPENDENT)
_OPEN = (NatFiltering.NONE, NatFiltering.ENDPOINT_INDEPENDENT)


UNTOLD = "mapping depends on the destination, filter on the port"
"""Why two ends are relayed that may yet meet: whether a NAT gives its ports in a row, so that the
next one can be foretold, only the end behind it knows."""


class Way(enum.IntEnum):
    """How two nodes can meet; smaller is better."""

    DIRECT = 1
    PUNCH = 2
    RELAY = 3


@dataclass(frozen=True, slots=True)
class Side:
    """One end: where it may be reached, and its NAT."""

    candidates: tuple[CandidateField, ...]
    nat: NatView

    @property
    def mapping(self) -> NatMapping:
        """RFC 4787 word; anything out of range counts as unknown."""
        return MAPPINGS[self.nat.mapping] if self.nat.mapping < len(MAPPINGS) else MAPPINGS[-1]

    @property
    def filtering(self) -> NatFiltering:
        """RFC 4787 word; anything out of range counts as unknown."""
        place = self.nat.filtering
        return FILTERINGS[place] if place < len(FILTERINGS) else FILTERINGS[-1]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to tell both ends. ``caller_candidates`` are what the *called* end is told.

    ``called_starts``: only a datagram of the called end can open the way, so it sends a Tunnel
    Request too. ``why`` is one constant for logs; ``relay``: one serves.
    """

    way: Way
    called_starts: bool
    why: str
    caller_candidates: tuple[CandidateField, ...]
    called_candidates: tuple[CandidateField, ...]
    relay: bool

    @property
    def relay_alone(self) -> bool:
        """Whether neither end is to try a direct way beside the relay."""
        return self.relay and self.way is Way.RELAY and self.why != UNTOLD


def decide(caller: Side, called: Side, *, relay: bool) -> Decision:
    """How they meet; ``relay``: a leg is granted at one that serves, for the first datagram.

    With a relay leg the called end need not start: the session over the leg tells both ends their
    true sources, and probes inside it open what can be opened.
    """
    near = same_network(caller, called)
    to_called, to_caller = _given(caller, near), _given(called, near)
    way, called_starts, why = _best(caller, called, near)
    if way is Way.RELAY and not relay:
        called_starts = True  # hopeless by the book; without a relay it is still the only chance
    return Decision(way, called_starts and not relay, why, to_called, to_caller, relay)


def sift(
    candidates: tuple[CandidateField, ...], virtual: ipaddress.IPv6Network
) -> tuple[CandidateField, ...]:
    """Candidates that may be handed on at all (rule S7): at most 16, none twice."""
    kept: dict[object, CandidateField] = {}
    for item in candidates:
        if _acceptable(item, virtual):
            kept.setdefault(item.endpoint, item)
    return tuple(kept.values())[:MAX_CANDIDATES]


def strangers(candidates: tuple[CandidateField, ...]) -> tuple[CandidateField, ...]:
    """What a node of another network may be told: never a private host address (rule S7)."""
    return tuple(item for item in candidates if not _private_host(item))


def same_network(one: Side, two: Side) -> bool:
    """Whether both show the same reflexive IPv4 address, so that they share a NAT."""
    shown = {item.endpoint.host for item in one.candidates if _reflexive(item)}
    return any(_reflexive(item) and item.endpoint.host in shown for item in two.candidates)


def _given(side: Side, near: bool) -> tuple[CandidateField, ...]:
    return side.candidates if near else strangers(side.candidates)


def _best(caller: Side, called: Side, near: bool) -> tuple[Way, bool, str]:
    if near:
        return Way.DIRECT, False, "same network"
    found: list[tuple[Way, bool, str]] = []
    families = _families(caller) & _families(called)
    if 6 in families:
        found.append((Way.PUNCH, False, "both IPv6"))
    if 4 in families:
        found.append(_ipv4(caller, called))
    if not found:
        return Way.RELAY, False, "families differ"
    return min(found, key=lambda each: each[0])


def _ipv4(caller: Side, called: Side) -> tuple[Way, bool, str]:
    caller_open, called_open = _open(caller), _open(called)
    if called_open:
        return Way.DIRECT, False, "called end is open"
    if caller_open:
        return Way.DIRECT, True, "caller is open"
    caller_hard, called_hard = caller.mapping in _HARD, called.mapping in _HARD
    if caller_hard and called_hard:
        if _lets_in(called, caller):
            return Way.PUNCH, False, "the called end's filter is open"
        if _lets_in(caller, called):
            return Way.PUNCH, True, "the caller's filter is open"
        return Way.RELAY, False, "both mappings depend on the destination"
    if not caller_hard and not called_hard:
        return Way.PUNCH, False, "both can be punched"
    soft = called if caller_hard else caller
    if soft.filtering is NatFiltering.ADDRESS_AND_PORT_DEPENDENT:
        return Way.RELAY, False, UNTOLD
    return Way.PUNCH, called_hard, "the end with the dependent mapping starts"


def _open(side: Side) -> bool:
    """Whether anybody may send to a candidate of this end, whoever it sent to before."""
    if any(_mapped(item) for item in side.candidates):
        return True
    return side.mapping not in _HARD and side.filtering in _OPEN


def _lets_in(one: Side, other: Side) -> bool:
    """Both mappings depend on the destination: ``one`` takes anything at the endpoint that we saw,
    and ``other`` takes the answer, which comes from another port of the same address."""
    exact = NatFiltering.ADDRESS_AND_PORT_DEPENDENT
    return one.filtering in _OPEN and other.filtering is not exact


def _families(side: Side) -> set[int]:
    """Families in which the end can be reached from another network; only asked for membership."""
    return {item.endpoint.family for item in side.candidates if not _private_host(item)}


def _reflexive(item: CandidateField) -> bool:
    kinds = (CandidateKind.REFLEXIVE, CandidateKind.MAPPED)
    return item.kind in kinds and item.endpoint.family == 4


def _mapped(item: CandidateField) -> bool:
    """A port that a router mapped, and no further NAT in front of that router."""
    return item.kind == CandidateKind.MAPPED and not _private_host(item)


def _private_host(item: CandidateField) -> bool:
    if item.kind not in (CandidateKind.HOST, CandidateKind.MAPPED):
        return False
    return is_private(item.endpoint.host)


def _acceptable(item: CandidateField, virtual: ipaddress.IPv6Network) -> bool:
    try:
        address = ipaddress.ip_address(item.endpoint.host)
    except ValueError:
        return False
    if item.endpoint.port < LOWEST_PORT or item.kind not in tuple(CandidateKind):
        return False
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return False
    if address.is_link_local:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not address.packed.startswith(b"\0") and address.packed != b"\xff" * 4
    return address not in virtual and address.ipv4_mapped is None
