"""Whether a path works: five states, and what moves a path between them.

Only evidence does. :data:`TRANSITIONS` is complete (each state, each piece of evidence), and
``docs/protocol.md`` draws its diagram from it. Two things can be read off it: a path is good only
by a sealed answer, and what anybody could forge (an ICMP error, a refused datagram) raises doubt
and never ends a path (rule N5).
"""

from __future__ import annotations

import enum


class Validity(enum.Enum):
    """What is known of a path."""

    UNKNOWN = "nothing, or nothing that still counts"
    PROBING = "it is being asked, and has not answered yet"
    GOOD = "a sealed challenge on it was answered"
    DOUBTFUL = "it was good, and something speaks against it"
    DEAD = "what was asked on it stayed without an answer, or its own end is gone"


class Evidence(enum.Enum):
    """What can speak for or against a path."""

    ASKED = "a sealed challenge or a call left on it"
    ANSWERED = "a challenge came back, or a session was confirmed over it"
    SILENT = "data leaves on it, and what is owed does not come back"
    REFUSED = "the kernel or a router refused a datagram: a hint, for anybody can forge it"
    MAPPED_ANEW = "the NAT here gave its own end another address: a hint"
    UNANSWERED = "everything asked stayed out for so long that loss does not explain it"
    LAPSED = "idle for long, one end moved, or the association is new"
    GONE = "the kernel took the own socket's network away"


_STATES = tuple(Validity)
V, E = Validity, Evidence

TRANSITIONS: dict[tuple[Validity, Evidence], Validity] = {
    (V.UNKNOWN, E.ASKED): V.PROBING,
    (V.PROBING, E.ASKED): V.PROBING,
    (V.GOOD, E.ASKED): V.GOOD,
    (V.DOUBTFUL, E.ASKED): V.DOUBTFUL,
    (V.DEAD, E.ASKED): V.PROBING,
    **{(state, E.ANSWERED): V.GOOD for state in _STATES},
    (V.UNKNOWN, E.SILENT): V.UNKNOWN,
    (V.PROBING, E.SILENT): V.PROBING,
    (V.GOOD, E.SILENT): V.DOUBTFUL,
    (V.DOUBTFUL, E.SILENT): V.DOUBTFUL,
    (V.DEAD, E.SILENT): V.DEAD,
    (V.UNKNOWN, E.REFUSED): V.UNKNOWN,
    (V.PROBING, E.REFUSED): V.PROBING,
    (V.GOOD, E.REFUSED): V.DOUBTFUL,
    (V.DOUBTFUL, E.REFUSED): V.DOUBTFUL,
    (V.DEAD, E.REFUSED): V.DEAD,
    (V.UNKNOWN, E.MAPPED_ANEW): V.UNKNOWN,
    (V.PROBING, E.MAPPED_ANEW): V.PROBING,
    (V.GOOD, E.MAPPED_ANEW): V.DOUBTFUL,
    (V.DOUBTFUL, E.MAPPED_ANEW): V.DOUBTFUL,
    (V.DEAD, E.MAPPED_ANEW): V.DEAD,
    **{(state, E.UNANSWERED): V.DEAD for state in _STATES},
    **{(state, E.LAPSED): V.UNKNOWN for state in _STATES},
    **{(state, E.GONE): V.DEAD for state in _STATES},
}
"""(state, evidence) -> next state."""

PROVEN = frozenset((V.GOOD, V.DOUBTFUL))
"""States in which a path may carry data without the limit of rule C6; asked for membership only."""
