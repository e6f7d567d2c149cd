"""The node: what it decides, as a core without clock, socket or file.

The life of a node
------------------
A node is built from its settings, its identity and what it kept from before. The watcher hands it
the underlay (:class:`~ntmd.node.inputs.NetworkChanged`); for each interface, family and address it
wants one own socket (:mod:`~ntmd.node.underlay`). As soon as one is open it calls its coordinator
on every way at once, and its home relays, which it knows from before (:mod:`~ntmd.node.uplink`).
It registers (:mod:`~ntmd.node.registration`), learns address, record and relays, wishes for the
TUN, and tests how the NAT in front of it maps and filters (:mod:`~ntmd.node.nat`). From then on it
keeps alive its coordinator and its home relays and nothing else (:mod:`~ntmd.node.keepalive`).

Nothing that works waits for a coordinator: a silent one makes the node *degraded*, no more.

The life of a tunnel
--------------------
A program asks for a name, or a packet waits for an address (:mod:`~ntmd.node.calls`). A peer known
from before is called at once; for any other the coordinator is asked, and it directs both ends
(:mod:`~ntmd.node.direction`), the called one first. What vouches for the peer is checked: its
certificate, its coordinator's record, and that neither contradicts what was known before
(:mod:`~ntmd.node.routes`). Tunnel Requests leave over the relay leg (:mod:`~ntmd.node.relays`) and
to every candidate at the same time. Whatever is answered first carries: the name is answered
(:mod:`~ntmd.node.names`), parked packets leave, every direct pair is challenged, and the best one
that answers takes over (:mod:`~ntmd.node.steering`, :mod:`~ntmd.node.path`).

While data flows, keys are replaced every two minutes beside the old ones, one-way flows are told
what arrived (:mod:`~ntmd.node.seen`), and a path that falls silent is doubted
(:mod:`~ntmd.node.doubt`): data goes out twice until one way answers; a link that shows no life
while another one does is left by the whole node (:mod:`~ntmd.node.links`). After two idle minutes
the tunnel sleeps; it costs nothing until a packet wakes it. All states and every legal step
between them are one table (:mod:`~ntmd.node.tunnel`).

While two links are up, the system's order says which one carries (:mod:`~ntmd.node.choice`); the
other is kept warm, and when the order changes, traffic goes over without loss
(:mod:`~ntmd.node.shift`). When a link is lost (:mod:`~ntmd.node.move`), new sockets open, the
relays are told first, then every peer over its relay leg and directly
(:mod:`~ntmd.node.announce`), then the coordinator; data leaves at once on the relay leg and
towards the peer's old endpoint. When the peer moves (:mod:`~ntmd.node.follow`), this node follows
at once, challenges the new source, and goes back if it does not answer. Both ends write the same
entry into their journals (:mod:`~ntmd.node.journal`).

Where to read on: :mod:`~ntmd.node.core` routes every input to one of these parts;
:mod:`~ntmd.node.receive` does the same for what the session engine reports.
"""
