"""The other domains' coordinators: who speaks for a name, and is it really he (rule C3).

Three sources say where a coordinator is: the DNS (SRV, addresses, key hint), the account server's
directory (certificates), and what is stored: where one was reached, or else what was listed. None
is believed before a handshake there has succeeded and the certificate in it names the very domain
that was asked for.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ntm_dc.common import Common
from ntm_dc.kept import UNREADABLE, endpoints_of
from ntm_dc.values import DirectoryEntry, DomainResolved, DomainTarget, LookupDomain
from ntmd.proto.certs import Leaf, in_domain, is_name
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import CallFailed, Established
from ntmd.proto.io import Store
from ntmd.proto.types import Endpoint, Peer, Role

STORE_PREFIX = "domain/"
STAGGER = 0.4  # a coordinator that does not answer gets company after this, seconds
GIVE_UP = 3.4  # below what the asking node waits
FRESH = 300.0  # a domain's coordinator found this recently is used without asking the DNS
SUFFIXES = 5
REACHED_KEPT = 4096

Reached = Callable[[int | None, str, float], None]
"""Called with the coordinator's association, or None and why there is none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who may speak for a domain."""

    peer: Peer
    endpoints: tuple[Endpoint, ...]
    origin: str


@dataclass(slots=True, eq=False)
class Search:
    """One name (or domain) being reached. ``calls`` are the associations begun for it."""

    name: str
    domain: str = ""
    done: list[Reached] = field(default_factory=list)
    untried: list[Candidate] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    failed: int = 0
    why: str = ""
    over: bool = False


