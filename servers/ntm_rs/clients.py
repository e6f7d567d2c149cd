"""Nodes at the relay: their sources, and the legs they open, move and close (rules C5 and C7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ntm_rs.legs import Holder, Leg, LegTable, Source
from ntm_rs.recall import Recall
from ntmd.proto import crypto, timing
from ntmd.proto import messages as m
from ntmd.proto.certs import Leaf
from ntmd.proto.errors import ProtocolError
from ntmd.proto.events import Established, MessageReceived
from ntmd.proto.frame import with_index
from ntmd.proto.io import SendDatagram
from ntmd.proto.records import Grant, check_grant
from ntmd.proto.session import SessionEngine
from ntmd.proto.types import Endpoint, Path


@dataclass(slots=True, eq=False)
class Client:
    """A node with a session: its association handle, name, the greatest LegMove sequence, and our
    index of the session in use."""

    handle: int
    name: str
    holder: Holder
    seq: int = 0
    index: int = 0


class Clients:
    """All nodes at this relay, by handle and by key hash."""

    def __init__(
        self,
        engine: SessionEngine,
        table: LegTable,
        recall: Recall,
        own_key_hash: bytes,
        platform_id: bytes,
        signers: Mapping[bytes, Leaf],
        *,
        random: Callable[[int], bytes],
        platform_ms: Callable[[float], int],
        emit: Callable[[SendDatagram], None],
        legs_per_node: int = timing.LEGS_PER_NODE,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._engine = engine
        self._table = table
        self._recall = recall
        self._own_key_hash = own_key_hash
        self._platform_id = platform_id
        self._signers = signers
        self._random = random
        self._platform_ms = platform_ms
        self._emit = emit
        self._legs_per_node = legs_per_node
        self._by_handle: dict[int, Client] = {}
        self._holders: dict[bytes, Holder] = {}
        # What a sweep looks at; never at all nodes, of which there may be tens of thousands.
        self._unproved: dict[int, Client] = {}  # their primary source was not validated yet
        self._lingering: dict[bytes, Holder] = {}  # their session ended, their legs wait

    def __len__(self) -> int:
        return len(self._by_handle)

    # -------------------------------------------------------------- sessions

    def established(self, event: Established, key: bytes, now: float) -> None:
        """A node's session is confirmed; a new association begins at its arrival path."""
        client = self._by_handle.get(event.handle)
        if client is None or event.first:
            key_hash = crypto.sha256(key)
            holder = self._holders.setdefault(key_hash, Holder(key_hash))
            self._table.suspend(holder, now + timing.LEG_LINGER)
            holder.sources.clear()
            holder.primary = holder.also = None
            if client is not None:
                client.holder.sessions -= 1
            holder.sessions += 1
            client = Client(event.handle, event.remote.leaf.name, holder)
            self._by_handle[event.handle] = client
            self._set_primary(client, event.path, 0, 0, now)
        client.index = event.session.own_index
        self._keep(client, now)

    def ended(self, handle: int, now: float) -> None:
        """The session is over: legs linger, so that the node may open them again."""
        client = self._by_handle.pop(handle, None)
        if client is None:
            return
        self._unproved.pop(handle, None)
        client.holder.sessions -= 1
        if client.holder.sessions:
            return
        self._recall.drop(client.holder.key_hash, now)
        client.holder.sources.clear()
        client.holder.primary = client.holder.also = None
        self._table.suspend(client.holder, now + timing.LEG_LINGER)
        if client.holder.legs:
            self._lingering[client.holder.key_hash] = client.holder
        else:
            self._lingering.pop(client.holder.key_hash, None)
            self._holders.pop(client.holder.key_hash, None)

    def sweep(self, now: float) -> None:
        """Forget legs that ran out, and holders without legs or session."""
        for index in self._table.sweep(now):
            self._engine.free_index(index, now)
        for handle, client in list(self._unproved.items()):
            primary = client.holder.primary
            if primary is None or primary.validated:
                del self._unproved[handle]
            elif now - primary.used < timing.OLD_LEG:
                self._challenge(client, primary, now)
        for key_hash, holder in list(self._lingering.items()):
            if holder.sessions or not holder.legs:
                del self._lingering[key_hash]
                if not holder.sessions:
                    del self._holders[key_hash]

    def heard(self, event: MessageReceived, size: int, now: float) -> None:
        """A control frame came by some path: know the source, challenge it until it answers.

        An Answer makes no source known. A node that speaks from more sources than are kept would
        otherwise be asked again for each answer of one that has just left, at the pace of the line.
        """
        client = self._by_handle.get(event.handle)
        if client is None:
            return
        known = (event.path.socket, event.path.remote) in client.holder.sources
        if not known and isinstance(event.message, m.Answer):
            return
        source = client.holder.source(event.path.socket, event.path.remote, event.path_id, now)
        if not source.validated:
            source.received += size
            if source.nonce == 0 or now - source.challenged >= timing.LADDER[0]:
                self._challenge(client, source, now)
        elif source is client.holder.primary:
            self._keep(client, now)

    def answered(self, event: MessageReceived, answer: m.Answer, now: float) -> None:
        """An Answer validates the source it came from, if it carries that source's challenge."""
        client = self._by_handle.get(event.handle)
        if client is None:
            return
        source = client.holder.sources.get((event.path.socket, event.path.remote))
        if source is not None and source.nonce and source.nonce == answer.nonce:
            source.validated = True
            self._keep(client, now)

    def sources(self, socket: int) -> frozenset[Endpoint]:
        """Where nodes in session are heard on one of our sockets."""
        holders = (client.holder for client in self._by_handle.values())
        return frozenset(at for each in holders for number, at in each.sources if number == socket)

    def drain(self, on: bool, now: float) -> None:
        """Tell every node that the relay is about to leave, or stays after all."""
        for handle in list(self._by_handle):
            self.tell_draining(handle, on, now)

    def tell_draining(self, handle: int, on: bool, now: float) -> None:
        """Tell one node; asked again until it answers, and nothing hangs on the answer."""
        self._engine.ask(handle, m.Draining(0, on), now)

    # -------------------------------------------------------------- legs

    def open(self, event: MessageReceived, request: m.LegOpen, now: float) -> m.LegOpened:
        """LegOpen: the grant decides; idempotent by (grant id, node)."""
        client = self._by_handle.get(event.handle)
        if client is None:
            return self._refused(event, request, m.Status.REFUSED, "no node session")
        try:
            grant = self._check(request.grant, client.holder.key_hash, now)
        except ProtocolError as error:
            self.counters[error.kind] += 1
            status = m.Status.EXPIRED if "expired" in error.kind else m.Status.REFUSED
            return self._refused(event, request, status, error.kind)
        leg = self._table.leg(grant.grant_id, client.holder)
        if leg is None:
            if len(client.holder.legs) >= self._legs_per_node:
                self.counters["too_many_legs"] += 1
                return self._refused(event, request, m.Status.TOO_MANY, "too many legs")
            leg = Leg(
                id=self._engine.draw_index(now),
                grant_id=grant.grant_id,
                holder=client.holder,
                delivery=request.delivery_index,
                expires=0.0,
                rate=grant.kbit_s * 125,
                filled=now,
            )
            self._table.add(leg)
        leg.delivery = request.delivery_index
        until = now + (grant.expires_ms - self._platform_ms(now)) / 1000
        leg.expires = max(leg.expires, until)  # an older grant may come after its renewal
        leg.rate = grant.kbit_s * 125
        leg.open, leg.closes = True, None
        self.counters["legs_opened"] += 1
        for way, data in self._table.release(leg, now):
            self._emit(SendDatagram(with_index(data, way.delivery), Path(way.socket, way.remote)))
        token = self._engine.reset_token(leg.id)
        return m.LegOpened(request.id, m.Status.OK, 0, leg.id, token, event.path.remote)

    def move(self, event: MessageReceived, request: m.LegMove, now: float) -> m.LegMoved:
        """LegMove: the greatest sequence wins; all legs follow at once, with fresh ids (S3)."""
        client = self._by_handle.get(event.handle)
        if client is None:
            return m.LegMoved(request.id, 0, event.path.remote)
        fresh: tuple[tuple[int, int], ...] = ()
        if request.seq > client.seq:
            elsewhere = self._set_primary(client, event.path, event.path_id, request.seq, now)
            if elsewhere:
                self._rename(client, now)
                self.counters["leg_moves"] += 1
        if request.seq == client.seq:
            fresh = _renamed(client)
        if request.seq == client.seq and request.also:
            self._duplicate(client, request, now)
        return m.LegMoved(request.id, client.seq, event.path.remote, fresh)

    def close(self, event: MessageReceived, request: m.LegClose, now: float) -> m.Done:
        """LegClose: forget the leg; closing an unknown one is done already."""
        client = self._by_handle.get(event.handle)
        leg = self._table.leg(request.grant_id, client.holder) if client else None
        if leg is not None:
            for index in self._table.remove(leg):
                self._engine.free_index(index, now)
        return m.Done(request.id, m.Status.OK)

    # -------------------------------------------------------------- parts

    def _check(self, data: bytes, node: bytes, now: float) -> Grant:
        """The grant, if a signer we know made it, for this relay and this node, and it holds."""
        grant = check_grant(data, self._platform_id, self._signers, self._platform_ms(now))
        if grant.rs_key_hash != self._own_key_hash:
            raise ProtocolError("grant_other_relay")
        if node not in (grant.node_a_hash, grant.node_b_hash):
            raise ProtocolError("grant_other_node")
        return grant

    def _refused(
        self, event: MessageReceived, request: m.LegOpen, status: m.Status, why: str
    ) -> m.LegOpened:
        self.counters["legs_refused"] += 1
        return m.LegOpened(request.id, status, 0, 0, b"", event.path.remote, why)

    def _set_primary(self, client: Client, path: Path, path_id: int, seq: int, now: float) -> bool:
        """Make ``path`` the node's primary source; returns whether it was another one before."""
        holder = client.holder
        before = holder.primary
        source = holder.source(path.socket, path.remote, path_id, now)
        holder.primary = source
        client.seq = seq
        self._engine.set_primary(client.handle, Path(path.socket, path.remote))
        if not source.validated:
            self._unproved[client.handle] = client
            self._challenge(client, source, now)
        self._keep(client, now)
        return before is not source

    def _keep(self, client: Client, now: float) -> None:
        """Write down where the node is, if that is known for certain."""
        primary = client.holder.primary
        if primary is not None and primary.validated:
            path = Path(primary.socket, primary.remote)
            self._recall.keep(client.holder.key_hash, client.index, path, now)

    def _challenge(self, client: Client, source: Source, now: float) -> None:
        """Ask the source to answer from where it is; copies carry one nonce, any may be lost."""
        source.nonce = source.nonce or int.from_bytes(self._random(8), "big") or 1
        source.challenged = now
        path = Path(source.socket, source.remote)
        self._engine.tell(client.handle, m.Probe(source.nonce), now, path)

    def _rename(self, client: Client, now: float) -> None:
        for leg in client.holder.legs.values():
            if leg.open:
                fresh = self._engine.draw_index(now)
                for index in self._table.rename(leg, fresh, now):
                    self._engine.free_index(index, now)

    def _duplicate(self, client: Client, request: m.LegMove, now: float) -> None:
        holder = client.holder
        for source in holder.sources.values():
            if source.path_id == request.also and source.validated:
                holder.also = source
                holder.also_until = now + min(request.for_ms / 1000, timing.DOUBT_SECONDS)


def _renamed(client: Client) -> tuple[tuple[int, int], ...]:
    """Every id that the node may still know, with the present one; latest moves first."""
    pairs = [
        (old, leg.id)
        for leg in client.holder.legs.values()
        if leg.open
        for old in reversed(leg.old)
    ]
    return tuple(pairs[: timing.LEGS_PER_NODE])
