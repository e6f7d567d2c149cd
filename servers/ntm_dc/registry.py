"""The nodes of the domain: lasting virtual addresses, keys, records, whereabouts (rules C2, C7).

An address is drawn once for a name and never given to another; it survives new keys. It is told to
the node only when it is durable: :meth:`Registry.durable` says whether it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ntm_dc.common import Common
from ntm_dc.values import ForgetNode, StoredNode, StoreNode
from ntmd.proto import timing
from ntmd.proto.certs import Leaf, in_domain, parse_leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.messages import CandidateField, NatView
from ntmd.proto.records import Record, sign_record
from ntmd.proto.types import Endpoint, Path, Role

FIRST_HOST = 1 << 16  # host ids below are left for the platform's own services
STORE_INTERVAL = 240.0  # a node that only refreshes is written no more often than this
NOT_BEFORE_SLACK_MS = 300_000  # a record holds a little before it was made: clocks differ


@dataclass(slots=True, eq=False)
class Node:
    """A node of the domain. ``handle`` is its association while it has a session.

    ``sources`` are the (socket, endpoint) pairs it was heard from, with the nonce of the challenge
    under way or 0 once answered; ``primary`` is where directions go; ``seq`` the greatest Move.
    ``relay_rtts`` are the relays it keeps warm, with round trips in ms; forgotten at a restart.
    """

    name: str
    address: bytes
    leaf: Leaf | None = None
    record: bytes = b""
    capabilities: int = 0
    handle: int | None = None
    online: bool = False
    candidates: tuple[CandidateField, ...] = ()
    nat: NatView = NatView()  # noqa: RUF009 - frozen
    home_relay: str = ""
    relay_rtts: dict[str, int] = field(default_factory=dict)
    last_seen: float = -1e9
    last_seen_ms: int = 0
    primary: Path | None = None
    seq: int = 0
    sources: dict[tuple[int, Endpoint], int] = field(default_factory=dict)
    stored_at: float = -1e9
    stored: StoredNode | None = None
    signed: tuple[bytes, int] = (b"", 0)  # key and capabilities in the record
    issued: float = -1e18

    @property
    def key(self) -> bytes:
        """Static X25519 key of the last session, empty if there never was one."""
        return self.leaf.key if self.leaf is not None else b""


class Registry:
    """All nodes by name, address and association."""

    def __init__(self, common: Common, stored: Iterable[StoredNode], now: float) -> None:
        self._common = common
        self._by_name: dict[str, Node] = {}
        self._by_address: dict[bytes, Node] = {}
        self._by_handle: dict[int, Node] = {}
        self._undurable: dict[str, None] = {}
        for entry in stored:
            self._load(entry, now)

    def __len__(self) -> int:
        return len(self._by_name)

    def nodes(self) -> list[Node]:
        """All nodes, in the order in which they came."""
        return list(self._by_name.values())

    def by_name(self, name: str) -> Node | None:
        """The node with this FQDN."""
        return self._by_name.get(name)

    def by_address(self, address: bytes) -> Node | None:
        """The node with this virtual address."""
        return self._by_address.get(address)

    def by_handle(self, handle: int) -> Node | None:
        """The node behind an association."""
        return self._by_handle.get(handle)

    def alive(self, node: Node, now: float) -> bool:
        """Whether the node can be told something now."""
        return (
            node.handle is not None
            and node.online
            and bool(node.record)
            and now - node.last_seen < timing.REGISTRATION_LEASE
            and self._common.engine.established(node.handle)
        )

    # -------------------------------------------------------------- admission

    def acceptable(self, leaf: Leaf) -> str:
        """Why a node's certificate cannot be served here, or an empty string.

        Of two keys of one name the one with the newer certificate counts.
        """
        domain = self._common.settings.domain
        if leaf.role is not Role.NODE:
            return "certificate_role"
        if leaf.domain != domain or not in_domain(leaf.name, domain):
            return "other_domain"
        known = self._by_name.get(leaf.name)
        if known is None or known.leaf is None or known.leaf.key == leaf.key:
            return ""
        if known.leaf.not_after_ms < self._common.platform_ms(known.last_seen):
            return ""
        return "" if leaf.not_before_ms >= known.leaf.not_before_ms else "older_certificate"

    def established(self, leaf: Leaf, handle: int, now: float) -> tuple[Node, int | None]:
        """A node's session is confirmed. Returns the node and the handle of a key it replaced."""
        node = self._by_name.get(leaf.name)
        if node is None:
            node = Node(leaf.name, self._draw_address())
            self._by_name[leaf.name] = self._by_address[node.address] = node
            self._undurable[leaf.name] = None
        replaced = None
        if node.handle is not None and node.handle != handle:
            replaced = node.handle
            self._by_handle.pop(node.handle, None)
        node.leaf, node.handle = leaf, handle
        self._by_handle[handle] = node
        self.seen(node, now)
        return node, replaced

    def ended(self, handle: int, now: float) -> Node | None:
        """The session is over."""
        node = self._by_handle.pop(handle, None)
        if node is not None:
            node.handle, node.online = None, False
            self.store(node, now)
        return node

    def forget(self, name: str) -> Node | None:
        """The node was removed from the platform. Its address is not given out again in this run,
        and not by chance later: host ids are 64 random bits."""
        node = self._by_name.pop(name, None)
        if node is not None:
            if node.handle is not None:
                self._by_handle.pop(node.handle, None)
            self._undurable.pop(name, None)
            self._common.emit(ForgetNode(name))
        return node

    def seen(self, node: Node, now: float) -> None:
        """Something authenticated came from the node; cheap, called for every frame."""
        node.last_seen = now
        node.online = True

    # -------------------------------------------------------------- durability

    def durable(self, node: Node) -> bool:
        """Whether the node's address would survive a power cut."""
        return node.name not in self._undurable

    def now_durable(self, names: Iterable[str]) -> None:
        """The shell has written these."""
        for name in names:
            self._undurable.pop(name, None)

    def store(self, node: Node, now: float, *, lazily: bool = False) -> bool:
        """Have the node written if anything changed that a restart needs (``lazily``: not for the
        time of the last word alone). Returns whether a command left."""
        if lazily and now - node.stored_at < STORE_INTERVAL and not self._moved(node):
            return False
        node.last_seen_ms = self._common.platform_ms(max(node.last_seen, 0.0))
        primary = node.primary
        entry = StoredNode(
            node.name,
            node.address,
            node.key,
            node.leaf.der if node.leaf else b"",
            node.record,
            primary.socket if primary else 0,
            primary.remote if primary else None,
            node.last_seen_ms,
            node.home_relay,
            node.online,
        )
        if entry == node.stored:
            return False
        node.stored, node.stored_at = entry, now
        self._common.emit(StoreNode(entry))
        return True

    def _moved(self, node: Node) -> bool:
        kept, primary = node.stored, node.primary
        if kept is None or kept.key != node.key or kept.record != node.record:
            return True
        where = (primary.socket, primary.remote) if primary else (0, None)
        changed = kept.online != node.online or kept.home_relay != node.home_relay
        return changed or where != (kept.socket, kept.endpoint)

    # -------------------------------------------------------------- records

    def record(self, node: Node, capabilities: int, now: float) -> bytes:
        """The node's signed record, made anew daily and when key or capabilities change (C2)."""
        wanted = (node.key, capabilities)
        age = now - node.issued
        if node.signed != wanted or not node.record or age >= timing.RECORD_RENEW:
            common = self._common
            issued = common.platform_ms(now)
            node.record = sign_record(
                common.sign_private,
                common.platform_id,
                node.name,
                address=node.address,
                node_key=node.key,
                capabilities=capabilities,
                issued_ms=issued - NOT_BEFORE_SLACK_MS,
                expires_ms=issued + int(timing.RECORD_LIFETIME * 1000),
            )
            node.signed, node.issued, node.capabilities = wanted, now, capabilities
        return node.record

    # -------------------------------------------------------------- parts

    def _load(self, entry: StoredNode, now: float) -> None:
        """Take a stored row; one that contradicts what we are is counted and left alone."""
        address_ok = len(entry.address) == 16 and entry.address[:8] == self._prefix()
        if not address_ok or entry.address in self._by_address:
            self._common.counters["stored_refused"] += 1
            self._common.tell("warning", "stored node refused", name=entry.name)
            return
        leaf: Leaf | None = None
        try:
            leaf = parse_leaf(entry.certificate) if entry.certificate else None
        except ProtocolError as error:
            self._common.refuse(error)
        node = Node(entry.name, entry.address, leaf, home_relay=entry.home_relay)
        node.last_seen_ms = entry.last_seen_ms
        node.last_seen = now - max(0, self._common.platform_ms(now) - entry.last_seen_ms) / 1000
        node.stored, node.stored_at = entry, now  # written again when it has moved, or in its turn
        node.online = False
        if entry.endpoint is not None and entry.socket in self._common.sockets:
            node.primary = Path(entry.socket, entry.endpoint)
        self._keep_record(node, entry.record, now)
        self._by_name[node.name] = self._by_address[node.address] = node

    def _keep_record(self, node: Node, data: bytes, now: float) -> None:
        try:
            record = Record.unpack(data)
        except ProtocolError:
            return
        age = (self._common.platform_ms(now) - record.issued_ms) / 1000
        node.record, node.capabilities = data, record.capabilities
        node.signed, node.issued = (node.key, record.capabilities), now - age

    def _prefix(self) -> bytes:
        return self._common.prefix.network_address.packed[:8]

    def _draw_address(self) -> bytes:
        while True:
            host = self._common.random(8)
            address = self._prefix() + host
            if int.from_bytes(host, "big") >= FIRST_HOST and address not in self._by_address:
                return address