class Interdomain:
    """Reaches coordinators of other domains."""

    def __init__(self, common: Common, stored: Mapping[str, bytes]) -> None:
        self._common = common
        self._directory: dict[str, list[Candidate]] = {}
        self._known: dict[str, Candidate] = {}
        self._reached: dict[str, tuple[int, float]] = {}
        self._searches: dict[str, Search] = {}
        self._tokens: dict[int, Search] = {}
        self._token = 0
        self._prefixes: dict[bytes, str] = {}
        for key in sorted(stored):
            if key.startswith(STORE_PREFIX):
                self._load(key.removeprefix(STORE_PREFIX), stored[key])

    # -------------------------------------------------------------- what is known

    def domains(self) -> tuple[str, ...]:
        """All other domains that we know of."""
        return tuple(dict.fromkeys((*self._directory, *self._known)))

    def directory(self, entries: tuple[DirectoryEntry, ...], now: float) -> None:
        """The account server's list of coordinators; entries that do not verify are left out."""
        found: dict[str, list[Candidate]] = {}
        for entry in entries:
            try:
                leaf = self._common.verified(entry.certificate, Role.DC, None, now)
            except ProtocolError as error:
                self._common.refuse(error)
                continue
            if leaf.domain != self._common.settings.domain:
                candidate = Candidate(leaf_peer(leaf), entry.endpoints, "directory")
                found.setdefault(leaf.domain, []).append(candidate)
                if self._is_new_prefix(leaf):
                    self._store(leaf, self._known.get(leaf.domain, candidate))
        self._directory = found

    def domain_of_address(self, address: bytes) -> str | None:
        """Whose prefix a virtual address lies in, by the certificates seen so far."""
        return self._prefixes.get(address[:8])

    def longest(self, name: str) -> str:
        """The longest domain we know of that ``name`` lies in, or an empty string."""
        found = [domain for domain in self.domains() if in_domain(name, domain)]
        return max(found, key=len, default="")

    # -------------------------------------------------------------- reaching

    def reach(self, name: str, done: Reached, now: float) -> None:
        """Find and call the coordinator that speaks for ``name``, an FQDN or ``*.<domain>``."""
        parent = name.partition(".")[2]
        handle = self._fresh(parent, now)
        if handle is not None:
            done(handle, "", now)
            return
        search = self._searches.get(parent)
        if search is not None:
            search.done.append(done)
            return
        search = self._searches[parent] = Search(name)
        search.done.append(done)
        self._token += 1
        self._tokens[self._token] = search
        self._common.emit(LookupDomain(self._token, self._suffixes(name)))
        self._common.at(now + STAGGER, lambda at: self._silent(search, at))
        self._common.at(now + GIVE_UP, lambda at: self._give_up(search, at))

    def resolved(self, event: DomainResolved, now: float) -> None:
        """The DNS answered a lookup, or could not be asked."""
        search = self._tokens.pop(event.token, None)
        if search is None or search.over:
            return
        domain = event.domain
        if event.targets and not in_domain(search.name, domain):
            self._common.counters["dns_foreign_answer"] += 1
            domain, event = "", DomainResolved(event.token, "", (), "foreign answer")
        if not event.targets:
            search.why = event.error or "no such domain"
            domain = self.longest(search.name)
        if search.domain and search.domain != domain and domain:
            search.calls.clear()  # the DNS knows a longer suffix than we had begun with
        search.domain = domain or search.domain
        if not search.domain:
            self._finish(search, None, now)
            return
        search.untried = self._candidates(search.domain, event.targets)
        self._next(search, now)

    def established(self, event: Established, now: float) -> None:
        """A coordinator's session is confirmed: remember where, and serve who waits for it."""
        leaf = event.remote.leaf
        self._common.engine.set_primary(event.handle, event.path)
        self._remember(leaf, event)
        for search in list(self._searches.values()):
            if event.handle not in search.calls:
                continue
            if leaf.domain == search.domain:
                self._finish(search, event.handle, now)
            else:
                self._common.counters["dc_other_domain"] += 1
                search.failed += 1
                search.calls.remove(event.handle)
                self._next(search, now)

    def failed(self, event: CallFailed, now: float) -> None:
        """A call was not answered, or by somebody whose certificate does not hold."""
        for search in list(self._searches.values()):
            if event.handle in search.calls:
                search.calls.remove(event.handle)
                search.failed += 1
                if event.reason != "silence":
                    self._common.counters["dc_refused"] += 1
                self._next(search, now)

    def ended(self, handle: int) -> None:
        """A coordinator's session is over."""
        for parent, (known, _) in list(self._reached.items()):
            if known == handle:
                del self._reached[parent]

    # -------------------------------------------------------------- parts

    def _fresh(self, parent: str, now: float) -> int | None:
        handle, until = self._reached.get(parent, (0, -1.0))
        if now < until and self._common.engine.established(handle):
            return handle
        return None

    def _suffixes(self, name: str) -> tuple[str, ...]:
        """Domains to ask for, longest first; below our own domain only longer ones than it."""
        labels = name.split(".")[1:]
        suffixes = [".".join(labels[at:]) for at in range(len(labels))]
        own = self._common.settings.domain
        if in_domain(name, own):
            suffixes = [suffix for suffix in suffixes if in_domain(suffix, own)]
        return tuple(suffixes[:SUFFIXES])

    def _candidates(self, domain: str, targets: tuple[DomainTarget, ...]) -> list[Candidate]:
        """Who may speak for the domain, the likeliest first; endpoints of one key together."""
        listed = self._directory.get(domain, [])
        keys = {candidate.peer.name: candidate.peer.key for candidate in listed}
        known = self._known.get(domain)
        if known is not None:
            keys.setdefault(known.peer.name, known.peer.key)
        offers: list[Candidate] = []
        for target in targets:
            key = target.key or keys.get(target.name, b"")
            if len(key) == 32 and is_name(target.name):
                offers.append(Candidate(Peer(Role.DC, target.name, key), target.endpoints, "dns"))
            if target.name in keys and keys[target.name] != key:
                peer = Peer(Role.DC, target.name, keys[target.name])
                offers.append(Candidate(peer, target.endpoints, "dns"))
        offers.extend([known] if known is not None else [])
        offers.extend(listed)
        trusted = {candidate.peer for candidate in (*listed, *([known] if known else []))}
        offers.sort(key=lambda each: each.peer not in trusted)
        merged: dict[Peer, Candidate] = {}
        for offer in offers:
            before = merged.get(offer.peer, Candidate(offer.peer, (), offer.origin))
            endpoints = tuple(dict.fromkeys((*before.endpoints, *offer.endpoints)))[:8]
            merged[offer.peer] = Candidate(offer.peer, endpoints, before.origin)
        return [candidate for candidate in merged.values() if candidate.endpoints]

    def _next(self, search: Search, now: float) -> None:
        """Call the next candidate; without one, and with none under way, it is over."""
        if search.over:
            return
        while search.untried:
            candidate = search.untried.pop(0)
            own = self._common.path_to
            paths = [path for path in map(own, candidate.endpoints) if path is not None]
            if not paths or candidate.peer.key == self._common.own_key:
                continue
            engine = self._common.engine
            handle = engine.handle_of(candidate.peer.key)
            if handle is not None and engine.established(handle):
                remote = engine.remote(handle)
                if remote is not None and remote.leaf.domain == search.domain:
                    self._finish(search, handle, now)
                    return
            search.calls.append(engine.call(candidate.peer, paths, now))
            self._common.at(now + STAGGER, lambda at: self._next(search, at))
            return
        if not search.calls and search not in self._tokens.values():
            search.why = search.why or "its coordinator does not answer"
            self._finish(search, None, now)

    def _is_new_prefix(self, leaf: Leaf) -> bool:
        """Remember whose prefix it is; whether that was not known yet."""
        if leaf.prefix is None:
            return False
        place = leaf.prefix.network_address.packed[:8]
        before, self._prefixes[place] = self._prefixes.get(place), leaf.domain
        return before != leaf.domain

    def _silent(self, search: Search, now: float) -> None:
        """The DNS is slow: begin with what is known already."""
        if search.over or search.domain or search not in self._tokens.values():
            return
        domain = self.longest(search.name)
        if domain:
            search.domain = domain
            search.untried = self._candidates(domain, ())
            self._next(search, now)

    def _give_up(self, search: Search, now: float) -> None:
        if not search.over:
            unheard = search in self._tokens.values()
            search.why = search.why or (
                "the DNS does not answer" if unheard else "its coordinator does not answer"
            )
            self._finish(search, None, now)

    def _finish(self, search: Search, handle: int | None, now: float) -> None:
        search.over = True
        parent = search.name.partition(".")[2]
        self._searches.pop(parent, None)
        for token in [t for t, each in self._tokens.items() if each is search]:
            del self._tokens[token]
        if handle is not None:
            self._reached.pop(parent, None)
            self._reached[parent] = (handle, now + FRESH)
            if len(self._reached) > REACHED_KEPT:
                del self._reached[next(iter(self._reached))]
        else:
            self._common.counters["domain_unreachable"] += 1
        for done in search.done:
            done(handle, search.why, now)

    def _remember(self, leaf: Leaf, event: Established) -> None:
        """Where a handshake succeeded: first choice from now on, and kept over a restart."""
        new = self._is_new_prefix(leaf)
        before = self._known.get(leaf.domain)
        rest = before.endpoints if before and before.peer.key == leaf.key else ()
        if before is not None and rest and not event.initiator:
            known = before  # they called us: their source may be behind a translation
        else:
            endpoints = tuple(dict.fromkeys((event.path.remote, *rest)))[:4]
            known = Candidate(leaf_peer(leaf), endpoints, "known")
        if new or known != before:
            self._known[leaf.domain] = known
            self._store(leaf, known)

    def _store(self, leaf: Leaf, candidate: Candidate) -> None:
        """Keep over a restart whom to call for the certificate's domain, and its prefix."""
        value = {
            "name": candidate.peer.name,
            "key": candidate.peer.key.hex(),
            "endpoints": [list(endpoint) for endpoint in candidate.endpoints],
            "prefix": leaf.prefix and str(leaf.prefix),
        }
        self._common.emit(Store(STORE_PREFIX + leaf.domain, json.dumps(value).encode()))

    def _load(self, domain: str, value: bytes) -> None:
        try:
            kept = json.loads(value)
            peer = Peer(Role.DC, str(kept["name"]), bytes.fromhex(kept["key"]))
            if len(peer.key) != 32 or not is_name(peer.name):
                raise ValueError("neither a coordinator's name nor its key")
            endpoints = endpoints_of(kept["endpoints"])
            if kept.get("prefix") is not None:
                prefix = ipaddress.IPv6Network(kept["prefix"])
                self._prefixes[prefix.network_address.packed[:8]] = domain
        except UNREADABLE:
            self._common.counters["stored_refused"] += 1
            return
        self._known[domain] = Candidate(peer, endpoints, "known")


def leaf_peer(leaf: Leaf) -> Peer:
    """Whom to shake hands with, from a certificate."""
    return Peer(leaf.role, leaf.name, leaf.key)
