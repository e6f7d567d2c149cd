"""Every timer and limit of the protocol: seconds as float, bytes, counts, each with its reason.

First values come from the protocol rules named beside them; a change needs a measurement.
"""

from __future__ import annotations

# ------------------------------------------------------------------ exchange
LADDER = (0.05, 0.05, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Waits between copies of a handshake, probe or request: quick first, then doubling (3.25 s in
all); after the last rung it is on evidence only."""
UNPADDED_FROM_RUNG = 4  # from this copy on handshakes go unpadded, for paths under 1,228 (C8)
REPLY_CACHE = 30.0  # a repeated request gets the identical reply for this long
REQUEST_TIMEOUT = 6.0  # a request unanswered for this long has failed

# ------------------------------------------------------------------ handshake (C8, C10, C11)
HANDSHAKE_SIZE = 1200  # first contact: both messages padded to this UDP payload
REKEY_SIZE = 320  # rekeys carry hashes and are padded to this
HANDSHAKE_LIFETIME = 10.0  # an unanswered initiation is replaced by a fresh one
INITIATION_COPY_WINDOW = 10.0  # byte-identical copies get the byte-identical response
INITIATION_COPIES = 16
HALF_OPEN_TOTAL = 4096
HALF_OPEN_PER_KEY = 4
"""The newest are kept: a caller may still take the answer to any of its CALL_ATTEMPTS newest."""
CALL_ATTEMPTS = 3  # initiations of one call that may still be answered
SEQUENCE_STEP = 1 << 20  # high-water mark of initiation sequences is persisted in such steps
SEQUENCE_KEYS = 65_536  # greatest sequence per static key, least recently used leaves
COOKIE_SECRET_LIFETIME = 120.0
INITIATIONS_UNDER_LOAD = 200  # accepted per second before cookies are asked for
SIMULTANEOUS_OPEN = 10.0  # two sessions begun within this are settled by the smaller key (C12)

# ------------------------------------------------------------------ sessions (C1, S1)
REKEY_AFTER = 120.0  # age of the data key at which the initiator rekeys if data is being sent
REKEY_AFTER_RESPONDER = 150.0  # the other end, if it still sends
DATA_KEY_LIFETIME = 180.0  # neither sealed nor opened after this; erased
KEY_MARGIN = 5.0  # a data key this close to its end is not used again after a pause
CONTROL_KEY_LIFETIME = 24 * 3600.0  # without an authenticated answer
COUNTER_REKEY = 1 << 27
COUNTER_LIMIT = 1 << 28
FAILED_OPENS_LIMIT = 1 << 36
CONTROL_WINDOW = 1024
DATA_WINDOW = 8192
INDEX_QUARANTINE = 180.0  # an index or slot is not drawn again for this long (S3)
CLOSE_COPIES = (0.0, 0.05, 0.1)  # instants of the Close copies on down (N7)
PSK_DIRECTION_LIFETIME = 600.0
PSK_SPENT_LINGER = 10.0
PSK_RESUMPTION_LIFETIME = 30 * 86400.0

# ------------------------------------------------------------------ resets (S4)
RESETS_PER_SOURCE = 10  # per second
RESETS_TOTAL = 100  # per second
NOT_HELD_INTERVAL = 0.2  # a peer is told at most this often that its session is gone here

# ------------------------------------------------------------------ fragments (S5)
CONTROL_MESSAGE_MAX = 16_384
FRAGMENT_MIN = 512
FRAGMENTS_PER_MESSAGE = 32
FRAGMENTS_OPEN = 8
FRAGMENT_BYTES = 65_536
FRAGMENT_LIFETIME = 1.0
CONTROL_PAYLOAD = 1_100  # larger control plaintexts leave in fragments

# ------------------------------------------------------------------ paths (C6, C7, S6)
SILENCE_FLOOR = 0.2  # silence while sending: max(3 RTT, this) makes a path doubtful
PATH_SET = 8
SESSION_SOURCES = 4
AMPLIFICATION = 3
AMPLIFICATION_FLOOR = 8 * 1500
IMPLICIT_MOVE_QUIET = 2.0  # no implicit move this soon after an explicit one
REVERT_PAUSE = (10.0, 20.0, 40.0, 80.0, 160.0)
DOUBT_LADDER = (0.03, 0.03, 0.04, 0.05, 0.05, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Waits between challenges of a path that fell silent: closer than LADDER, for each one that stays
unanswered is evidence, and 20 % of loss each way takes eight of them."""
LINK_LOSS_LEAST = 0.02  # loss that is always reckoned with when silence is weighed
PATH_CHECK = 2.0  # the path that data leaves on is challenged when its last answer is this old
FADING_LOSS = 0.08
"""Loss of a flow from which on other ways are tried: far above what queues make, and there is time
left before a link that fades is silent."""
FADING_LATE = 0.4  # an answer after this (and 3 RTT of the best way) is as good as none
TRIAL_COPIES = 20  # challenges on each way that is compared: 7 lost against 1 are no chance
TRIAL_PACE = 0.05  # seconds between them: 60 bytes each, 5 kB/s
TRIAL_PAUSE = 2.5  # between trials that found nothing better, doubling
TRIAL_PAUSE_MAX = 80.0
FADING_BACK = 10.0
"""A link that lost is tried again after this, doubling while it loses and with each fall; in the
end six times an hour, 14 kB."""
FADING_BACK_MAX = 600.0
LINK_RETRY = 2.0  # a silent link is asked again at this distance at first,
LINK_PATIENCE = 8.0  # later after this part of the time that it has been silent for,
LINK_RETRY_MAX = 60.0  # and in the end once a minute: UDP may be blocked there for good
LINK_BACK = 6.0  # ... and is used again after answering for this long, doubling with each fall
DOUBT_SECONDS = 2.0
DOUBT_BYTES = 2_000_000  # that a node sends a second time, over all tunnels (N8)
DOUBT_RECOVERY = 20.0
"""Seconds until spent DOUBT_SECONDS and DOUBT_BYTES are whole again: in the long run a tenth of
the time and 100 kB/s are doubled, so that a link that copies made full becomes free again."""
DOUBT_PAUSE = 0.1  # the time between copies this far apart is not counted as doubling
REST_AFTER = 10.0
"""Data that did not flow for this long (RECENT_PEER) says nothing of the path any more: NATs forget
idle UDP after 30 s and may rebind at any time, so the next datagrams leave on the relay leg too."""
DIRECT_IDLE = 120.0  # an idle direct path lapses: the next packet leaves on the relay leg
PROMOTE_RATIO = 0.8  # a better path must be 20 % ...
PROMOTE_MARGIN = 0.010  # ... or 10 ms quicker; direct goes before relay
ROUTE_WAIT = 0.25
"""A link without a default route is used as it is after so long, seconds. A DHCP client sets the
route some milliseconds after the address; until then nothing reaches more than neighbours."""
STANDBY_FRESH = 30.0  # a spare link that answered this recently is moved to unasked
STANDBY_SOCKETS = SESSION_SOURCES - 1  # kept warm beside the one in use
MTU_SIZES = (1500, 1492, 1480, 1460, 1440, 1420, 1400, 1380, 1360, 1320, 1280)
"""IP packet sizes asked for at once where the link's own does not pass: PPPoE 1,492, tunnels over
IPv4 and 464XLAT 1,480, tunnels in tunnels below, IPv6's least 1,280 (S5)."""
MTU_CHECK = 1.0  # the size is checked this often while much leaves: 1.5 kB/s
MTU_BUSY = 20_000  # bytes since the last check that count as much
MTU_RAISE = 600.0  # a narrow path is asked again whether it became wider (RFC 4821, 7.7)
PREDICTED_PORTS = 4
"""Ports that a peer is told to try where a NAT counts: the one expected, and three more, for other
hosts may have taken some. Each costs the peer one ladder of 60-byte challenges."""
PREDICTION_SPREAD = 8  # ports further apart for each destination are not in a row
PREDICTION_DESTINATIONS = 512  # destinations whose order is remembered
KEEPALIVE_FIRST = 20.0
KEEPALIVE_MAX = 300.0
SEEN_INTERVAL = 0.1
MOVE_PADDING_ACTIVE = 1200
MOVE_PADDING_IDLE = 128
MOVE_BUDGET = 256_000  # bytes of all Moves of one event
RESCUES_AT_ONCE = 16  # silent tunnels that are called anew at the same instant, ...
RESCUE_PACE = 0.05  # ... the others so many seconds apart: 20 calls of some 10 kB a second
RECENT_PEER = 10.0  # a peer heard within this counts as active

# ------------------------------------------------------------------ registration, direction
REGISTRATION_LEASE = 600.0  # a node silent for this long is offline
REGISTRATION_REFRESH = 3600.0
"""Registered is the largest thing that an idle node hears (1.1 kB): its record, relays and domains
change rarely, and any sealed frame is a sign of life at the coordinator (S6). Up to a quarter more,
by chance, so that nodes that registered together do not stay together; never twice in an hour, of
which the budget is 30 kB."""
RECORD_LIFETIME = 7 * 86400.0
RECORD_RENEW = 86400.0
GRANT_LIFETIME = 7 * 86400.0
GRANT_RENEW = 86400.0
NAME_ANSWER_WITHIN = 4.5  # a held DNS question gets SERVFAIL then (resolvers ask again after 5 s)
DC_RECALL_RATE = 1000  # handshakes a second of a restarted DC towards its nodes
RS_RECALL_RATE = 150  # resets a second of a restarted relay to its nodes; each begins a handshake
CANDIDATE_COPIES = 8  # first-contact datagrams per candidate and call (S7)
DIRECTION_BYTES = 256_000  # per minute and directing DC (S7)

# ------------------------------------------------------------------ relay (C5)
LEGS_PER_NODE = 256
LEG_QUEUE = 4  # datagrams held for a pair not yet open at both ends
LEG_QUEUE_SECONDS = 1.0
RELAY_RTT_UNKNOWN = 100.0  # ms; counted for a relay that an end has not measured
RELAY_LOAD_MS_PER_MBIT = 0.05  # 200 Mbit/s weigh like 10 ms: a busy relay's queue is not free ...
RELAY_LOAD_MS_PER_LEG = 0.002  # ... and 5,000 idle legs too; nearly equal relays share by these
LEG_LINGER = 600.0
OLD_LEG = 10.0

# ------------------------------------------------------------------ TLS connections (S12)
STREAM_AFTER = 0.3  # UDP unanswered for this long (or 3 RTT): TLS is tried beside it
STREAM_SETUP = 10.0  # TCP, proxy and TLS handshake together
STREAM_QUEUE = 65_536  # bytes waiting for room in a connection; older data leaves first
STREAM_FRAME_MAX = 2_064  # the largest datagram: an inner packet of 2,032 (S1) and 32 of frame
STREAM_UNPROVEN = 5.0  # a connection without an authenticated frame is closed after this
STREAM_RETRY = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # pauses after connections that failed
STREAM_LINGER = 5.0  # a connection that nothing leaves on stays this long for what is under way
STREAMS_PER_SERVER = 4  # of a node to one server: one of each family on two links
STREAM_KEEPALIVE = 120.0  # NATs keep TCP for longer (RFC 5382 REQ-5), but a dead path must show
STREAM_CONNECTIONS = 1024  # of a server, all together
STREAM_PER_SOURCE = 64  # of one IPv4 address or IPv6 /64; many users may share one
UDP_AGAIN = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""While TLS carries, UDP is tried again after these pauses (then every 60 s: towards each server,
on each link and in each family one probe of 90 bytes, 5 kB an hour)."""

# ------------------------------------------------------------------ certificates (C9, S8)
NODE_CERTIFICATE = 14 * 86400.0
SERVER_CERTIFICATE = 30 * 86400.0
RENEW_FROM = 1 / 3
EXPIRY_GRACE = 14 * 86400.0
CLOCK_SLACK = 48 * 3600.0  # server certificates before the first authenticated time
CLOCK_COMPLAINT = 3600.0
SLEPT = 2.0  # boot clock ahead of the monotonic one by more: the machine slept
CLOCK_STEP = 1.0  # the wall clock was set by somebody if it moved by more against the boot clock

# ------------------------------------------------------------------ rehearsal (ntmd rehearse)
REHEARSAL_BEAT = 0.05  # a challenge to each peer this often: holes are seen to within it
REHEARSAL_BEFORE = 0.5  # whoever does not answer in this time before the block is left out
REHEARSAL_AFTER = 6.0  # a tunnel that does not come back in this time after the block is lost
REHEARSAL_LONGEST = 60.0  # a self-test, not a way to switch a link off
REHEARSAL_PEERS = 32  # so many tunnels at most take part, the busiest first

# ------------------------------------------------------------------ data plane
TUN_MTU = 1400  # fits PPPoE, 464XLAT and DS-Lite whole: docs/decisions/0031-tun-mtu.md
DATAGRAM_MAX = 1500
PARKED_PACKETS = 64  # per address
PARKED_PER_ADDRESS = 1 << 18  # bytes: four super-packets of 64 KiB
PARKED_BYTES = 1 << 22  # in all
PARKED_SECONDS = 5.0
PARKED_STREAM_SECONDS = 120.0
"""The newest packet of a TCP flow waits this long. A stream repeats itself at growing distances, up
to 120 s; so, whenever a way is found, one repetition of each is there and leaves at once."""
RESEND_TAIL = 4
"""Datagrams kept of the end of each run (S14). Four behind a hole are enough for a receiver to ask
for it (three duplicate acknowledgements); the stream's own retransmission does the rest."""
RESEND_LOOKS = (0.1, 0.25)
"""After an outage the peer is asked so long after the resend, and so long after that again, seconds
(S14). Not sooner: what it tells is up to ACTIVITY_INTERVAL old."""
ONE_OUTAGE = 1.0  # ways that fail within so many seconds of each other are one outage
RESEND_RUNS = 4  # newest runs kept of each inner flow: a keystroke, its repetition, an answer
RESEND_FLOWS = 512  # in all; the one that sent longest ago leaves
RESEND_BYTES = 1 << 20  # in all: 40 busy flows at 4 x 4 full datagrams, or all 512 of a few packets
STREAM_YOUNG = 5.0  # after a tunnel came to be, a stream's first segment wakes its local end
STREAM_WAKES = 8
"""Each undoes one doubling of a stream's waiting time (RFC 6069): after eight, 60 s have passed."""
PLANE_EVENTS = 4096  # queue of events to the core
ACTIVITY_INTERVAL = 0.1
NO_TUNNEL_INTERVAL = 0.25  # per address

assert REKEY_AFTER < REKEY_AFTER_RESPONDER < DATA_KEY_LIFETIME
assert sum(LADDER) < HANDSHAKE_LIFETIME
assert CALL_ATTEMPTS < HALF_OPEN_PER_KEY
assert GRANT_RENEW < GRANT_LIFETIME
assert RS_RECALL_RATE < INITIATIONS_UNDER_LOAD  # whom it tells need not ask for cookies
assert KEEPALIVE_MAX < REGISTRATION_LEASE  # signs of life come in time without Registration
assert REGISTRATION_REFRESH * 1.25 < RECORD_RENEW
assert RECORD_RENEW < RECORD_LIFETIME
